"""What a report consists of: headings, paragraphs, tables and figures, from top to bottom.

Figures are drawn as SVG when the page is written; the browser draws attention patterns alone, with CircuitsVis. Text,
tables and figures can be read without JavaScript. All that is written into the page is escaped, tokens included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import plotly.graph_objects as go

from analyses.figures.attention_view import AttentionView
from analyses.report.blocks import Block, Heading, NumberedFigure, NumberedTable, Paragraph
from analyses.report.downloads import packed, rows_of
from analyses.report.evidence import Evidence
from analyses.report.page import render
from analyses.report.summary import summary
from analyses.report.tables import seed_table, table_of
from mechproc.errors import require
from mechproc.files import atomic_write
from mechproc.result import Result, Where, places_in_words
from mechproc.statistics.intervals import same_in_every_seed

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 60
"""Rows of a table that are printed."""
MAX_NUMBERS = 24
"""Rows of the table below a figure."""
SENTENCES = re.compile(r"(?<=[.!?]) (?=[A-Z0-9])")
"""Between two sentences of a caption."""
MAX_VIEWS = 8
"""Items on one page whose attention patterns are drawn."""


class Report:
    """A page, written from top to bottom: each method adds a block to its end and returns the report.

    What the page knows of a part (or of an arm) is its evidence: the rows of every Result that was given to ``figure``
    or ``evidence``, and what ``about`` added. Cells and labels of maps lead to it.
    """

    max_views = MAX_VIEWS

    def __init__(self, title: str, subtitle: str = "") -> None:
        require(title.strip() != "", "title", title, "a text that says what the report is about")
        self.title, self.subtitle = title, subtitle
        self.blocks: list[Block] = []
        self.n_views_left_out = 0
        self.known = Evidence()

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

    def command(self, text: str) -> Report:
        """Lines that are typed into a terminal, written as they are typed."""
        self.blocks.append(Paragraph(text, "command"))
        return self

    def table(self, table: pd.DataFrame | Result, caption: str = "", notes: Sequence[str] = ()) -> Report:
        """A table, its first ``MAX_ROWS`` rows, and ``notes`` below it; where there are more, all can be downloaded.

        A ``Result`` with an axis ``seed`` is printed with one row for each other label: mean, interval and each seed
        (see ``seed_table``); its caption says what the values mean and what they do not show. Its warnings come first.
        """
        notes, whole = list(notes), ""
        if isinstance(table, Result):
            caption = _sentences(caption, *_caption(table))
            table, of_result = _table_of(table)
            notes += of_result
        if len(table) > MAX_ROWS:
            notes.append(f"The first {MAX_ROWS} of {len(table)} rows; all of them are in the CSV file.")
            whole = packed(table)
        _require_caption(caption)
        number = len(self._of("table")) + 1
        self.blocks.append(NumberedTable(table_of(table.head(MAX_ROWS)), caption, number, notes, whole))
        return self

    def figure(
        self,
        figure: go.Figure | AttentionView | Sequence[go.Figure],
        caption: str = "",
        data: Result | None = None,
    ) -> Report:
        """A plotly figure, several that belong together, or an attention view.

        Those of ``analyses.figures`` bring a caption that says the seeds, the interval and what is not shown; it
        follows ``caption``, once where there are several. Another figure needs one here. ``data``: the Result that was
        drawn, which is printed below the figure, can be downloaded, and is evidence on its parts; without it the
        numbers are those of the marks. A page draws the attention on ``MAX_VIEWS`` items at most.
        """
        number = len(self._of("figure")) + 1
        if isinstance(figure, AttentionView):
            drawings = figure.drawings(f"figure-{number}")
            room = MAX_VIEWS - sum(len(f.drawings) for f in self._of("figure"))
            self.n_views_left_out += max(len(drawings) - room, 0)
            caption = _sentences(caption, figure.caption)
            csv = packed(rows_of(figure))
            if room > 0:
                self.blocks.append(NumberedFigure([], drawings[:room], caption, number, figure.caption, csv))
            return self
        drawn = [figure] if isinstance(figure, go.Figure) else list(figure)
        require(bool(drawn), "figure", figure, "at least one figure")
        own, below = _common([str((each.layout.meta or {}).get("caption", "")) for each in drawn])  # type: ignore[union-attr]
        caption = _sentences(caption, own)
        _require_caption(caption)
        whole = rows_of(data if data is not None else drawn)
        rows, notes = (whole.head(MAX_NUMBERS), []) if data is None else _table_of(data, MAX_NUMBERS)
        if len(whole) > MAX_NUMBERS:
            notes.append(f"All of the {len(whole):,} numbers are in the CSV file.")
        if data is not None:
            self.evidence(data)
        told = summary(drawn, data)
        self.blocks.append(
            NumberedFigure(
                drawn, [], caption, number, told, packed(whole), table_of(rows.head(MAX_NUMBERS)), notes, below
            )
        )
        return self

    def evidence(self, *results: Result) -> Report:
        """Results whose rows are evidence on the parts that they are about."""
        for result in results:
            self.known.add(result)
        return self

    def about(self, subject: str) -> Report:
        """What is said of one part or arm beside its rows: a page of its own, which is shown with them."""
        return self.known.page(subject)

    def html(self) -> str:
        """The whole page."""
        return render(self)

    def write(self, path: str | Path) -> None:
        """Write the page, atomically. Errors: ``StoreError``."""
        atomic_write(path, self.html().encode())

    def _of(self, kind: str) -> list:
        return [block for block in self.blocks if block.kind == kind]


def _table_of(result: Result, most: int | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a Result, the first ``most`` of them, and why some of its cells mean nothing."""
    reasons: dict[str, list[Where]] = {}
    for where, reason in result.undefined:
        reasons.setdefault(reason, []).append(where)
    notes = [f"{places_in_words(places)} undefined: {reason}" for reason, places in reasons.items()]
    if "seed" in result.axes:
        return seed_table(result, most=most), notes
    table = result.table().drop(columns="note")
    table["value"] = result.texts().ravel()
    return table.head(most or len(table)), notes


def _common(captions: Sequence[str]) -> tuple[str, list[str]]:
    """The sentences that all captions have, and of each caption the others."""
    each = [SENTENCES.split(caption) for caption in captions]
    shared = [sentence for sentence in dict.fromkeys(each[0]) if all(sentence in of_one for of_one in each)]
    return " ".join(shared), [" ".join(s for s in of_one if s not in shared) for of_one in each]


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
