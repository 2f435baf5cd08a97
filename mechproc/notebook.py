"""The HTML that objects show in a notebook. Every text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


def facts(caption: str, rows: Mapping[str, object]) -> str:
    """A table of names and values under a caption."""
    body = "".join(f"<tr><th>{html.escape(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{html.escape(caption)}</caption>{body}</table>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a header row; the first cell of a row is its name."""
    columns = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = ""
    for name, *cells in rows:
        body += f"<tr><th>{_text(name)}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
    return f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def paragraph(text: str, word: str = "") -> str:
    """A paragraph, its first ``word`` in bold."""
    strong = f"<b>{html.escape(word)}</b> " if word else ""
    return f"<p>{strong}{html.escape(text)}</p>"


def points(sentences: Iterable[str]) -> str:
    """A list of sentences; nothing when there is none."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _text(value: object) -> str:
    return html.escape(str(value))
