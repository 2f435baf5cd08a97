"""What a page knows of each part: its rows in all Results of the page, and what else was said of it."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

import numpy as np

from analyses.figures import position_map
from mechproc.result import Label, Result, in_words

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


def heads_as_parts(result: Result) -> Result:
    """A Result whose axes are ``layer`` and ``head`` with the axis ``part`` in their place; others stay as they are."""
    if not {"layer", "head"} <= set(result.axes) or {"query", "part"} & set(result.axes):
        return result
    others = [axis for axis in result.axes if axis not in ("layer", "head")]
    order = [tuple(result.axes).index(axis) for axis in (*others, "layer", "head")]
    layers, heads = result.coordinates["layer"], result.coordinates["head"]
    values = result.values.transpose(order).reshape(*(len(result.coordinates[a]) for a in others), -1)
    place = others.index("seed") if "seed" in others else len(others)
    axes = [*others[:place], "part", *others[place:]]
    coordinates: dict[str, list[Label]] = {axis: list(result.coordinates[axis]) for axis in others}
    coordinates["part"] = [f"L{layer}.H{head}" for layer in layers for head in heads]
    return dataclasses.replace(
        result, values=np.moveaxis(values, -1, place), axes=tuple(axes), coordinates=coordinates, undefined=(),
        provenance=(),
    )  # fmt: skip


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
