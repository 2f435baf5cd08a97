"""Families of comparisons, fixed before the run, and the verdicts that may be drawn from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mechproc.config import Config, nearest
from mechproc.errors import ConfigError, require
from mechproc.provenance import differences as differing_fields
from mechproc.result import Label, Result
from mechproc.statistics.paired import (
    EXACT_SEEDS,
    Interval,
    Method,
    holm,
    interval,
    seeds_needed,
    sign_flip_test,
    smallest_p,
)

MIN_SEEDS = 8
"""With fewer seeds there is no verdict word: scores that come in stairs differ too much from seed to seed."""

Scores = Result | Mapping[str, Result | Mapping[Label, float]]
"""A Result with the axes ``arm`` and ``seed``, or one Result or ``{seed: score}`` for each arm. Where there is an
``item`` axis, it is averaged over within each seed. There must be no other axis: select first."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Treatment against control, paired by the seed's label."""

    treatment: str
    control: str
    seeds: tuple[Label, ...]
    differences: np.ndarray
    """float64 [seed]: treatment minus control."""

    @property
    def mean(self) -> float:
        """The mean difference."""
        return float(self.differences.mean())


@dataclasses.dataclass(frozen=True)
class Family(Config):
    """The comparisons that share one correction. Fixed before the run: a pair that is added after looking at the scores
    takes the false-positive rate with it.

    Errors: ``ConfigError`` when the comparisons are so many that ``n_seeds`` seeds could never give a verdict.
    """

    name: str
    """What is scored, as it stands in a sentence: ``"haystack"``."""
    pairs: tuple[tuple[str, str], ...]
    """(treatment, control) of each comparison, by the names of the arms."""
    alpha: float = 0.05
    """The chance, at most, of any false word in the whole family; 1 - alpha is the level of the intervals."""
    n_seeds: int = MIN_SEEDS
    """How many seeds are judged. With fewer there is no word yet; more are refused, because looking after each new seed
    until the word is right is another test."""
    unit: str = "fraction"
    """The unit of the scores; differences of fractions are said in points (hundredths)."""
    higher_is_better: bool = True
    """False for losses and for steps to a threshold."""
    interval: Method = "sign_flip"
    """How intervals are made; a word needs the test and the interval to agree."""
    seed: int = 0
    """Of the random flips, which are drawn when there are more than 16 seeds."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(tuple(pair) for pair in self.pairs))
        require(self.name.strip() != "", "name", self.name, "a text that says what is scored")
        require(0 < self.alpha < 1, "alpha", self.alpha, "above 0, below 1")
        require(self.n_seeds >= MIN_SEEDS, "n_seeds", self.n_seeds, f"at least {MIN_SEEDS}")
        require(len(self.pairs) > 0, "pairs", self.pairs, "at least one (treatment, control)")
        for pair in self.pairs:
            require(len(pair) == 2 and pair[0] != pair[1], "pairs", pair, "two different arms")
        unordered = [frozenset(pair) for pair in self.pairs]
        twice = [p for p, u in zip(self.pairs, unordered, strict=True) if unordered.count(u) > 1]
        require(not twice, "pairs", twice, "comparisons that occur once, in one direction")
        if self.smallest_p(self.n_seeds) > self.alpha * (1 + 1e-9):
            p, fits = smallest_p(self.n_seeds), int(self.alpha / smallest_p(self.n_seeds) + 1e-9)
            needed = seeds_needed(self.alpha / len(self.pairs))
            ways = [f"at most {fits} comparisons"] * (fits > 0) + [f"at least {needed} seeds"] * (needed is not None)
            raise ConfigError(
                f"family {self.name!r} has {len(self.pairs)} comparisons: {self.n_seeds} seeds give p = {p:.2g} at "
                f"best, after Holm {self.smallest_p(self.n_seeds):.2g}, which never reaches alpha = {self.alpha:g}; "
                f"take {' or '.join(ways) or 'a larger alpha'}"
            )

    def smallest_p(self, n_seeds: int) -> float:
        """The smallest p, after Holm, that a comparison of this family can reach with ``n_seeds`` seeds."""
        return min(1.0, len(self.pairs) * smallest_p(n_seeds))

    def judge(self, scores: Scores, *, allow_mixed_provenance: bool = False) -> list[Verdict]:
        """One verdict for each pair, in the order of ``pairs``.

        Errors: ``ConfigError`` for an arm that is missing, arms whose seeds or items differ, a score that is missing or
        undefined, more seeds than were planned, and provenances that differ (or are known in part of the arms only)
        unless ``allow_mixed_provenance``; what they differ in then stands in every verdict.
        """
        if isinstance(scores, Result):
            scores = _by_arm(scores)
        used = list(dict.fromkeys(arm for pair in self.pairs for arm in pair))
        for arm in used:
            if arm not in scores:
                raise ConfigError(f"arm {arm!r} of family {self.name!r} has no scores{nearest(arm, scores)}")
        per_seed = {arm: self._seed_scores(arm, scores[arm]) for arm in used}
        _check_alike("seeds", {arm: tuple(values) for arm, values in per_seed.items()})
        _check_alike("items", {arm: _items(scores[arm]) for arm in used})
        n = len(per_seed[used[0]])
        require(
            n <= self.n_seeds,
            "number of seeds",
            n,
            f"at most the {self.n_seeds} that family {self.name!r} was fixed for",
        )
        mixed = tuple(_mixed_provenance({arm: scores[arm] for arm in used}))
        if mixed and not allow_mixed_provenance:
            raise ConfigError(
                f"scores of family {self.name!r} have different provenances: {mixed[0]}; run them alike, or "
                "allow it with allow_mixed_provenance=True"
            )
        comparisons = [_paired(treatment, control, per_seed) for treatment, control in self.pairs]
        p_values = [sign_flip_test(c.differences, self.seed) for c in comparisons]
        return [
            Verdict(
                family=self,
                comparison=comparison,
                interval=interval(comparison.differences, 1 - self.alpha, self.interval, self.seed),
                p=p,
                adjusted_p=float(adjusted),
                mixed_provenance=mixed,
            )
            for comparison, p, adjusted in zip(comparisons, p_values, holm(np.array(p_values)), strict=True)
        ]

    def _seed_scores(self, arm: str, scores: Result | Mapping[Label, float]) -> dict[Label, float]:
        """The score of each seed, in ascending order of the labels where they have one."""
        if isinstance(scores, Result):
            where = f"scores of arm {arm!r}"
            require(scores.unit == self.unit, f"unit of the {where}", scores.unit, f"{self.unit!r}, the family's")
            require({*scores.axes} in ({"seed"}, {"seed", "item"}), f"axes of the {where}", tuple(scores.axes),
                    "'seed' and perhaps 'item'; select or average the others first")  # fmt: skip
            means = scores.mean("item") if "item" in scores.axes else scores
            found = dict(zip(means.coordinates["seed"], means.values.tolist(), strict=True))
        elif isinstance(scores, Mapping):
            found = {seed: float(score) for seed, score in scores.items()}
        else:
            raise ConfigError(
                f"scores of arm {arm!r} need the label of each seed: a Result or a dict from seed to score"
            )
        require(len(found) > 0, f"scores of arm {arm!r}", found, "at least one seed")
        for seed, score in found.items():
            require(math.isfinite(score), f"score of arm {arm!r}, seed {seed}", score, "a finite number")
        return {seed: found[seed] for seed in sorted(found, key=lambda label: (str(type(label)), label))}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What may be said of one comparison."""

    family: Family
    comparison: Comparison
    interval: Interval
    """Of this comparison alone, not widened for the family."""
    p: float
    """Of the sign-flip test, two-sided, before the correction."""
    adjusted_p: float
    """After Holm over the family."""
    mixed_provenance: tuple[str, ...] = ()
    """What the runs behind it differ in; empty for the comparisons that need no excuse."""

    @property
    def n_seeds(self) -> int:
        """Paired seeds."""
        return len(self.comparison.seeds)

    @property
    def word(self) -> str:
        """``"helps"`` or ``"hurts"`` when the adjusted p is at most alpha *and* the interval excludes zero, else
        ``"undecided"``; ``"too few seeds (5 of 8)"`` before all planned seeds are there."""
        if self.n_seeds < self.family.n_seeds:
            return f"too few seeds ({self.n_seeds} of {self.family.n_seeds})"
        if self.adjusted_p > self.family.alpha or not self.interval.excludes_zero:
            return "undecided"
        better = (self.comparison.mean > 0) == self.family.higher_is_better
        return "helps" if better else "hurts"

    def sentence(self) -> str:
        """The verdict in words, no stronger than the interval."""
        treatment, control, name = self.comparison.treatment, self.comparison.control, self.family.name
        if self.word in ("helps", "hurts"):
            head = f"{treatment} {self.word} {name}"
        elif self.word == "undecided":
            head = f"undecided whether {treatment} helps or hurts {name}"
        else:
            head = f"{treatment} on {name}: {self.word} for a verdict"
        unit = "points" if self.family.unit == "fraction" else self.family.unit
        low, high = self._spoken(self.interval.low), self._spoken(self.interval.high)
        spoken = f"interval {low} to {high}" if self.interval.bounded else "interval unbounded"
        exact = "exact " if self.n_seeds <= EXACT_SEEDS else ""
        m = len(self.family.pairs)
        test = (
            f"{exact}sign-flip p = {self.adjusted_p:.2g} after Holm over {m}"
            if m > 1
            else f"{exact}sign-flip p = {self.p:.2g}"
        )
        end = f"; mixed provenance, {self.mixed_provenance[0]}" if self.mixed_provenance else ""
        return (
            f"{head}: {self._spoken(self.comparison.mean)} {unit} against {control} "
            f"({100 * self.interval.level:.3g} % {spoken}, {self.n_seeds} paired seeds, {test}{end})"
        )

    def row(self) -> dict[str, Any]:
        """The verdict as one row of a table or one JSON object; an end of an unbounded interval is None."""
        low, high = (x if math.isfinite(x) else None for x in (self.interval.low, self.interval.high))
        return {
            "family": self.family.name,
            "treatment": self.comparison.treatment,
            "control": self.comparison.control,
            "mean_difference": self.comparison.mean,
            "low": low,
            "high": high,
            "level": self.interval.level,
            "unit": self.family.unit,
            "p": self.p,
            "adjusted_p": self.adjusted_p,
            "n_seeds": self.n_seeds,
            "word": self.word,
            "mixed_provenance": list(self.mixed_provenance),
        }

    def _spoken(self, difference: float) -> str:
        if self.family.unit == "fraction":
            return f"{100 * difference:+.1f}"
        return f"{difference:+,.0f}" if abs(difference) >= 100 else f"{difference:+.3g}"


