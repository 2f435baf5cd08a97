"""What a handful of paired seeds allows one to say: the sign-flip test, its inversion, the t interval, Holm.

The seed is the unit. Test items are crossed with seeds (every seed is scored on the same items), so thousands of items
make one number for each seed: average over items first, then compare seeds. Every function takes *differences*, one for
each seed: treatment minus control, the same data order, fresh weights and test items in both.

The sign-flip test (Fisher 1935) asks: if the treatment made no difference to what a seed's two scores may be, they
could have come the other way round, and the sign of each difference is a coin. Its null is this symmetry, not equal
means: an arm that wins little in most seeds and loses much in a few can be called different at equal means.

**Test and interval are one computation.** To test an effect t, take the sum D = sum (d_i - t) over the seeds. Flipping
the signs of a subset A of them makes it D - 2 sum_A (d_i - t). Where D > 0 this is at least D exactly when
sum_A (d_i - t) <= 0: when A is empty, or the mean of d over A is at most t. So with B subsets (all 2^n - 1 that are not
empty), m of them with a mean of at most t, the two-sided p is 2 (1 + m) / (B + 1), at most 1; where D < 0, m counts the
means of at least t. The effects that are not rejected, p > alpha, therefore reach from the k-th smallest to the k-th
largest subset mean, k = floor(alpha (B + 1) / 2) (Hartigan 1969), and have no bound when k = 0.

With more than ``EXACT_SEEDS`` seeds, ``N_RANDOM`` subsets drawn at random stand for all of them. The formulas stay,
and the test stays valid because what was seen (the empty subset) is counted too (Phipson and Smyth 2010).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

import numpy as np
from scipy import stats

from mechproc.errors import require

EXACT_SEEDS = 16
"""Up to this many seeds every sign pattern is counted."""
N_RANDOM = 99_999
"""Subsets drawn when there are more seeds; a p of 0.05 then has a standard error of 0.001."""
TIE = 1e-9
"""Sums smaller than this share of the sum of absolute differences are zero: rounding must not break ties between
patterns of signs."""

Method = Literal["sign_flip", "t"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A confidence interval for the effect, ends included, in the unit of the differences."""

    low: float
    high: float
    level: float
    method: Method
    n_seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Zero lies outside."""
        return self.low > 0 or self.high < 0

    @property
    def bounded(self) -> bool:
        """False when there are too few seeds to say anything at this level."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def has_no_width(self) -> bool:
        """Both ends are equal, but for round-off: all differences are, and how far seeds may differ is not known."""
        return self.bounded and self.high - self.low <= TIE * max(abs(self.low), abs(self.high))

    def __str__(self) -> str:
        if self.has_no_width:
            return f"no {self.level:.4g} interval: all {self.n_seeds} differences are {self.low:+.4g}"
        if self.bounded:
            return f"{self.level:.4g} interval {self.low:+.4g} to {self.high:+.4g}"
        needed = seeds_needed(1 - self.level) or "more than any number of"
        return f"no {self.level:.4g} interval from {self.n_seeds} seeds: {needed} are needed"


