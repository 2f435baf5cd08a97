"""The table of a calibration as Markdown, and the page that holds it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from analyses.planted.join import missing
from analyses.planted.methods import METHODS
from analyses.planted.roles import Role
from mechproc.pages import table, write_between
from mechproc.result import Result

NAME = "calibration"
"""Of the marks between which a page has the table."""
OWN_COLUMN = (Role.REDUNDANT, Role.BACKED_UP, Role.BACKUP, Role.CANCELLING, Role.CONSTANT, Role.DECOY)
"""Roles that count neither as a hit nor, but for the decoy, as a false alarm."""


def markdown(result: Result) -> str:
    """One row for each cell: hits and false alarms of plantings and of parts in percent, with 95 % Wilson intervals;
    under it what is flagged of parts with a role of their own, and what was not measured."""
    heads = (
        "method",
        "family",
        "contrast",
        "found all",
        "any alarm",
        "parts found",
        "parts alarmed",
        "threshold",
    )
    rows = []
    for label in result.coordinates["cell"]:
        cell = result.metadata["cells"][label]
        row = result.select(cell=label)
        rates = [_rate(row, rate) for rate in ("hit", "alarm", "part hit", "part alarm")]
        limit = f"{float(row.select(quantity='threshold').values):.3f} {METHODS[cell['method']].unit}"
        rows.append([cell["method"], cell["family"], cell["contrast"], *rates, limit])
    rule, n = result.metadata["rule"], result.metadata["n_plantings"]
    settings = [f"{name} = {value}" for name, value in result.metadata["settings"].items()]
    below = (
        f"Settings of the families: {', '.join(settings) or 'at their defaults'}. Plantings in each cell: {n}, after "
        f"{rule['n_calibration']} others for the threshold, which is the larger of {rule['floor']} and the "
        f"{100 * rule['quantile']:g} % quantile of inert parts. Does not show: {result.what_it_does_not_show}."
    )
    blocks = [table(heads, rows), below, *_of_roles(result), _provenance(result), *_not_measured(result)]
    return "\n\n".join(blocks)


def _of_roles(result: Result) -> list[str]:
    """How often each method flags parts that are neither simply true nor inert, beside what it should say."""
    cells = {label: result.metadata["cells"][label] for label in result.coordinates["cell"]}
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for label, cell in cells.items():
        for role in OWN_COLUMN:
            share = float(result.select(cell=label, quantity=f"flagged: {role.value}").values)
            if not math.isnan(share):
                row = found.setdefault((cell["family"], role.value, cell["contrast"]), {})
                row[cell["method"]] = f"{100 * share:.0f} ({result.metadata['expected'][label][role.value]})"
    if not found:
        return []
    methods = [method for method in METHODS if any(method in row for row in found.values())]
    rows = [[*key, *(row.get(method, "–") for method in methods)] for key, row in found.items()]
    above = (
        "Parts that are neither simply true nor inert: how many of them each method flags, in percent, and what it "
        "should say. Where a method should be silent of a part that matters, it cannot see it."
    )
    return [above, table(("family", "the part is", "contrast", *methods), rows)]


def _provenance(result: Result) -> str:
    """Which cells were measured at which commit."""
    of_commit = Counter(result.metadata["commits"].values())
    counts = ", ".join(f"{n} at `{commit[:10]}`" for commit, n in of_commit.items())
    return f"Cells by the commit whose code measured them: {counts}."


def _not_measured(result: Result) -> list[str]:
    """A list of what was asked and has not been measured."""
    by_method: dict[str, list[str]] = {}
    for cell in missing(result):
        by_method.setdefault(cell.method, []).append(cell.family)
    lines = [f"- {method}: {', '.join(dict.fromkeys(kinds))}" for method, kinds in by_method.items()]
    return ["Not measured on this many plantings yet:", "\n".join(lines)] if lines else []


def write(path: str | Path, result: Result) -> None:
    """Put the table between the marks of a page. Errors: ``StoreError`` for a page without marks."""
    write_between(path, NAME, markdown(result))


def _rate(row: Result, rate: str) -> str:
    value, low, high = (float(row.select(quantity=f"{rate}{end}").values) for end in ("", " low", " high"))
    return "–" if math.isnan(value) else f"{100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f})"
