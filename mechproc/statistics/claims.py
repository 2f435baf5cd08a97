"""Claims: statements that were declared before their runs, and what the runs allow one to say of them.

A claim is one to three contrasts. A contrast is a sum of arms with weights that add up to zero, taken within each seed:
``{"attention": 1, "random": -1}`` is a comparison, and {"attention": 0.5, "permuted": -1, "random": 0.5} asks whether
permuting removes more than half of the gain. Words, at a level ``alpha`` for the whole claim:

- *effect*: ``refuted`` when the whole interval lies below the smallest effect that matters, be it above zero; else
  ``supported`` when p after Holm is at most alpha and the interval lies beyond zero on the declared side;
- *equivalence*: ``supported`` when the interval lies inside plus and minus the smallest effect that matters;
  ``refuted`` when it lies outside of it altogether;
- *best of all*: every contrast (the best arm minus each other arm) has to be beyond zero, each at alpha without a
  correction (the intersection-union test of Berger 1982 has the level alpha); such a claim has any number of contrasts.

``undecided`` is everything else. A claim of several contrasts is supported when all are, and refuted when one is.
Intervals that decide on refuted or equivalent are at the level 1 - alpha / m for m contrasts (Bonferroni), so that a
wrong word anywhere in the claim has a probability of at most alpha.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from mechproc.config import Config
from mechproc.errors import require
from mechproc.statistics.claim_verdicts import ClaimVerdict, ContrastVerdict, Word
from mechproc.statistics.measures import measure
from mechproc.statistics.paired import holm, interval, sign_flip_test, smallest_p
from mechproc.statistics.scores import PairedScores, Scores

Test = Literal["effect", "equivalence", "best of all"]
MOST_CONTRASTS = 3
"""Primary comparisons of a claim, but for best of all."""
CLAIM_SEEDS = 10


@dataclasses.dataclass(frozen=True)
class Contrast(Config):
    """A sum of arms, taken within each seed. Positive is the declared side."""

    name: str
    """Such as ``"attention against random"``."""
    weights: dict[str, float]
    """Arm -> weight; they add up to zero."""
    smallest_effect: float
    """The smallest value of the sum that matters, in the unit of the measure."""
    test: Test = "effect"

    def __post_init__(self) -> None:
        require(len(self.weights) > 1, "weights", self.weights, "at least two arms")
        require(0 not in self.weights.values(), "weights", self.weights, "no weight of 0")
        require(abs(sum(self.weights.values())) < 1e-9, "weights", self.weights, "numbers that add up to 0")
        require(self.smallest_effect > 0, "smallest_effect", self.smallest_effect, "above 0")


def against(treatment: str, control: str, smallest_effect: float, test: Test = "effect") -> Contrast:
    """Treatment minus control."""
    return Contrast(f"{treatment} against {control}", {treatment: 1.0, control: -1.0}, smallest_effect, test)


@dataclasses.dataclass(frozen=True)
class Claim(Config):
    """A statement, how it is tested, and the smallest effect that matters; declared before its runs."""

    name: str
    """A short name, such as ``"1 haystack"``."""
    statement: str
    """What is claimed, in one sentence."""
    contrasts: tuple[Contrast, ...]
    """Every one has to hold."""
    measure: str = "accuracy"
    """What is measured of each run; see ``mechproc.statistics.measures``. Where lower is better, the contrast is taken
    of the negative values, so that positive is better."""
    n_seeds: int = CLAIM_SEEDS
    """How many seeds are judged; with fewer there is no word, and more are refused."""
    alpha: float = 0.05
    """The chance, at most, of a wrong word."""

    def __post_init__(self) -> None:
        require(self.name.strip() != "", "name", self.name, "a short name")
        require(self.statement.strip() != "", "statement", self.statement, "a sentence")
        measure(self.measure)
        tests = sorted({contrast.test for contrast in self.contrasts})
        best = "best of all" in tests
        require(not best or len(tests) == 1, "contrasts", tests, "'best of all' for all of them, or none")
        most = None if best else MOST_CONTRASTS
        n = len(self.contrasts)
        require(n >= 1 and (most is None or n <= most), "contrasts", n, f"1 to {most}" if most else "at least 1")
        require(0 < self.alpha < 1, "alpha", self.alpha, "above 0, below 1")
        reachable = smallest_p(self.n_seeds) * (1 if best else n) if self.n_seeds >= 1 else 1.0
        require(reachable <= self.alpha, "n_seeds", self.n_seeds, f"enough to reach alpha = {self.alpha:g}")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that the claim is about, each once."""
        return tuple(dict.fromkeys(arm for contrast in self.contrasts for arm in contrast.weights))

    @property
    def is_best_of_all(self) -> bool:
        """Whether every contrast has to hold at alpha, without a correction."""
        return self.contrasts[0].test == "best of all"

    def judge(
        self,
        scores: Scores,
        *,
        notes: dict[str, tuple[str, ...]] | None = None,
        allow_mixed_provenance: bool = False,
    ) -> ClaimVerdict:
        """What the scores of the claim's arms allow one to say; no scores at all: nothing was run.

        ``notes``: what must be known of an arm, such as how good its donors are. Errors: those of ``PairedScores``,
        and ``ConfigError`` for more seeds than were declared.
        """
        if isinstance(scores, dict) and not scores:
            return ClaimVerdict(self, (), 0)
        what = measure(self.measure)
        paired = PairedScores(scores, self.arms, what.unit, f"claim {self.name!r}", allow_mixed_provenance)
        n = len(paired.seeds)
        require(n <= self.n_seeds, "number of seeds", n, f"at most the {self.n_seeds} that the claim was declared for")
        sign = 1.0 if what.higher_is_better else -1.0
        values = [sign * paired.contrast(contrast.weights) for contrast in self.contrasts]
        return ClaimVerdict(
            claim=self,
            contrasts=tuple(self._judged(values)) if n >= 2 else (),
            n_seeds=n,
            notes=tuple(dict.fromkeys(note for arm in self.arms for note in (notes or {}).get(arm, ()))),
            mixed_provenance=paired.mixed_provenance,
        )

    def _judged(self, values: list[np.ndarray]) -> list[ContrastVerdict]:
        m, enough = len(values), len(values[0]) >= self.n_seeds
        p = np.array([sign_flip_test(v) for v in values])
        adjusted = p if self.is_best_of_all else holm(p)
        verdicts = []
        for contrast, value, raw, corrected in zip(self.contrasts, values, p, adjusted, strict=True):
            alone, joint = interval(value, 1 - self.alpha), interval(value, 1 - self.alpha / m)
            word: Word = "undecided"
            if enough and contrast.test == "equivalence":
                if -contrast.smallest_effect < joint.low and joint.high < contrast.smallest_effect:
                    word = "supported"
                elif joint.low > contrast.smallest_effect or joint.high < -contrast.smallest_effect:
                    word = "refuted"
            elif enough:
                if joint.high < contrast.smallest_effect:
                    word = "refuted"
                elif corrected <= self.alpha and alone.low > 0:
                    word = "supported"
            verdicts.append(ContrastVerdict(contrast, value, alone, joint, float(raw), float(corrected), word))
        return verdicts
