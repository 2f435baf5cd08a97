"""Claims: statements that were declared before their runs, and what the runs allow one to say of them.

A claim is one to three contrasts. A contrast is a sum of arms whose weights add up to zero, taken within each seed:
``{"attention": 1, "random": -1}`` is a comparison, and ``{"attention": 0.5, "permuted": -1, "random": 0.5}`` asks
whether permuting loses more than half of the gain. Each contrast is tested for one of:

- *effect*: ``refuted`` when the whole interval lies below the smallest effect that matters, be it above zero; else
  ``supported`` when p after Holm is at most alpha and the interval lies beyond zero on the declared side;
- *equivalence*: ``supported`` when the interval lies inside plus and minus the smallest effect that matters,
  ``refuted`` when it lies outside of it altogether;
- *best of all*: one arm minus each other arm, any number of them, each beyond zero at alpha without a correction; as
  all of them have to hold, the claim has the level alpha (the intersection-union test, Berger 1982).

Everything else is ``undecided``. A claim is supported when all of its contrasts are, and refuted when one of them is.

The probability of a wrong word anywhere in a claim is at most alpha. Intervals that decide on refuted and equivalent
are therefore at the level 1 - alpha / m for m contrasts, and wider by what the seeds may fail to show: where a share of
1 - (alpha / 2m)^(1/n) of all seeds crosses a plateau, n seeds show none of them with a probability of alpha / 2m
(Hanley and Lippman-Hand 1983; 31 % for ten seeds and one contrast), and each of them would add a ``stair``.
``mechproc.statistics.error_rates`` measures how often words are wrong.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from mechproc.config import Config
from mechproc.errors import require
from mechproc.statistics.claim_verdicts import ClaimVerdict, ContrastVerdict, Word
from mechproc.statistics.measures import measure
from mechproc.statistics.paired import Interval, holm, sign_flip_bounds, sign_flip_p, smallest_p, t_bounds
from mechproc.statistics.power import unseen_share
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
    stair: float = 0.0
    """Height of the highest stair of the scores, in the unit of the measure: what a seed gains when it crosses a
    plateau. 0 where scores do not come in stairs."""

    def __post_init__(self) -> None:
        require(len(self.weights) > 1, "weights", self.weights, "at least two arms")
        require(0 not in self.weights.values(), "weights", self.weights, "no weight of 0")
        require(abs(sum(self.weights.values())) < 1e-9, "weights", self.weights, "numbers that add up to 0")
        require(self.smallest_effect > 0, "smallest_effect", self.smallest_effect, "above 0")
        require(self.stair >= 0, "stair", self.stair, "0 or more")

    @property
    def height(self) -> float:
        """What the sum gains when one seed crosses one more plateau."""
        return self.stair * max(map(abs, self.weights.values()))

    @property
    def is_symmetric(self) -> bool:
        """Whether swapping arms can turn the sum into its negative, as in a difference or a difference of differences.

        The sign-flip test supposes it of arms that do not differ. For other sums Student's interval has to agree."""
        return sorted(self.weights.values()) == sorted(-weight for weight in self.weights.values())


def against(
    treatment: str, control: str, smallest_effect: float, test: Test = "effect", stair: float = 0.0
) -> Contrast:
    """Treatment minus control."""
    return Contrast(f"{treatment} against {control}", {treatment: 1.0, control: -1.0}, smallest_effect, test, stair)


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
    """How many seeds are judged, at least 10; with fewer there is no word, and more are refused."""
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
        require(self.n_seeds >= CLAIM_SEEDS, "n_seeds", self.n_seeds, f"at least {CLAIM_SEEDS}")
        reachable = smallest_p(self.n_seeds) * (1 if best else n)
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
        values = np.stack([sign * paired.contrast(contrast.weights) for contrast in self.contrasts])
        return ClaimVerdict(
            claim=self,
            contrasts=tuple(self._judged(values)) if n >= 2 else (),
            n_seeds=n,
            notes=tuple(dict.fromkeys(note for arm in self.arms for note in (notes or {}).get(arm, ()))),
            mixed_provenance=paired.mixed_provenance,
        )

    def decide(self, values: np.ndarray) -> Decisions:
        """The word of each contrast from its values, float64 [..., contrast, seed]; positive is the declared side."""
        m = values.shape[-2]
        p = sign_flip_p(values)
        adjusted = p if self.is_best_of_all else holm(p)
        low, high = sign_flip_bounds(values, 1 - self.alpha)
        joint_low, joint_high = sign_flip_bounds(values, 1 - self.alpha / m)
        heights = np.array([contrast.height for contrast in self.contrasts])
        margin = heights * unseen_share(values.shape[-1], self.alpha / (2 * m))
        joint_low, joint_high = joint_low - margin, joint_high + margin
        effect = np.array([contrast.smallest_effect for contrast in self.contrasts])
        equivalence = np.array([contrast.test == "equivalence" for contrast in self.contrasts])
        inside = (joint_low > -effect) & (joint_high < effect)
        outside = (joint_low > effect) | (joint_high < -effect)
        too_small = joint_high < effect
        beyond_zero = (adjusted <= self.alpha) & (low > 0)
        symmetric = np.array([contrast.is_symmetric for contrast in self.contrasts])
        beyond_zero &= symmetric | (t_bounds(values, 1 - self.alpha)[0] > 0)
        refuted = np.where(equivalence, outside, too_small)
        supported = np.where(equivalence, inside, beyond_zero) & ~refuted
        words = np.select([refuted, supported], ["refuted", "supported"], "undecided")
        return Decisions(p, adjusted, low, high, joint_low, joint_high, words)

    def _judged(self, values: np.ndarray) -> list[ContrastVerdict]:
        m, n = values.shape
        decided = self.decide(values)
        verdicts = []
        for i, contrast in enumerate(self.contrasts):
            alone = Interval(float(decided.low[i]), float(decided.high[i]), 1 - self.alpha, "sign_flip", n)
            joint = Interval(
                float(decided.joint_low[i]), float(decided.joint_high[i]), 1 - self.alpha / m, "sign_flip", n
            )
            word: Word = str(decided.words[i]) if n >= self.n_seeds else "undecided"  # type: ignore[assignment]
            p, adjusted = float(decided.p[i]), float(decided.adjusted_p[i])
            verdicts.append(ContrastVerdict(contrast, values[i], alone, joint, p, adjusted, word))
        return verdicts


class Decisions(NamedTuple):
    """Tests, intervals and words of the contrasts of a claim, each [..., contrast]."""

    p: np.ndarray
    adjusted_p: np.ndarray
    low: np.ndarray
    high: np.ndarray
    joint_low: np.ndarray
    joint_high: np.ndarray
    words: np.ndarray