def _by_arm(scores: Result) -> dict[str, Result]:
    if "arm" not in scores.axes:
        raise ConfigError(f"{scores.name!r} has no axis 'arm' (axes: {', '.join(scores.axes)})")
    return {str(arm): scores.select(arm=arm) for arm in scores.coordinates["arm"]}


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


def _paired(treatment: str, control: str, per_seed: dict[str, dict[Label, float]]) -> Comparison:
    seeds = tuple(per_seed[treatment])
    differences = np.array([per_seed[treatment][seed] - per_seed[control][seed] for seed in seeds])
    differences.setflags(write=False)
    return Comparison(treatment, control, seeds, differences)


def _mixed_provenance(scores: dict[str, Result | Mapping[Label, float]]) -> list[str]:
    """In what the environments behind the scores differ: each field once, with two runs that show it."""
    known: list[tuple[str, dict[str, str]]] = []
    unknown: list[str] = []
    for arm, arm_scores in scores.items():
        entries = arm_scores.provenance if isinstance(arm_scores, Result) else ()
        known += [(" ".join([arm, *(f"{a} {label}" for a, label in where.items())]), dict(e)) for where, e in entries]
        unknown += [] if entries else [arm]
    if not known:
        return []
    if unknown:
        return [f"that of {unknown[0]} is not known, that of {known[0][0]} is"]
    (first, environment), *others = known
    found: dict[str, str] = {}
    for who, other in others:
        for difference in differing_fields(environment, other):
            found.setdefault(difference.split(":")[0], f"{difference} ({first} / {who})")
    return list(found.values())
