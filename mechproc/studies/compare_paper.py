"""Ours beside the paper's: every reported accuracy, our seeds and interval, and one word.

    reproduced       the means differ by at most 10 points, and half of our interval is at most 15
    compatible       our interval contains theirs, but is wider
    direction only   neither, but our difference from a random start lies beyond zero on the side of theirs
    contradicted     none of these
    not run          fewer than 8 seeds are complete, of a best of several starts those of one of them

Of a task whose sizes the paper does not give, the direction alone is compared: ``direction only`` and ``contradicted``
say that our interval lies on the side of theirs or on the other, ``undecided`` that it includes zero, and a random
start whose size was chosen to match is ``fitted``. Where theirs differs from their random start by less than 5 points
it has no direction. Intervals are the 95 % intervals of ``mechproc.statistics.paired``, over seeds; the difference from
a random start is taken within each seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.statistics.comparisons import MIN_SEEDS
from mechproc.statistics.paired import Interval, interval
from mechproc.studies.paper_table import CELLS, DIRECTION_ONLY, RANDOM, Cell
from mechproc.studies.registry import load
from mechproc.studies.study import Study

Word = Literal["reproduced", "compatible", "direction only", "contradicted", "undecided", "fitted", "not run"]
CLOSE = 0.10
"""Largest difference of the means of what is reproduced."""
NARROW = 0.15
"""Largest half-width of our interval of what is reproduced."""
HAS_DIRECTION = 0.05
"""Smallest reported difference from a random start that has a direction."""


@dataclasses.dataclass(frozen=True)
class Compared:
    """One reported accuracy beside ours."""

    cell: Cell
    arm: str
    """Which of the cell's arms is compared."""
    seeds: tuple[int, ...]
    """The seeds that are complete."""
    accuracies: tuple[float, ...]
    """Fractions, in the order of ``seeds``."""
    gains: tuple[float, ...]
    """Accuracy minus that of the random start of the seed, where both are complete."""
    best_is_known: bool = True
    """Whether every arm of a cell that takes the best of several has enough seeds."""

    @property
    def mean(self) -> float | None:
        """Our mean; None before a seed is complete."""
        return float(np.mean(self.accuracies)) if self.accuracies else None

    @property
    def interval(self) -> Interval | None:
        """Of our mean, over seeds; None before two are complete."""
        return interval(np.array(self.accuracies)) if len(self.accuracies) > 1 else None

    @property
    def gain(self) -> Interval | None:
        """Of our difference from a random start; None before two seeds are complete in both."""
        return interval(np.array(self.gains)) if len(self.gains) > 1 else None

    @property
    def word(self) -> Word:
        """One of the words above."""
        ours, mean = self.interval, self.mean
        if not self.best_is_known or len(self.seeds) < MIN_SEEDS or ours is None or mean is None:
            return "not run"
        if self.cell.task in DIRECTION_ONLY:
            if self.cell.initialisation == RANDOM:
                return "fitted"
            return {1: "direction only", -1: "contradicted", 0: "undecided"}[self._agreement()]  # type: ignore[return-value]
        theirs = self.cell.accuracy
        if abs(mean - theirs) <= CLOSE and (ours.high - ours.low) / 2 <= NARROW:
            return "reproduced"
        if ours.low <= theirs <= ours.high:
            return "compatible"
        return "direction only" if self._agreement() > 0 else "contradicted"

    def _agreement(self) -> int:
        """1 where our gain lies beyond zero on the side of theirs, -1 on the other, 0 where neither is said."""
        reported = self.cell.accuracy - _reported_random(self.cell.task)
        gain = self.gain
        if gain is None or abs(reported) < HAS_DIRECTION or not gain.excludes_zero:
            return 0
        return 1 if (gain.low > 0) == (reported > 0) else -1


def compare(store: Store, cells: Sequence[Cell] = CELLS, studies: Mapping[str, Study] | None = None) -> list[Compared]:
    """Every cell with what ``store`` has of it; ``studies`` by name, by default those of the paper's scale."""
    names = dict.fromkeys(cell.study for cell in cells)
    studies = {name: load(name, "paper") for name in names} if studies is None else studies
    return [_compared(cell, studies[cell.study], store) for cell in cells]


def _compared(cell: Cell, study: Study, store: Store) -> Compared:
    random = _scores(study.by_arm[f"{cell.task}: {RANDOM}"], store)
    found = {arm: _scores(study.by_arm[f"{cell.task}: {arm}"], store) for arm in cell.arms}
    # the arms with most seeds first: a best of all is chosen among arms that are as complete as any
    most = max(map(len, found.values()))
    arm = max((a for a in found if len(found[a]) == most), key=lambda a: np.mean([*found[a].values()] or [0.0]))
    ours = found[arm]
    gains = tuple(ours[seed] - random[seed] for seed in ours if seed in random)
    best_is_known = min(map(len, found.values())) >= MIN_SEEDS
    return Compared(cell, arm, tuple(ours), tuple(ours.values()), gains, best_is_known)


def _scores(runs: Mapping[int, RunConfig], store: Store) -> dict[int, float]:
    """Test accuracy by seed, of the runs that are complete."""
    return {seed: store.test(run)["accuracy"] for seed, run in sorted(runs.items()) if store.has_scores(run)}


def _reported_random(task: str) -> float:
    return next(cell.accuracy for cell in CELLS if cell.task == task and cell.initialisation == RANDOM)
