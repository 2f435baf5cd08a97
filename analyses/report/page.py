"""A report as one HTML document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from analyses.figures import frame
from analyses.figures.svg import svg, width_of
from analyses.report.blocks import NumberedFigure, NumberedTable

if TYPE_CHECKING:
    from analyses.report.document import Report

PACKAGE = "analyses.report"
"""Whose templates are used."""
FEW_SUBJECTS = 24
"""Subjects up to which the list of them is open."""
MIN_HEADINGS = 3
"""Headings of level 2 from which on the page begins with a list of them."""


def render(report: Report) -> str:
    """The whole page; see ``templates/document.html``."""
    headings = [block for block in report.blocks if block.kind == "heading" and block.level == 2]
    subjects = {subject: report.known.on(subject) for subject in report.known.subjects()}
    evidence = {subject: page for subject, page in subjects.items() if page.blocks}
    links = {subject: f"evidence-{number}" for number, subject in enumerate(evidence, start=1)}
    figures = [block for block in report.blocks if block.kind == "figure"]

    def drawn(figure: NumberedFigure, prefix: str) -> list[tuple[Markup, float]]:
        """The pictures of a figure and their widths; those of a subject's evidence lead nowhere."""
        known = links if prefix == "figure" else {}
        narrow = len(figure.figures) > 1
        return [
            (
                svg(each, f"{prefix}-{figure.number}-{n}", label=figure.summary, links=known, narrow=narrow),
                width_of(each, narrow),
            )
            for n, each in enumerate(figure.figures, start=1)
        ]

    body = (
        frame.templates(PACKAGE)
        .get_template("document.html")
        .render(
            report=report,
            contents=headings if len(headings) >= MIN_HEADINGS else [],
            evidence=[(links[subject], page) for subject, page in evidence.items()],
            drawn=drawn,
            few=FEW_SUBJECTS,
        )
    )
    downloads = _downloads("figure", report)
    for subject, page in evidence.items():
        downloads |= _downloads(links[subject], page)
    drawings = [drawing for block in figures for drawing in block.drawings]
    script = frame.file_text(PACKAGE, "document.js") if downloads or evidence else None
    style = frame.file_text(PACKAGE, "document.css")
    return frame.page(report.title, Markup(body), drawings, style, script=script, packed_texts=downloads)


def _downloads(prefix: str, page: Report) -> dict[str, str]:
    """The packed CSV files of the figures and tables of a page or of a subject's evidence, by id."""
    names = {"figure": prefix, "table": f"{prefix}-table"}
    kept = [block for block in page.blocks if isinstance(block, NumberedFigure | NumberedTable)]
    return {f"{names[block.kind]}-{block.number}-csv": block.csv for block in kept if block.csv}
