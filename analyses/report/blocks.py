"""What a page consists of: headings, paragraphs, tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from analyses.report.tables import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.figures.frame import Drawing


ROOM = 930
"""Pixels between the margins of a wide screen."""


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading; those of level 2 are listed at the top of the page."""

    text: str
    level: Literal[2, 3]
    anchor: str
    kind: Literal["heading"] = "heading"


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph of text; a note is set apart from the text around it, a command is written as it is typed."""

    text: str
    kind: Literal["paragraph", "note", "command"] = "paragraph"


@dataclasses.dataclass(frozen=True)
class NumberedTable:
    """A table with its caption and the notes below it."""

    table: Table
    caption: str
    number: int
    notes: list[str]
    csv: str = ""
    """All of its rows, packed; empty where the page prints them all."""
    kind: Literal["table"] = "table"


@dataclasses.dataclass(frozen=True)
class NumberedFigure:
    """A figure with its caption, its numbers as a table, and what can be downloaded."""

    figures: Sequence[go.Figure]
    """Drawn side by side, as many as there is room for."""
    drawings: Sequence[Drawing]
    """What the browser draws."""
    caption: str
    number: int
    summary: str
    """What a screen reader says in the place of the picture."""
    csv: str
    """All of its numbers, packed."""
    numbers: Table | None = None
    notes: Sequence[str] = ()
    below: Sequence[str] = ()
    """What is said of each picture alone, where there are several."""
    kind: Literal["figure"] = "figure"

    @property
    def height(self) -> int:
        """Pixels that it takes on a wide screen, about: kept free until it is drawn."""
        from analyses.figures.svg import width_of

        rows, room = [0.0], 0.0
        for each in self.figures:
            height, width = float(each.layout.height or 450), width_of(each, len(self.figures) > 1)  # type: ignore[union-attr]
            fits = width <= room
            rows[-1:] = [max(rows[-1], height)] if fits else [rows[-1], height]
            room = (room if fits else ROOM) - width
        return round(sum(rows) + sum(drawing.height for drawing in self.drawings)) + 200


Block = Heading | Paragraph | NumberedTable | NumberedFigure
