"""A Result as text and, in a notebook, as an HTML table."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import numpy as np

from mechproc.result.labels import Where, places_in_words
from mechproc.result.references import reference_scores

if TYPE_CHECKING:
    from mechproc.result.core import Result

MAX_ROWS = 40
"""Rows that are shown."""
MAX_COLUMNS = 16
"""Labels of one axis that are shown beside each other in a notebook; seeds may be as many as ``MAX_SEEDS``."""
MAX_SEEDS = 32
MAX_REASONS = 3
"""Reasons of undefined cells that are shown without being asked for."""


def as_text(result: Result) -> str:
    """What was measured, its warnings, what it is held against, a table as in ``as_html``, what it does not show."""
    rows, n_rows, n_empty = _rows(result)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    body = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    rest = [f"... and {n_rows - MAX_ROWS:,} more rows"] if n_rows > MAX_ROWS else []
    rest += _left_out(result, n_empty)
    warnings = [f"Warning: {sentence}" for sentence in result.warnings]
    lines = _reasons(result)
    reasons = lines if len(lines) <= MAX_REASONS else [f"Undefined for {len(lines)} reasons: see the notes of table()"]
    end = f"Does not show: {result.what_it_does_not_show}"
    held_against = reference_scores(result)
    head = [heading(result), *warnings, result.direction, *held_against]
    return "\n".join([*head, *body, *rest, *reasons, *_sentences(result), end])


def as_html(result: Result) -> str:
    """An HTML table: a column for each seed (else for each label of the last axis that is short), rows for the others.

    Above it the name, unit, direction, warnings, and what the values are to be held against where that is known; below
    it the reasons of undefined cells and what is not shown.
    """
    (head, *rows), n_rows, n_empty = _rows(result)
    n_names = len(result.axes) - (_across(result) is not None)
    columns = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    cells = [
        "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text, kind in zip(row, _kinds(n_names, row), strict=True))
        for row in rows
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    notes = [f"{n_rows - MAX_ROWS:,} more rows are not shown."] if n_rows > MAX_ROWS else []
    notes += _left_out(result, n_empty)
    notes += [*_sentences(result), f"Does not show: {result.what_it_does_not_show}"]
    return "".join(
        [
            f"<p><b>{html.escape(heading(result))}</b>. {html.escape(result.direction)}</p>",
            *(f"<p><b>Warning:</b> {html.escape(sentence)}</p>" for sentence in result.warnings),
            *(f"<p>{html.escape(sentence)}</p>" for sentence in reference_scores(result)),
            f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>",
            _folded(_reasons(result)),
            *(f"<p>{html.escape(note)}</p>" for note in notes),
        ]
    )


def _reasons(result: Result) -> list[str]:
    """Why cells are undefined, cells of one reason together."""
    cells: dict[str, list[Where]] = {}
    for where, reason in result.undefined:
        cells.setdefault(reason, []).append(where)
    return [f"{places_in_words(places)} undefined: {reason}" for reason, places in cells.items()]


def _folded(reasons: list[str]) -> str:
    shown = "".join(f"<p>{html.escape(line)}</p>" for line in reasons)
    if len(reasons) <= MAX_REASONS:
        return shown
    return f"<details><summary>Why cells are undefined: {len(reasons)} reasons</summary>{shown}</details>"


def _kinds(n_names: int, row: list[str]) -> list[str]:
    return ["th"] * n_names + ["td"] * (len(row) - n_names)


def _rows(result: Result) -> tuple[list[list[str]], int, int]:
    """The heading and the first rows of the table, how many rows there are without the heading, and how many more have
    nothing to read in them."""
    across = _across(result)
    others = [axis for axis in result.axes if axis != across]
    shape = [len(result.coordinates[axis]) for axis in others]
    labels = result.coordinates[across] if across else ()
    rows = [[*others, *(f"{across} {label}" for label in labels)] if across else [*others, "value"]]
    told = np.flatnonzero(_told(result, across))
    for index in np.array(np.unravel_index(told[:MAX_ROWS], shape)).T if shape else [()]:
        place = dict(zip(others, (int(i) for i in index), strict=True))
        at = [np.full(max(len(labels), 1), place[a]) if a in place else np.arange(len(labels)) for a in result.axes]
        rows.append([*(str(result.coordinates[a][i]) for a, i in place.items()), *_texts(result, tuple(at))])
    return rows, len(told), math.prod(shape) - len(told)


def _told(result: Result, across: str | None) -> np.ndarray:
    """bool [row]: the rows that say something, where there are too many to show all. One whose cells are all undefined
    does not, nor one of zeros where ``metadata["zero"]`` says that they stand for nothing."""
    empty = result.is_undefined
    if "zero" in result.metadata:
        empty = empty | (result.values == 0)
    last = result.axes.index(across) if across else None
    rows = empty.ravel() if last is None else empty.all(axis=last).ravel()
    return ~rows if len(rows) > MAX_ROWS and not rows.all() else np.ones_like(rows)


def _left_out(result: Result, n_empty: int) -> list[str]:
    if not n_empty:
        return []
    rows, are = ("row", "is") if n_empty == 1 else ("rows", "are")
    zero = f" or a value other than 0 ({result.metadata['zero']})" if "zero" in result.metadata else ""
    return [f"{n_empty:,} {rows} without a value{zero} {are} left out."]


def _sentences(result: Result) -> list[str]:
    """What the analysis says of its values: ``metadata["sentences"]``, and ``metadata["about"]`` of labels."""
    about = result.metadata.get("about")
    of_labels = about.items() if isinstance(about, dict) else ()
    return [*map(str, result.metadata.get("sentences", [])), *(f"{label}: {text}." for label, text in of_labels)]


def heading(result: Result) -> str:
    """What was measured, its unit and the sizes of its axes, in one line."""
    sizes = " x ".join(f"{len(result.coordinates[axis])} {axis}" for axis in result.axes)
    return f"{result.title} [{result.unit}]: {sizes or 'one number'}"


def _across(result: Result) -> str | None:
    """The axis whose labels are columns."""
    if "seed" in result.axes and len(result.coordinates["seed"]) <= MAX_SEEDS:
        return "seed"
    if len(result.axes) == 1:
        return None
    short = [axis for axis in result.axes if len(result.coordinates[axis]) <= MAX_COLUMNS]
    return short[-1] if short else None


def _texts(result: Result, index: tuple[np.ndarray, ...]) -> list[str]:
    """The cells at these places as they are printed."""
    values, undefined = (np.atleast_1d(array[index]) for array in (result.values, result.is_undefined))
    nothing = np.where(undefined, "undefined", "missing").tolist()
    return [word if math.isnan(v) else format(v, ".4g") for v, word in zip(values.tolist(), nothing, strict=True)]
