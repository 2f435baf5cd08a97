"""What a page knows of each part: its rows in all Results of the page, and what else was said of it."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

from analyses.figures import position_map
from analyses.figures.choose import heads_as_parts
from mechproc.result import Result, in_words

if TYPE_CHECKING:
    import pandas as pd

    from analyses.report.document import Report

AXES = ("part", "site", "sender", "receiver", "writer", "reader", "other", "arm")
"""Axes whose labels are what evidence is about."""
MAX_ROWS = 40
"""Rows of one Result in the evidence on one subject."""
READ = re.compile(r"\.[qkv]$")
"""How a receiver says what of a head is read: ``L1.H2.q``."""


class Evidence:
    """Subjects, in the order in which they came up, with the pages about them."""

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._pages: dict[str, Report] = {}

    def add(self, result: Result) -> None:
        """Take the rows of a Result, once."""
        result = heads_as_parts(result)
        if not any(result is known or result == known for known in self._results):
            self._results.append(result)

    def page(self, subject: str) -> Report:
        """What is said of a subject beside its rows."""
        from analyses.report.document import Report

        return self._pages.setdefault(subject, Report(subject))

    def subjects(self) -> list[str]:
        """Everything that there is evidence on."""
        named = [str(label) for result in self._results for axis in AXES if axis in result.axes
                 for label in result.coordinates[axis]]  # fmt: skip
        return list(dict.fromkeys([*(READ.sub("", name) for name in named), *self._pages]))

    def on(self, subject: str) -> Report:
        """All evidence on one subject, as a page of its own."""
        from analyses.report.document import Report

        page = Report(subject)
        for result in self._results:
            for axis in AXES:
                if axis in result.axes:
                    _rows(page, result, axis, subject)
        if subject in self._pages:
            page.blocks += self._pages[subject].blocks
        return page


def _rows(page: Report, result: Result, axis: str, subject: str) -> None:
    """A table of the rows of ``result`` that are about the subject, and its profile over positions."""
    labels = [label for label in result.coordinates[axis] if READ.sub("", str(label)) == subject]
    if not labels:
        return
    own = result.select(**{axis: labels})
    if not np.isfinite(own.values).any():
        return
    if "position" in own.axes and set(own.axes) <= {"part", "position", "seed", "quantity"} and axis == "part":
        for quantity in own.coordinates.get("quantity", [None]):
            one = own if quantity is None else own.select(quantity=quantity)
            page.figure(
                position_map(_by_seed(one)), "By position." if quantity is None else f"{quantity}, by position."
            )
        return
    table = _table(own, axis)
    notes = [f"The {MAX_ROWS} rows with the largest values of {len(table)}."] if len(table) > MAX_ROWS else []
    as_ = "" if axis in ("part", "arm") else f", as {axis}"
    what = f"{result.title[0].upper()}{result.title[1:]}"
    page.table(table.head(MAX_ROWS), f"{what}{as_} ({result.unit}; {result.direction}).", notes)


def _table(own: Result, axis: str) -> pd.DataFrame:
    """One row for each other label, without the subject's own name; the largest values first where there are many."""
    from analyses.report.tables import seed_table

    if "seed" in own.axes:
        table = seed_table(own)
        largest = np.nanmax(np.abs(np.moveaxis(own.values, tuple(own.axes).index("seed"), -1)), axis=-1, initial=0)
    else:
        table = own.table().drop(columns="note")
        largest = np.nan_to_num(np.abs(own.values))
    kept = np.flatnonzero(largest.ravel() > 0) if len(table) > MAX_ROWS else np.arange(len(table))
    if len(table) > MAX_ROWS:
        kept = kept[np.argsort(-largest.ravel()[kept], kind="stable")]
    table = table.iloc[kept]
    return table.drop(columns=axis) if len(own.coordinates[axis]) == 1 else table


def _by_seed(own: Result) -> Result:
    """The profile over positions with a row for each seed."""
    if "seed" not in own.axes:
        return own
    one = own.select(part=own.coordinates["part"][0])
    values = one.values if tuple(one.axes) == ("seed", "position") else one.values.T
    rows = [in_words({"seed": seed}) for seed in one.coordinates["seed"]]
    return dataclasses.replace(
        one, values=values, axes=("part", "position"), undefined=(), provenance=(),
        coordinates={"part": rows, "position": one.coordinates["position"]},
    )  # fmt: skip
