"""What a page consists of: headings, paragraphs, tables and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from analyses.report.tables import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.figures.frame import Drawing


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
    kind: Literal["figure"] = "figure"


Block = Heading | Paragraph | NumberedTable | NumberedFigure
