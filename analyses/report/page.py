"""A report as one HTML document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from analyses.figures import frame

if TYPE_CHECKING:
    from analyses.report.document import Report

PACKAGE = "analyses.report"
"""Whose templates are used."""
MIN_HEADINGS = 3
"""Headings of level 2 from which on the page begins with a list of them."""


def render(report: Report) -> str:
    """The whole page; see ``templates/document.html``."""
    headings = [block for block in report.blocks if block.kind == "heading" and block.level == 2]
    body = (
        frame.templates(PACKAGE)
        .get_template("document.html")
        .render(report=report, contents=headings if len(headings) >= MIN_HEADINGS else [])
    )
    drawings = [drawing for block in report.blocks if block.kind == "figure" for drawing in block.drawings]
    return frame.page(report.title, Markup(body), drawings, frame.file_text(PACKAGE, "document.css"))
