"""Means over seeds with their intervals, as figures draw them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analyses.figures.style import escaped
from mechproc.errors import require
from mechproc.result import Result
from mechproc.statistics.paired import Interval, Method, interval

LEVEL = 0.95
"""The level of the intervals unless another one is asked for."""


def with_axes(result: Result, *axes: str) -> Result:
    """``result`` with its axes in this order. Errors: ``ConfigError`` when it has others."""
    require(
        set(result.axes) == set(axes),
        f"axes of {result.name!r}",
        tuple(result.axes),
        f"{axes}; select or average first",
    )
    values = result.values.transpose([tuple(result.axes).index(a) for a in axes])
    coordinates = {a: result.coordinates[a] for a in axes}
    return dataclasses.replace(result, values=values, axes=axes, coordinates=coordinates)


def interval_of(values: np.ndarray, level: float, method: Method) -> Interval | None:
    """The interval of one row of seeds; ``None`` when one of them is missing, or they are too few for t."""
    if not np.isfinite(values).all() or (method == "t" and len(values) < 2):
        return None
    return interval(values, level, method)


def draw_mean(
    figure: go.Figure,
    values: np.ndarray,
    over_seeds: Interval | None,
    colour: str,
    at: float,
    name: str,
    *,
    horizontal: bool,
    column: int | None = None,
) -> None:
    """A diamond at the mean and a bar over the interval; nothing where a seed is missing, or where there is but one."""
    if over_seeds is None or len(values) < 2:
        return
    mean = float(values.mean())
    along, across = ("x", "y") if horizontal else ("y", "x")
    bar: dict[str, Any] = {}
    if over_seeds.bounded:
        ends = {"array": [over_seeds.high - mean], "arrayminus": [mean - over_seeds.low]}
        bar = {
            f"error_{along}": {"type": "data", "symmetric": False, "thickness": 2, "width": 4, "color": colour, **ends}
        }
    where = {} if column is None else {"row": 1, "col": column}
    figure.add_scatter(
        **{along: [mean], across: [at]}, **bar, mode="markers", showlegend=False,
        marker={"symbol": "diamond", "size": 10, "color": colour, "line": {"color": "white", "width": 1}},
        text=[escaped(f"{name}, mean of {len(values)}: {mean:.4f} ({over_seeds})")],
        hovertemplate="%{text}<extra></extra>", **where,
    )  # fmt: skip


def most_seeds(rows: np.ndarray) -> int:
    """How many seeds, along the last axis, the row has that has most of them."""
    return int(np.isfinite(rows).sum(axis=-1).max(initial=0))


def interval_sentence(marks: str, n_seeds: int, intervals: Sequence[Interval | None], n_known: int) -> str:
    """``marks`` says what the dots and the mean are and ends with the mark of the interval: ``"..., the bar"``.

    ``n_known``: the seeds that are there where there are most, as ``most_seeds`` counts them.
    """
    made = [i for i in intervals if i is not None and i.bounded]
    if not made and n_known < n_seeds:
        return f"{marks.rpartition(',')[0]}; there is no interval, at most {n_known} of the {n_seeds} seeds are there."
    if not made:
        return f"{marks.rpartition(',')[0]}; there is no interval, {n_seeds} seeds are too few for one."
    kind = "inverted sign-flip test" if made[0].method == "sign_flip" else "t"
    return f"{marks} its {100 * made[0].level:.3g} % interval ({kind})."
