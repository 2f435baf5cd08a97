"""Results of analyses on a page: the figure that fits the axes of each, and all maps of parts beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses import figures
from analyses.figures import choose
from analyses.figures.choose import Drawn, as_parts, each_of
from analyses.report.document import Report
from mechproc.result import Result, in_words

MAX_FIGURES = 8
"""Figures of one Result; the rest of its numbers is in its CSV file and in the evidence."""
MAX_MAPS = 6
"""Maps of one Result beside those of the others."""


def add(page: Report, results: Sequence[Result]) -> None:
    """A section for each Result, and before them all maps of parts in the same rows where there are several."""
    _beside_each_other(page, results)
    titles = [result.title for result in results]
    for number, result in enumerate(results):
        title = result.title if titles.count(result.title) == 1 else f"{result.title}: {_whose(result)}"
        page.heading(f"{title[0].upper()}{title[1:]}", 2 if number == 0 or len(results) < 12 else 3)
        for sentence in result.metadata.get("sentences", []):
            page.text(str(sentence))
        drawn, n_left_out = figures_of(result)
        more = f" {n_left_out} more are not drawn; their numbers are in the CSV file." if n_left_out else ""
        if drawn:
            page.figure(drawn, _about(result) + more, result)
        else:
            page.table(result)
            page.evidence(result)


def figures_of(result: Result) -> tuple[Drawn, int]:
    """The figures that fit the axes of a Result, and how many were left out; none where a table is better."""
    drawn = choose.figures_of(result)
    return drawn[:MAX_FIGURES], max(0, len(drawn) - MAX_FIGURES)


def maps_of(result: Result) -> list[tuple[str, Result]]:
    """The maps in a Result, parts by seeds, with what sets each apart from the others."""
    parts = as_parts(result)
    if "part" not in parts.axes or {"position", "other", "matrix", "step"} & set(parts.axes):
        return []
    return [(f"{result.name}, {in_words(where)}" if where else result.name, one)
            for where, one in each_of(parts, ("part", "seed"))]  # fmt: skip


# ---- inside ----------------------------------------------------------------------------------------------------------


def _beside_each_other(page: Report, results: Sequence[Result]) -> None:
    titles = [result.name for result in results]
    found: list[tuple[str, Result]] = []
    left_out = 0
    for result in results:
        maps = [each for each in maps_of(result) if np.isfinite(each[1].values).any()]
        whose = f", {_whose(result)}" if titles.count(result.name) > 1 and maps else ""
        found += [(f"{title}{whose}", one) for title, one in maps[:MAX_MAPS]]
        left_out += len(maps[MAX_MAPS:])
    if len(found) < 2:
        return
    page.heading("Maps beside each other")
    more = f" {left_out} more maps are below, with the Result that they are of." if left_out else ""
    page.text(f"Every map has the same rows, so that a part can be followed from one to the next.{more}")
    page.figure(figures.maps([one for _, one in found], [title for title, _ in found]))


def _whose(result: Result) -> str:
    """Which models a Result is of, as far as it says; else the name of its file."""
    models = (result.metadata.get("request") or {}).get("models") or {}
    return ", ".join(models) or str(result.metadata.get("file", "not named"))


def _about(result: Result) -> str:
    warnings = [f"Warning: {sentence.rstrip('.')}." for sentence in result.warnings]
    return " ".join(warnings) if not result.axes else ""
