"""The table of a calibration as Markdown, and the page that holds it."""

from __future__ import annotations

import math
from pathlib import Path

from mechproc.pages import table, write_between
from mechproc.result import Result

NAME = "calibration"
"""Of the marks between which a page has the table."""


def markdown(result: Result) -> str:
    """One row for each cell: hits and false alarms of plantings and of parts in percent, with 95 % Wilson intervals."""
    heads = (
        "method",
        "family",
        "contrast",
        "found all",
        "any alarm",
        "parts found",
        "parts alarmed",
        "threshold, nats",
    )
    rows = []
    for label in result.coordinates["cell"]:
        cell = result.metadata["cells"][label]
        row = result.select(cell=label)
        rates = [_rate(row, rate) for rate in ("hit", "alarm", "part hit", "part alarm")]
        limit = f"{float(row.select(quantity='threshold').values):.3f}"
        rows.append([cell["method"], cell["family"], cell["contrast"], *rates, limit])
    rule, n = result.metadata["rule"], result.metadata["n_plantings"]
    settings = [f"{name} = {value}" for name, value in result.metadata["settings"].items()]
    below = (
        f"Settings of the families: {', '.join(settings) or 'at their defaults'}. Plantings in each cell: {n}, after "
        f"{rule['n_calibration']} others for the threshold, which is the larger of {rule['floor']} nats and the "
        f"{100 * rule['quantile']:g} % quantile of inert parts. Does not show: {result.what_it_does_not_show}."
    )
    return f"{table(heads, rows)}\n\n{below}"


def write(path: str | Path, result: Result) -> None:
    """Put the table between the marks of a page. Errors: ``StoreError`` for a page without marks."""
    write_between(path, NAME, markdown(result))


def _rate(row: Result, rate: str) -> str:
    value, low, high = (float(row.select(quantity=f"{rate}{end}").values) for end in ("", " low", " high"))
    return "–" if math.isnan(value) else f"{100 * value:.0f} ({100 * low:.0f} to {100 * high:.0f})"
