"""What a report consists of: headings, paragraphs, tables and figures, from top to bottom.

The page is about 1.9 MB with figures and 2.5 MB with attention patterns as well. Its text and tables can be read
without JavaScript. All that is written into it is escaped, tokens included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import plotly.graph_objects as go

from analyses.figures.attention_view import AttentionView
from analyses.figures.caption import without_caption
from analyses.figures.frame import Drawing
from analyses.report.page import render
from analyses.report.tables import Table, seed_table, table_of
from mechproc.errors import require
from mechproc.files import atomic_write
from mechproc.result import Result, in_words
from mechproc.statistics.intervals import same_in_every_seed

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 60
"""Rows of a table that are printed."""
MAX_VIEWS = 8
"""Items on one page whose attention patterns are drawn."""


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading; those of level 2 are listed at the top of the page."""

    text: str
    level: Literal[2, 3]
    anchor: str
    kind: Literal["heading"] = "heading"


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph of text; a note is set apart from the text around it."""

    text: str
    kind: Literal["paragraph", "note"] = "paragraph"


@dataclasses.dataclass(frozen=True)
class NumberedTable:
    """A table with its caption and the notes below it."""

    table: Table
    caption: str
    number: int
    notes: list[str]
    kind: Literal["table"] = "table"


@dataclasses.dataclass(frozen=True)
class NumberedFigure:
    """A figure with its caption."""

    drawings: list[Drawing]
    caption: str
    number: int
    kind: Literal["figure"] = "figure"


Block = Heading | Paragraph | NumberedTable | NumberedFigure


class Report:
    """A page, written from top to bottom: each method adds a block to its end and returns the report."""

    max_views = MAX_VIEWS

    def __init__(self, title: str, subtitle: str = "") -> None:
        require(title.strip() != "", "title", title, "a text that says what the report is about")
        self.title, self.subtitle = title, subtitle
        self.blocks: list[Block] = []
        self.n_views_left_out = 0

    def heading(self, text: str, level: Literal[2, 3] = 2) -> Report:
        """A heading; those of level 2 are listed at the top of the page when there are three or more."""
        require(level in (2, 3), "level", level, "2 or 3")
        self.blocks.append(Heading(text, level, f"section-{len(self._of('heading')) + 1}"))
        return self

    def text(self, text: str) -> Report:
        """Paragraphs, separated by empty lines."""
        self.blocks += [Paragraph(" ".join(p.split())) for p in text.split("\n\n") if p.strip()]
        return self

    def note(self, text: str) -> Report:
        """A paragraph that is set apart: what a reader must know first, or beside the text."""
        self.blocks.append(Paragraph(" ".join(text.split()), "note"))
        return self

    def table(self, table: pd.DataFrame | Result, caption: str = "", notes: Sequence[str] = ()) -> Report:
        """A table, its first ``MAX_ROWS`` rows, and ``notes`` below it; one says how many rows there are.

        A ``Result`` with an axis ``seed`` is printed with one row for each other label: mean, interval and each seed
        (see ``seed_table``); its caption says what the values mean and what they do not show. Its warnings come first.
        """
        notes = list(notes)
        if isinstance(table, Result):
            caption = _sentences(caption, *_caption(table))
            notes += [f"{in_words(where)} undefined: {reason}" for where, reason in table.undefined]
            table = seed_table(table) if "seed" in table.axes else table.table().drop(columns="note")
        if len(table) > MAX_ROWS:
            notes.append(f"The first {MAX_ROWS} of {len(table)} rows.")
        _require_caption(caption)
        number = len(self._of("table")) + 1
        self.blocks.append(NumberedTable(table_of(table.head(MAX_ROWS)), caption, number, notes))
        return self

    def figure(self, figure: go.Figure | AttentionView, caption: str = "") -> Report:
        """A plotly figure, or an attention view.

        Those of ``analyses.figures`` bring a caption that says the seeds, the interval and what is not shown; it
        follows ``caption``. Another figure needs one here. A page draws the attention on ``MAX_VIEWS`` items at most.
        """
        number = len(self._of("figure")) + 1
        if isinstance(figure, AttentionView):
            drawings = figure.drawings(f"figure-{number}")
            room = MAX_VIEWS - sum(d.library == "circuitsvis" for f in self._of("figure") for d in f.drawings)
            self.n_views_left_out += max(len(drawings) - room, 0)
            drawings, own = drawings[:room], figure.caption
        else:
            own = str((figure.layout.meta or {}).get("caption", ""))  # type: ignore[union-attr]
            data = without_caption(figure)
            drawings = [Drawing(f"figure-{number}", "plotly", data, int(data["layout"].get("height") or 450))]
        caption = _sentences(caption, own)
        _require_caption(caption)
        if drawings:
            self.blocks.append(NumberedFigure(drawings, caption, number))
        return self

    def html(self) -> str:
        """The whole page."""
        return render(self)

    def write(self, path: str | Path) -> None:
        """Write the page, atomically. Errors: ``StoreError``."""
        atomic_write(path, self.html().encode())

    def _of(self, kind: str) -> list:
        return [block for block in self.blocks if block.kind == kind]


def _require_caption(caption: str) -> None:
    require(caption.strip() != "", "caption", caption, "a text that says what is seen and what is not shown")


def _caption(result: Result) -> list[str]:
    sentences = [f"Warning: {sentence}" for sentence in result.warnings]
    sentences.append(f"{result.title} ({result.unit}; {result.direction})")
    if "seed" in result.axes:
        sentences.append(f"{len(result.coordinates['seed'])} seeds")
        labels = [label for axis in result.axes if axis != "seed" for label in result.coordinates[axis]]
        if {"head", "neuron"} & set(result.axes) or not all(map(same_in_every_seed, labels)):
            sentences.append("heads and neurons that are named by their index have no mean over seeds")
    return [*sentences, f"Does not show: {result.what_it_does_not_show}"]


def _sentences(*texts: str) -> str:
    """Texts joined, each beginning and ending like a sentence."""
    kept = [text.strip() for text in texts if text.strip()]
    return " ".join(text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".") for text in kept)
