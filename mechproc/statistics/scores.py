"""Scores by arm and seed, as comparisons and claims read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.provenance import differences
from mechproc.result import Label, Result

Scores = Result | Mapping[str, Result | Mapping[Label, float]]
"""A Result with the axes ``arm`` and ``seed``, or one Result or ``{seed: score}`` for each arm. Where there is an
``item`` axis, it is averaged over within each seed. There must be no other axis: select first."""


class PairedScores:
    """The scores of some arms over the same seeds, with what their runs differ in within a seed.

    Errors: ``ConfigError`` for an arm that is missing, arms whose seeds or items differ, a score that is missing or
    undefined, and provenances that differ within a seed (or are known in part of the arms only) unless
    ``allow_mixed_provenance``. Seeds may differ in provenance: a difference is taken within a seed.
    """

    def __init__(
        self, scores: Scores, arms: Iterable[str], unit: str, whose: str, allow_mixed_provenance: bool = False
    ) -> None:
        by_arm = _by_arm(scores) if isinstance(scores, Result) else scores
        arms = list(dict.fromkeys(arms))
        for arm in arms:
            if arm not in by_arm:
                raise ConfigError(f"arm {arm!r} of {whose} has no scores{nearest(arm, by_arm)}")
        per_seed = {arm: _seed_scores(arm, by_arm[arm], unit) for arm in arms}
        _check_alike("seeds", {arm: tuple(values) for arm, values in per_seed.items()})
        _check_alike("items", {arm: _items(by_arm[arm]) for arm in arms})
        self.seeds = tuple(per_seed[arms[0]])
        self.values = {arm: np.array([values[seed] for seed in self.seeds]) for arm, values in per_seed.items()}
        """float64 [seed] by arm, in the order of ``seeds``."""
        self.mixed_provenance = _mixed_provenance({arm: by_arm[arm] for arm in arms}, self.seeds)
        """What the runs of one seed differ in: each field once, with two runs that show it."""
        if self.mixed_provenance and not allow_mixed_provenance:
            raise ConfigError(
                f"scores of {whose} have different provenances within a seed: {self.mixed_provenance[0]}; run the arms "
                "of a seed alike, or allow it (allow_mixed_provenance=True, --allow-mixed-provenance)"
            )

    def contrast(self, weights: Mapping[str, float]) -> np.ndarray:
        """The sum of weight times score over the arms, within each seed: float64 [seed], read-only."""
        total = np.sum([weight * self.values[arm] for arm, weight in weights.items()], axis=0)
        total.setflags(write=False)
        return total


def _by_arm(scores: Result) -> dict[str, Result]:
    if "arm" not in scores.axes:
        raise ConfigError(f"{scores.name!r} has no axis 'arm' (axes: {', '.join(scores.axes)})")
    return {str(arm): scores.select(arm=arm) for arm in scores.coordinates["arm"]}


def _seed_scores(arm: str, scores: Result | Mapping[Label, float], unit: str) -> dict[Label, float]:
    """The score of each seed, in ascending order of the labels where they have one."""
    if isinstance(scores, Result):
        where = f"scores of arm {arm!r}"
        require(scores.unit == unit, f"unit of the {where}", scores.unit, f"{unit!r}, as declared")
        require({*scores.axes} in ({"seed"}, {"seed", "item"}), f"axes of the {where}", tuple(scores.axes),
                "'seed' and perhaps 'item'; select or average the others first")  # fmt: skip
        means = scores.mean("item") if "item" in scores.axes else scores
        by_seed = dict(zip(means.coordinates["seed"], means.values.tolist(), strict=True))
    elif isinstance(scores, Mapping):
        by_seed = {seed: float(score) for seed, score in scores.items()}
    else:
        raise ConfigError(f"scores of arm {arm!r} need the label of each seed: a Result or a dict from seed to score")
    require(len(by_seed) > 0, f"scores of arm {arm!r}", by_seed, "at least one seed")
    for seed, score in by_seed.items():
        require(math.isfinite(score), f"score of arm {arm!r}, seed {seed}", score, "a finite number")
    return {seed: by_seed[seed] for seed in sorted(by_seed, key=lambda label: (str(type(label)), label))}


def _items(scores: Result | Mapping[Label, float]) -> tuple[Label, ...]:
    return tuple(scores.coordinates["item"]) if isinstance(scores, Result) and "item" in scores.axes else ()


def _check_alike(what: str, labels: dict[str, tuple[Label, ...]]) -> None:
    """Every arm has the same labels, whatever their order."""
    first_arm, first = next(iter(labels.items()))
    for arm, others in labels.items():
        apart = sorted(map(str, set(first) ^ set(others)))
        if apart:
            raise ConfigError(
                f"arms {first_arm!r} and {arm!r} have different {what}, not in both: {', '.join(apart[:5])}"
            )


def _mixed_provenance(scores: dict[str, Result | Mapping[Label, float]], seeds: tuple[Label, ...]) -> tuple[str, ...]:
    known = {arm: s.provenance if isinstance(s, Result) else () for arm, s in scores.items()}
    without = [arm for arm, entries in known.items() if not entries]
    if len(without) == len(known):
        return ()
    if without:
        first = next(arm for arm in known if arm not in without)
        return (f"that of {without[0]} is not known, that of {first} is",)
    fields: dict[str, str] = {}
    for seed in seeds:
        runs = [
            (" ".join([arm, *(f"{axis} {label}" for axis, label in where.items())]), dict(environment))
            for arm, entries in known.items()
            for where, environment in entries
            if where.get("seed", seed) == seed
        ]
        for name, environment in runs[1:]:
            for difference in differences(runs[0][1], environment):
                fields.setdefault(difference.split(":")[0], f"{difference} ({runs[0][0]} / {name})")
    return tuple(fields.values())
