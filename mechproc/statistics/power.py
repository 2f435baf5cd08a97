"""How many seeds it takes to decide."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mechproc.errors import require
from mechproc.statistics.paired import seeds_needed

POWER = 0.8
MOST_SEEDS = 1_000


def seeds_for(differences: np.ndarray, effect: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """The fewest seeds with which an effect of this size is found with probability ``power``, at a two-sided level
    ``alpha``, when seeds differ as much as ``differences`` (float [seed], at least two) do.

    The power is that of Student's paired t test (noncentral t with n - 1 degrees of freedom and noncentrality
    effect sqrt(n) / standard deviation), and at least as many seeds as the sign-flip test needs to reach ``alpha``
    at all. It is a plan and no verdict: with few seeds the standard deviation itself is uncertain, by about
    1 / sqrt(2 (n - 1)) of its size. None: more than 1,000. Errors: ``ConfigError``.
    """
    d = np.asarray(differences, dtype=np.float64)
    require(d.ndim == 1 and len(d) >= 2, "number of seeds", d.shape, "at least 2")
    require(bool(np.isfinite(d).all()), "differences", "NaN or infinity", "a finite difference for every seed")
    require(effect > 0 and math.isfinite(effect), "effect", effect, "above 0 and finite")
    require(0 < power < 1, "power", power, "above 0, below 1")
    least = seeds_needed(alpha)
    deviation = float(d.std(ddof=1))
    if least is None or deviation == 0:
        return least
    return next(
        (n for n in range(max(least, 2), MOST_SEEDS + 1) if _power(n, effect / deviation, alpha) >= power), None
    )


def unseen_share(n_seeds: int, alpha: float) -> float:
    """The largest share of seeds of some kind of which ``n_seeds`` seeds show none with a probability of ``alpha``:
    (1 - share)^n = alpha (Hanley and Lippman-Hand 1983). 31 % for ten seeds and 0.025."""
    require(n_seeds >= 1, "n_seeds", n_seeds, "at least 1")
    return 1 - alpha ** (1 / n_seeds)


def seeds_to_show(share: float, alpha: float) -> int:
    """The fewest seeds that would show a kind of seeds of this share, but for a probability of ``alpha``."""
    require(0 < share < 1, "share", share, "above 0, below 1")
    return math.ceil(math.log(alpha) / math.log(1 - share))


def _power(n: int, standardised: float, alpha: float) -> float:
    shift, edge = standardised * math.sqrt(n), stats.t.ppf(1 - alpha / 2, n - 1)
    return float(stats.nct.sf(edge, n - 1, shift))