def sign_flip_test(differences: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test for one difference for each seed, float [seed].

    Exact up to ``EXACT_SEEDS`` seeds, random flips drawn from ``seed`` above; never below ``smallest_p``. Errors:
    ``ConfigError`` for NaN or infinity, or when there is no seed.
    """
    require(np.ndim(differences) == 1, "shape of differences", np.shape(differences), "one number for each seed")
    return float(sign_flip_p(differences, seed))


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """``sign_flip_test`` of each row of ``differences`` [..., seed]."""
    d = _checked(differences, least=1)
    subsets = _subsets(d.shape[-1], seed)
    side = np.where(d.sum(axis=-1, keepdims=True) < 0, -1.0, 1.0)
    at_least_as_extreme = 1 + (side * _subset_sums(d, subsets) <= 0).sum(axis=-1)
    return np.minimum(2 * at_least_as_extreme / (len(subsets) + 1), 1.0)


def sign_flip_bounds(differences: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the inverted sign-flip test for each row of ``differences`` [..., seed]; infinite when k = 0.

    An end excludes zero exactly when ``sign_flip_test`` gives p <= 1 - level.
    """
    d = _checked(differences, least=1)
    subsets = _subsets(d.shape[-1], seed)
    k = math.floor((1 - _checked_level(level)) * (len(subsets) + 1) / 2 + 1e-9)
    if k == 0:
        return np.full(d.shape[:-1], -np.inf), np.full(d.shape[:-1], np.inf)
    means = _subset_sums(d, subsets) / subsets.sum(axis=-1)
    ends = np.partition(means, (k - 1, means.shape[-1] - k), axis=-1)
    return ends[..., k - 1], ends[..., -k]


def t_bounds(differences: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of Student's interval for the mean of each row of ``differences`` [..., seed], at least two seeds."""
    d = _checked(differences, least=2)
    n = d.shape[-1]
    half = stats.t.ppf((1 + _checked_level(level)) / 2, n - 1) * d.std(axis=-1, ddof=1) / math.sqrt(n)
    return d.mean(axis=-1) - half, d.mean(axis=-1) + half


def interval(differences: np.ndarray, level: float = 0.95, method: Method = "sign_flip", seed: int = 0) -> Interval:
    """The interval for the effect from one difference for each seed, float [seed].

    ``"sign_flip"`` inverts the test: it holds its level when the differences are symmetric about the effect, whatever
    their shape. ``"t"`` supposes that they are normal. ``mechproc.statistics.error_rates`` measures how often either
    covers the mean of scores that come in stairs. Errors: ``ConfigError``.
    """
    require(method in ("sign_flip", "t"), "method", method, "'sign_flip' or 't'")
    require(np.ndim(differences) == 1, "shape of differences", np.shape(differences), "one number for each seed")
    low, high = sign_flip_bounds(differences, level, seed) if method == "sign_flip" else t_bounds(differences, level)
    return Interval(float(low), float(high), level, method, len(differences))


def holm(p_values: np.ndarray) -> np.ndarray:
    """p adjusted for all comparisons of one family (Holm 1979), [..., comparison]: the chance of any false positive
    among them stays below alpha when those with an adjusted p of at most alpha are called, however they depend.

    The i-th smallest of m (from 0) is multiplied by m - i, made no smaller than those before it and no larger than 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    require(p.ndim >= 1 and bool(((p >= 0) & (p <= 1)).all()), "p_values", p_values, "numbers from 0 to 1")
    order = np.argsort(p, axis=-1, kind="stable")
    steps = np.arange(p.shape[-1], 0, -1)
    in_order = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * steps, axis=-1), 1.0)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, in_order, axis=-1)
    return adjusted


def smallest_p(n_seeds: int) -> float:
    """The smallest two-sided p that ``n_seeds`` seeds can give: all differences of one sign. 2/256 with eight."""
    require(n_seeds >= 1, "n_seeds", n_seeds, "at least 1")
    return 2 / (2**n_seeds if n_seeds <= EXACT_SEEDS else N_RANDOM + 1)


def seeds_needed(alpha: float) -> int | None:
    """The fewest seeds whose smallest p is at most ``alpha``; None when no number of seeds is enough."""
    enough = (n for n in range(1, EXACT_SEEDS + 2) if smallest_p(n) <= alpha * (1 + 1e-9))
    return next(enough, None)


@functools.lru_cache(maxsize=8)
def _subsets(n: int, seed: int) -> np.ndarray:
    """Subsets of ``n`` seeds, none of them empty, as rows of zeros and ones: float64 [subset, seed], read-only."""
    if n <= EXACT_SEEDS:
        rows = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    else:
        drawn = np.random.default_rng(seed).integers(
            0, 2, size=(N_RANDOM + 64, n)
        )  # more than are needed: some are empty
        rows = drawn[drawn.any(axis=1)][:N_RANDOM]
    subsets = rows.astype(np.float64)
    subsets.setflags(write=False)
    return subsets


def _subset_sums(d: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """The sum over each subset of seeds, [..., subset]; exactly zero where it is zero but for round-off."""
    sums = d @ subsets.T
    return np.where(np.abs(sums) <= TIE * np.abs(d).sum(axis=-1, keepdims=True), 0.0, sums)


def _checked(differences: np.ndarray, least: int) -> np.ndarray:
    d = np.asarray(differences, dtype=np.float64)
    n = d.shape[-1] if d.ndim else 0
    require(n >= least, "number of seeds", n, f"at least {least}")
    require(bool(np.isfinite(d).all()), "differences", "NaN or infinity", "a finite difference for every seed")
    return d


def _checked_level(level: float) -> float:
    require(0 < level < 1, "level", level, "above 0, below 1")
    return level
