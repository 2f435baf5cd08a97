"""A report: text, tables, figures and attention patterns on one HTML page that opens anywhere without a network.

The page is about 1.9 MB with figures and 2.5 MB with attention patterns as well; it asks no server for anything, and
its text and tables read without JavaScript. What is written into it is escaped, tokens included.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses.page import page
from mechproc.errors import require
from mechproc.files import atomic_write
from mechproc.result import Result
from mechproc.statistics.paired import interval

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

MAX_ROWS = 60
"""Rows of a table that are printed."""
MAX_POSITIONS = 64
"""Positions of an attention pattern that are drawn, from the first on."""
MAX_HEADS = 16
"""Heads in one view of attention patterns."""
MAX_EXAMPLES = 8
"""Views of attention patterns on one page."""


class Report:
    """A page, written from top to bottom: each method adds to its end and returns the report."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        require(title.strip() != "", "title", title, "a text that says what the report is about")
        self.title, self.subtitle = title, subtitle
        self._body: list[str] = []
        self._headings: list[tuple[str, str]] = []
        self._views: list[dict[str, Any]] = []
        self._counts = {"Figure": 0, "Table": 0}
        self._examples_left_out = 0

    def heading(self, text: str, level: int = 2) -> Report:
        """A heading; those of level 2 are listed at the top of the page when there are three or more."""
        require(level in (2, 3), "level", level, "2 or 3")
        name = f"section-{len(self._headings) + 1}"
        if level == 2:
            self._headings.append((name, text))
        self._body.append(f"<h{level}{f' id={name}' if level == 2 else ''}>{html.escape(text)}</h{level}>")
        return self

    def text(self, text: str) -> Report:
        """Paragraphs, separated by empty lines."""
        self._body += [f"<p>{html.escape(' '.join(p.split()))}</p>" for p in text.split("\n\n") if p.strip()]
        return self

    def table(self, table: pd.DataFrame | Result, caption: str = "") -> Report:
        """A table, its first ``MAX_ROWS`` rows; what is left out is said below it.

        A ``Result`` with an axis ``seed`` is printed with one row for each other label: mean, interval and each seed
        (see ``seed_table``); its caption says what the values mean and what they do not show.
        """
        notes = []
        if isinstance(table, Result):
            caption = _sentences(caption, _caption(table))
            notes = [f"{_where(where)} undefined: {reason}" for where, reason in table.undefined]
            table = seed_table(table) if "seed" in table.axes else table.table().drop(columns="note")
        if len(table) > MAX_ROWS:
            notes.append(f"The first {MAX_ROWS} of {len(table)} rows.")
        notes_html = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
        self._add("Table", f'<div class="scroll">{_table_html(table.head(MAX_ROWS))}</div>{notes_html}', caption)
        return self

    def figure(self, figure: go.Figure, caption: str = "") -> Report:
        """A plotly figure.

        Those of ``analyses.figures`` bring a caption that says the seeds, the interval and what is not shown; it
        follows ``caption``. Another figure needs one here.
        """
        caption = _sentences(caption, (figure.layout.meta or {}).get("caption", ""))  # type: ignore[union-attr]
        height = int(figure.layout.height or 450)  # type: ignore[union-attr]
        self._add("Figure", self._view("plotly", figure.to_dict(), height), caption)
        return self

    def attention(
        self,
        tokens: Sequence[str],
        patterns: Any,
        caption: str,
        head_names: Sequence[str] | None = None,
    ) -> Report:
        """The attention patterns of one item: ``patterns`` [head, query, key], one token name for each position.

        At most ``MAX_HEADS`` heads, ``MAX_POSITIONS`` positions and ``MAX_EXAMPLES`` items a page are drawn; the page
        says what was left out.
        """
        values = np.asarray(patterns, dtype=np.float64)
        n = len(tokens)
        require(values.ndim == 3 and values.shape[1:] == (n, n), "shape of patterns", values.shape, f"[head, {n}, {n}]")
        require(n > 0 and bool(np.isfinite(values).all()), "patterns", "NaN, infinity or no token", "finite numbers")
        names = [f"head {i}" for i in range(len(values))] if head_names is None else list(head_names)
        require(len(names) == len(values), "head_names", names, f"{len(values)} names")
        if sum(view["library"] == "circuitsvis" for view in self._views) == MAX_EXAMPLES:
            self._examples_left_out += 1
            return self
        if n > MAX_POSITIONS:
            caption = _sentences(caption, f"The first {MAX_POSITIONS} of {n} positions are drawn.")
        if len(values) > MAX_HEADS:
            caption = _sentences(caption, f"The first {MAX_HEADS} of {len(values)} heads are drawn.")
        data = {
            "tokens": [str(token) for token in tokens[:MAX_POSITIONS]],
            "attention": values[:MAX_HEADS, :MAX_POSITIONS, :MAX_POSITIONS],
            "attentionHeadNames": names[:MAX_HEADS],
            "minValue": -1.0,
            "maxValue": 1.0,
            "positiveColor": "#1f5388",
            "maskUpperTri": False,  # a causal pattern is zero there; grey would be the darkest thing on the page
        }
        self._add("Figure", self._view("circuitsvis", data, 640), caption)
        return self

    def html(self) -> str:
        """The whole page."""
        listed = "".join(f'<li><a href="#{name}">{html.escape(text)}</a></li>' for name, text in self._headings)
        contents = [f"<nav aria-label=Contents><ol>{listed}</ol></nav>"] if len(self._headings) >= 3 else []
        left_out = f"{self._examples_left_out} more attention patterns are not drawn: a page has {MAX_EXAMPLES}."
        note = [f'<p class="note">{left_out}</p>'] if self._examples_left_out else []
        return page(self.title, self.subtitle, "\n".join([*contents, *self._body, *note]), self._views)

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all. Errors: ``StoreError``."""
        atomic_write(path, self.html().encode())

    def _view(self, library: str, data: dict[str, Any], height: int) -> str:
        name = f"view-{len(self._views) + 1}"
        self._views.append({"id": name, "library": library, "data": data})
        style = "view attention" if library == "circuitsvis" else "view"
        waiting = '<p class="waiting">JavaScript draws this figure.</p>'
        return (
            f'<div class="{style}"><div id="{name}" data-library="{library}" style="min-height:{height}px">'
            f"{waiting}</div></div>"
        )

    def _add(self, kind: str, content: str, caption: str) -> None:
        require(caption.strip() != "", "caption", caption, "a text that says what is seen and what is not shown")
        self._counts[kind] += 1
        number = f"<b>{kind} {self._counts[kind]}.</b> "
        self._body.append(f"<figure>{content}<figcaption>{number}{html.escape(caption)}</figcaption></figure>")


def seed_table(result: Result, level: float = 0.95) -> pd.DataFrame:
    """One row for each label of the axes other than ``seed``: mean over seeds, interval, number of seeds, each seed.

    A mean that misses a seed, and an interval that has too few, are printed as such.
    """
    import pandas as pd

    axis = tuple(result.axes).index("seed")
    others = [a for a in result.axes if a != "seed"]
    spec = ".3f" if result.unit == "fraction" else ".4g"
    values, texts = np.moveaxis(result.values, axis, -1), np.moveaxis(result.texts(spec), axis, -1)
    rows = []
    for index in np.ndindex(values.shape[:-1]):
        row: dict[str, Any] = {a: result.coordinates[a][i] for a, i in zip(others, index, strict=True)}
        seeds, spelled = values[index], texts[index].tolist()
        nothing = next((text for text in spelled if text in ("undefined", "missing")), None)
        row["mean"] = nothing or format(seeds.mean(), spec)
        row[f"{100 * level:.3g} % interval"] = nothing or _interval_text(seeds, level, spec)
        row["seeds"] = len(seeds)
        rows.append(row | {f"seed {s}": text for s, text in zip(result.coordinates["seed"], spelled, strict=True)})
    return pd.DataFrame(rows)


def _interval_text(seeds: np.ndarray, level: float, spec: str) -> str:
    found = interval(seeds, level)
    return f"{found.low:{spec}} to {found.high:{spec}}" if found.bounded else "too few seeds"


def _caption(result: Result) -> str:
    seeds = f"{len(result.coordinates['seed'])} seeds" if "seed" in result.axes else ""
    head = f"{result.name} ({result.unit}; {result.direction})"
    return _sentences(head, seeds, f"Does not show: {result.what_it_does_not_show}")


def _sentences(*texts: str) -> str:
    """Texts joined, each beginning and ending like a sentence."""
    kept = [text.strip() for text in texts if text.strip()]
    return " ".join(text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".") for text in kept)


def _where(where: Any) -> str:
    return ", ".join(f"{axis} {label}" for axis, label in where.items()) or "every cell"


def _table_html(table: pd.DataFrame) -> str:
    numbers = {c: all(_is_number(v) for v in table[c] if v not in ("undefined", "missing")) for c in table.columns}
    head = "".join(f"<th{' class=number' if numbers[c] else ''}>{html.escape(str(c))}</th>" for c in table.columns)
    rows = []
    for record in table.itertuples(index=False):
        cells = []
        for column, value in zip(table.columns, record, strict=True):
            kinds = ["number"] if numbers[column] else []
            kinds += ["nothing"] if value in ("undefined", "missing") else []
            attribute = f' class="{" ".join(kinds)}"' if kinds else ""
            cells.append(f"<td{attribute}>{html.escape(_cell(value))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
