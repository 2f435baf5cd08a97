"""Means over seeds with their intervals, from a Result to a Result."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from mechproc.errors import require
from mechproc.result import Label, Result, Where
from mechproc.statistics.paired import Method, interval

ESTIMATES = ("mean", "low", "high")
"""The labels of the axis ``estimate``."""
INDEXED_PART = re.compile(r"\b[HN]\d+\b")
"""A head or a neuron by its index, in a part expression such as ``"L0.H2.QK"`` or ``"L1.mlp.N17"``."""
INDEXED_AXES = ("head", "neuron")
NOT_COMPARABLE = (
    "a head or a neuron of one index is a different part in each seed: match them by function before averaging"
)


def same_in_every_seed(label: Label) -> bool:
    """Whether a label names the same part in every seed: false for a head or a neuron that is named by its index."""
    return not (isinstance(label, str) and INDEXED_PART.search(label))


def over_seeds(
    result: Result, axis: str = "seed", level: float = 0.95, method: Method = "sign_flip", *, matched: bool = False
) -> Result:
    """The mean over ``axis`` and the interval of the mean: the axis becomes ``estimate``, with mean, low and high.

    ``over_seeds(lost).select(part="L0.mlp", estimate="low")`` is the lower end of the interval for one part. The
    interval is that of ``mechproc.statistics.paired.interval``; for scores that are differences between two arms, or
    between the intact and the ablated model, it is an interval for the effect.

    Cells of heads and neurons that are named by their index are undefined, because an index means nothing across
    seeds; ``matched=True`` takes them all the same, for models whose indices do agree (runs that share one start).
    Low and high are undefined where there are too few seeds for an interval of this level. All three are missing where
    a seed is missing. Errors: ``ConfigError`` for an axis that is not there.
    """
    require(axis in result.axes, "axis", axis, f"one of {', '.join(result.axes)}")
    others = [a for a in result.axes if a != axis]
    values = np.moveaxis(result.values, tuple(result.axes).index(axis), -1)
    estimates = np.full((*values.shape[:-1], 3), np.nan)
    undefined: list[tuple[Where, str]] = []
    for index in np.ndindex(values.shape[:-1]):
        where = {a: result.coordinates[a][i] for a, i in zip(others, index, strict=True)}
        comparable = matched or (
            all(map(same_in_every_seed, where.values())) and not any(a in INDEXED_AXES for a in others)
        )
        if not comparable:
            undefined.append((where, NOT_COMPARABLE))
        elif reason := _undefined(result, where):
            undefined.append((where, reason))
        elif np.isfinite(values[index]).all():
            estimates[index][0] = values[index].mean()
            if method == "t" and values.shape[-1] < 2:
                undefined += [({**where, "estimate": end}, "one seed gives no t interval") for end in ESTIMATES[1:]]
                continue
            limits = interval(values[index], level, method)
            if limits.bounded:
                estimates[index][1:] = limits.low, limits.high
            else:
                undefined += [({**where, "estimate": end}, str(limits)) for end in ESTIMATES[1:]]
    settings = {"level": level, "method": method, "n_seeds": len(result.coordinates[axis])}
    return dataclasses.replace(
        result,
        values=estimates,
        axes=(*others, "estimate"),
        coordinates={**{a: result.coordinates[a] for a in others}, "estimate": ESTIMATES},
        undefined=undefined,
        metadata={**result.metadata, "interval": settings},
        provenance=result.mean(axis).provenance,
    )


def _undefined(result: Result, where: Where) -> str | None:
    """Why a cell under ``where`` means nothing, if one does."""
    for cells, reason in result.undefined:
        if all(cells.get(axis, label) == label for axis, label in where.items()):
            return reason
    return None
