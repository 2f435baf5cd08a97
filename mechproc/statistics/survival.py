"""How long until a run crosses a threshold, when some runs never do.

Scores at a fixed budget come in stairs, so a mean over seeds is mostly the share of seeds that crossed a plateau in
time. The crossing step says more, but a run that stopped at its budget without crossing is *censored*: its step is
larger than the budget, and no more is known. Steps are optimiser steps; smaller is faster.

None of this is a verdict. The words come from ``Family`` (``higher_is_better=False``) on ``restricted_steps``, which
are paired by seed. The log-rank test is not paired, and its p is an approximation for many runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mechproc.errors import require


class Crossing(NamedTuple):
    """When a run crossed, or how long it was watched without crossing."""

    step: float
    """The first evaluated step at or above the threshold; the last evaluated step when there is none."""
    crossed: bool


def crossing_steps(steps: np.ndarray, accuracy: np.ndarray, threshold: float) -> Crossing:
    """The first of the evaluated ``steps`` [evaluation] whose ``accuracy`` [evaluation] is at least ``threshold``.

    The true crossing lies between that evaluation and the one before. A later fall below it is not looked at.
    Errors: ``ConfigError`` for steps that do not rise, accuracies that are not finite, or arrays that differ in length.
    """
    at, scores = np.asarray(steps, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    require(at.ndim == 1 and at.size > 0 and bool((np.diff(at) > 0).all()), "steps", steps, "a rising list, not empty")
    require(scores.shape == at.shape, "shape of accuracy", scores.shape, f"{at.shape}, one for each step")
    require(bool(np.isfinite(scores).all()), "accuracy", accuracy, "finite numbers")
    above = np.flatnonzero(scores >= threshold)
    return Crossing(float(at[above[0]]), True) if above.size else Crossing(float(at[-1]), False)


def kaplan_meier(crossings: Sequence[Crossing]) -> tuple[np.ndarray, np.ndarray]:
    """The share of runs that have not crossed after each observed step (Kaplan and Meier 1958).

    Returns (steps, share), float64 [k]: rising steps that start at 0 with share 1; the share holds from its step up to
    the next. The share stays at 1 when no run crossed.
    """
    curve = stats.ecdf(_censored(crossings)).sf
    return np.concatenate([[0.0], curve.quantiles]), np.concatenate([[1.0], curve.probabilities])


def restricted_mean(crossings: Sequence[Crossing], budget: float) -> float:
    """Mean steps to the crossing, counted up to ``budget`` at most: the area under Kaplan-Meier's S up to there.

    RMST = integral of S(t) dt = sum over the steps t_j < budget of S(t_j) (min(t_(j+1), budget) - t_j), with t_0 = 0
    (Irwin 1949; Royston and Parmar 2013). The budget itself when no run crossed. When no run was cut short before the
    budget it is the mean of ``restricted_steps``. Errors: ``ConfigError`` when S is not known up to ``budget`` because
    the run watched longest was cut short before it.
    """
    _checked_budget(budget)
    longest = max(crossings, key=lambda c: (c.step, not c.crossed), default=Crossing(0.0, False))
    require(
        longest.crossed or longest.step >= budget,
        "budget",
        budget,
        f"at most {longest.step:g}, where the last run stops",
    )
    steps, share = kaplan_meier(crossings)
    ends = np.minimum(np.append(steps[1:], budget), budget)
    return float((share * np.maximum(ends - steps, 0.0)).sum())


def restricted_steps(crossings: Sequence[Crossing], budget: float) -> np.ndarray:
    """min(crossing step, ``budget``) of each run, float64 [run]: numbers that can be paired by seed.

    Errors: ``ConfigError`` for a run that was cut short before ``budget`` without crossing.
    """
    _checked_budget(budget)
    for number, crossing in enumerate(crossings):
        known = crossing.crossed or crossing.step >= budget
        require(known, f"run {number}", crossing, f"a run that crosses or is watched up to the budget {budget:g}")
    return np.minimum([crossing.step for crossing in crossings], budget)


def logrank(first: Sequence[Crossing], second: Sequence[Crossing]) -> float:
    """Two-sided p of the log-rank test that two independent sets of runs cross equally fast (Mantel 1966).

    1 when the runs leave nothing to compare, as when no run crossed in either: the statistic has no variance then.
    """
    x, y = _censored(first), _censored(second)
    both = [*first, *second]
    last_in_both = min(max(c.step for c in arm) for arm in (first, second))
    compared = any(  # at some crossing both arms are still watched, and not everybody crosses
        c.crossed and c.step <= last_in_both and any((o.step, not o.crossed) > (c.step, False) for o in both)
        for c in both
    )
    return float(stats.logrank(x, y).pvalue) if compared else 1.0


def _censored(crossings: Sequence[Crossing]) -> stats.CensoredData:
    require(len(crossings) > 0, "crossings", list(crossings), "at least one run")
    for crossing in crossings:
        require(np.isfinite(crossing.step) and crossing.step >= 0, "step", crossing.step, "a finite step, 0 or more")
    return stats.CensoredData.right_censored([c.step for c in crossings], [not c.crossed for c in crossings])


def _checked_budget(budget: float) -> None:
    require(np.isfinite(budget) and budget > 0, "budget", budget, "a finite number of steps above 0")
