from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mechproc.errors import ConfigError
from mechproc.statistics.power import seeds_for, seeds_to_show, unseen_share


def test_seeds_reach_the_power_that_was_asked_for():
    """Student's paired t test on simulated differences rejects as often as planned, and less often with a seed less."""
    observed = np.array([-1.0, 1.0, -0.5, 0.5, 2.0, -2.0, 0.3, -0.3])
    effect, deviation = 1.2, observed.std(ddof=1)
    n = seeds_for(observed, effect)
    assert n is not None and n > 8
    rng = np.random.default_rng(0)

    def power(seeds: int) -> float:
        draws = rng.normal(effect, deviation, (20_000, seeds))
        return float((stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05).mean())

    assert power(n) > 0.79 and power(n - 1) < 0.81


def test_more_seeds_for_smaller_effects_and_corrections():
    d = np.array([0.1, -0.1, 0.2, -0.2, 0.05, -0.05])
    numbers = [seeds_for(d, effect) or 0 for effect in (0.3, 0.1, 0.05)]
    assert numbers == sorted(numbers) and numbers[0] < numbers[-1]
    assert (seeds_for(d, 0.1, 0.01) or 0) > (seeds_for(d, 0.1, 0.05) or 0)
    assert seeds_for(d, 1e-4) is None
    assert seeds_for(np.full(5, 0.5), 0.1) == 6  # as many as the sign-flip test needs at all


def test_unseen_share_is_the_rule_of_three():
    assert unseen_share(10, 0.025) == pytest.approx(0.3085, abs=1e-4)
    assert unseen_share(1000, 0.05) == pytest.approx(3 / 1000, rel=0.01)
    assert (1 - unseen_share(7, 0.05)) ** 7 == pytest.approx(0.05)
    n = seeds_to_show(0.2, 0.025)
    assert 0.8**n <= 0.025 < 0.8 ** (n - 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: seeds_for(np.array([1.0]), 1.0),
        lambda: seeds_for(np.array([1.0, np.nan]), 1.0),
        lambda: seeds_for(np.array([1.0, 2.0]), 0.0),
        lambda: seeds_for(np.array([1.0, 2.0]), 1.0, power=1.0),
        lambda: unseen_share(0, 0.05),
        lambda: seeds_to_show(1.0, 0.05),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ConfigError):
        call()
