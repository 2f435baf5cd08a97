"""Does a number known of each unit predict an outcome in a group that it was not fitted on?

A unit, such as one donor's training, may be seen several times, as its checkpoints are; each unit counts once. Groups
are left out one after the other, such as the rules that donors were pretrained on: a straight line is fitted to the
units of all other groups, and scored on the units of the group that was left out,

    skill = 1 - sum of squared errors of the line / the same of the mean of the other groups,

both sums over all groups that were left out. 1 is perfect; 0 or below is no better than not knowing the number. The
null is that the number belongs to no unit in particular: the series of whole units change places within their group,
and p is the share of such arrangements, the observed one counted, whose skill is at least the observed one.
Where a group is small there are few arrangements: with fewer than 20 there is no p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mechproc.errors import require
from mechproc.result import Label

MIN_GROUPS = 3
"""Groups that it takes to fit a line without one of them and to say something of the others."""
N_ARRANGEMENTS = 999
MIN_ARRANGEMENTS = 20
"""Different arrangements that it takes for a p of 0.05."""


class Prediction(NamedTuple):
    """How well a number predicts an outcome in groups that it was not fitted on."""

    skill: float
    by_group: dict[Label, float]
    """The skill on each group alone, when it is left out; NaN where the mean of the others makes no error."""
    slopes: dict[Label, float]
    """The slope of the line that was fitted without the group: outcome for each unit of the number."""
    p: float | None
    """None where too few arrangements differ."""
    n_units: int


def leave_one_group_out(
    x: np.ndarray, y: np.ndarray, groups: Sequence[Label], times: Sequence[Label] | None = None, seed: int = 0
) -> Prediction:
    """Skill of ``x`` for ``y``, both float [unit, time], NaN where a unit was not seen; ``groups``: one for each unit.

    ``times`` labels the columns, for messages. Errors: ``ConfigError`` for shapes that differ, fewer than
    ``MIN_GROUPS`` groups, or units that were never seen.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    labels = np.array([str(group) for group in groups])
    shape = (len(labels), len(times)) if times is not None else (len(labels), *y.shape[1:])
    require(x.shape == y.shape == shape and y.ndim == 2, "shape of x and y", (x.shape, y.shape), f"{shape}, twice")
    names = list(dict.fromkeys(groups))
    require(len(names) >= MIN_GROUPS, "number of groups", len(names), f"at least {MIN_GROUPS}")
    require(bool((np.isfinite(x) & np.isfinite(y)).any(axis=1).all()), "x and y", "a unit without values", "some")
    errors, slopes = _errors(x, y, labels)
    rng, n_better = np.random.default_rng(seed), 1
    n_different = math.prod(_arrangements(x[labels == str(name)]) for name in names)
    movable = n_different >= MIN_ARRANGEMENTS
    skill = _skill(errors.sum(axis=0))
    for _ in range(N_ARRANGEMENTS if movable else 0):
        moved = np.arange(len(labels))
        for name in names:
            here = np.flatnonzero(labels == str(name))
            moved[here] = rng.permutation(here)
        n_better += _skill(_errors(x[moved], y, labels)[0].sum(axis=0)) >= skill - 1e-12
    return Prediction(
        skill=skill,
        by_group={name: _skill(row) for name, row in zip(names, errors, strict=True)},
        slopes=dict(zip(names, slopes, strict=True)),
        p=n_better / (N_ARRANGEMENTS + 1) if movable else None,
        n_units=len(labels),
    )


def _arrangements(x: np.ndarray) -> int:
    """How many arrangements of the series of a group's units differ."""
    counts = np.unique(np.nan_to_num(x, nan=np.inf), axis=0, return_counts=True)[1]
    return math.factorial(len(x)) // math.prod(math.factorial(int(n)) for n in counts)


def _errors(x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Squared errors of the line and of the mean, [group, 2], and the slope without each group."""
    seen = np.isfinite(x) & np.isfinite(y)
    weights = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1)  # each unit counts once
    errors, slopes = [], []
    for name in dict.fromkeys(labels.tolist()):
        kept, out = seen & (labels != name)[:, None], seen & (labels == name)[:, None]
        mean = np.average(y[kept], weights=weights[kept])
        centre = np.average(x[kept], weights=weights[kept])
        spread = np.average((x[kept] - centre) ** 2, weights=weights[kept])
        shared = np.average((x[kept] - centre) * (y[kept] - mean), weights=weights[kept])
        slope = shared / spread if spread > 1e-12 * max(centre**2, 1e-12) else 0.0
        line = mean + slope * (x[out] - centre)
        errors.append([(weights[out] * (y[out] - guess) ** 2).sum() for guess in (line, mean)])
        slopes.append(float(slope))
    return np.array(errors), slopes


def _skill(errors: np.ndarray) -> float:
    line, mean = errors
    return float(1 - line / mean) if mean > 0 else float("nan")
