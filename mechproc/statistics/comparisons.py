"""Families of comparisons, fixed before the run, and how they are judged."""

from __future__ import annotations

import dataclasses

import numpy as np

from mechproc.config import Config
from mechproc.errors import ConfigError, require
from mechproc.statistics.measures import measure
from mechproc.statistics.paired import Method, holm, interval, seeds_needed, sign_flip_test, smallest_p
from mechproc.statistics.scores import PairedScores, Scores
from mechproc.statistics.verdicts import Comparison, Levels, Verdict, Verdicts, level_notes

MIN_SEEDS = 8
"""With fewer seeds there is no verdict word: scores that come in stairs differ too much from seed to seed."""


@dataclasses.dataclass(frozen=True)
class Family(Config):
    """The comparisons that share one correction. Fixed before the run: a pair that is added after looking at the scores
    takes the false-positive rate with it.

    Errors: ``ConfigError`` when the comparisons are so many that ``n_seeds`` seeds could never give a verdict.
    """

    name: str
    """The task, as it stands in a sentence: ``"haystack"``."""
    pairs: tuple[tuple[str, str], ...]
    """(treatment, control) of each comparison, by the names of the arms."""
    alpha: float = 0.05
    """The chance, at most, of any false word in the whole family; 1 - alpha is the level of the intervals."""
    n_seeds: int = MIN_SEEDS
    """How many seeds are judged. With fewer there is no word yet; more are refused, because looking after each new seed
    until the word is right is another test."""
    measure: str = "accuracy"
    """What is compared, by its name in ``mechproc.statistics.measures``."""
    unit: str = ""
    """The unit of the scores, which follows from ``measure``. Differences of fractions are printed in points (0.01)."""
    higher_is_better: bool | None = None
    """False for losses and for steps to a threshold. It follows from ``measure``."""
    interval: Method = "sign_flip"
    """How intervals are made; a word needs the test and the interval to agree."""
    seed: int = 0
    """Of the random flips, which are drawn when there are more than 16 seeds."""
    descriptive: bool = False
    """Comparisons that are no primary ones: shown with intervals, without a correction and without a word."""
    smallest_effect: float | None = None
    """The smallest difference of interest, in the unit of the scores: how many seeds are needed is planned for it."""

    def __post_init__(self) -> None:
        for name, value in self.following().items():
            if getattr(self, name) in ("", None):
                object.__setattr__(self, name, value)
        require(self.name.strip() != "", "name", self.name, "a text that names what is scored")
        require(0 < self.alpha < 1, "alpha", self.alpha, "above 0, below 1")
        require(self.n_seeds >= MIN_SEEDS, "n_seeds", self.n_seeds, f"at least {MIN_SEEDS}")
        require(self.smallest_effect is None or self.smallest_effect > 0, "smallest_effect", self.smallest_effect,
                "above 0, or None")  # fmt: skip
        require(len(self.pairs) > 0, "pairs", self.pairs, "at least one (treatment, control)")
        for pair in self.pairs:
            require(pair[0] != pair[1], "pairs", pair, "two different arms")
        unordered = [frozenset(pair) for pair in self.pairs]
        twice = [p for p, u in zip(self.pairs, unordered, strict=True) if unordered.count(u) > 1]
        require(not twice, "pairs", twice, "comparisons that occur once, in one direction")
        if not self.descriptive and self.smallest_p(self.n_seeds) > self.alpha * (1 + 1e-9):
            p, fits = smallest_p(self.n_seeds), int(self.alpha / smallest_p(self.n_seeds) + 1e-9)
            needed = seeds_needed(self.alpha / len(self.pairs))
            ways = [f"at most {fits} comparisons"] * (fits > 0) + [f"at least {needed} seeds"] * (needed is not None)
            raise ConfigError(
                f"family {self.name!r} has {len(self.pairs)} comparisons: {self.n_seeds} seeds give p = {p:.2g} at "
                f"best, after Holm {self.smallest_p(self.n_seeds):.2g}, which never reaches alpha = {self.alpha:g}; "
                f"take {' or '.join(ways) or 'a larger alpha'}"
            )

    def following(self) -> dict[str, object]:
        """Unit and direction are those of the measure."""
        compared = measure(self.measure)
        return {"unit": compared.unit, "higher_is_better": compared.higher_is_better}

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are compared, each once."""
        return tuple(dict.fromkeys(arm for pair in self.pairs for arm in pair))

    def smallest_p(self, n_seeds: int) -> float:
        """The smallest p, after Holm, that a comparison of this family can reach with ``n_seeds`` seeds."""
        return min(1.0, len(self.pairs) * smallest_p(n_seeds))

    def judge(
        self,
        scores: Scores,
        *,
        levels: Levels | None = None,
        notes: dict[str, tuple[str, ...]] | None = None,
        allow_mixed_provenance: bool = False,
    ) -> Verdicts:
        """One verdict for each pair, in the order of ``pairs``.

        ``levels``: floor and ceiling of the task, where the scores are accuracies; arms that are not above the floor
        get no word. ``notes``: what must be known of an arm, such as how good its donors are; they stand before the
        verdicts that the arm is part of.

        Errors: those of ``PairedScores``, and ``ConfigError`` for more seeds than were planned. Where a mixed
        provenance is allowed, it stands in every verdict.
        """
        paired = PairedScores(scores, self.arms, self.unit, f"family {self.name!r}", allow_mixed_provenance)
        n = len(paired.seeds)
        allowed = f"at most the {self.n_seeds} that family {self.name!r} was fixed for"
        require(n <= self.n_seeds, "number of seeds", n, allowed)
        comparisons = [
            Comparison(one, other, paired.seeds, paired.contrast({one: 1.0, other: -1.0})) for one, other in self.pairs
        ]
        p_values = np.array([sign_flip_test(c.differences, self.seed) for c in comparisons])
        adjusted_p = p_values if self.descriptive else holm(p_values)
        verdicts = Verdicts()
        for comparison, p, adjusted in zip(comparisons, p_values.tolist(), adjusted_p, strict=True):
            pair = (comparison.treatment, comparison.control)
            of_arms = [note for arm in pair for note in (notes or {}).get(arm, ())]
            below, of_levels = level_notes({a: paired.values[a] for a in pair}, levels) if levels else (False, ())
            verdicts.append(
                Verdict(
                    family=self,
                    comparison=comparison,
                    interval=interval(comparison.differences, 1 - self.alpha, self.interval, self.seed),
                    p=p,
                    adjusted_p=float(adjusted),
                    mixed_provenance=paired.mixed_provenance,
                    below_baseline=below,
                    notes=tuple(dict.fromkeys([*of_levels, *of_arms])),
                )
            )
        return verdicts
