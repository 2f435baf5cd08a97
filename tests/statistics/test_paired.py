from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mechproc.errors import ConfigError
from mechproc.statistics.paired import (
    EXACT_SEEDS,
    N_RANDOM,
    holm,
    interval,
    seeds_needed,
    sign_flip_bounds,
    sign_flip_p,
    sign_flip_test,
    smallest_p,
    t_bounds,
)

WHOLE = st.lists(st.integers(-6, 6), min_size=1, max_size=8)


def brute_force_p(differences: list[int], shift: float = 0.0) -> float:
    """Every sign pattern of whole differences, one after another."""
    shifted = [d - shift for d in differences]
    observed = abs(sum(shifted))
    flips = list(itertools.product([1, -1], repeat=len(shifted)))
    return sum(abs(sum(s * d for s, d in zip(flip, shifted, strict=True))) >= observed for flip in flips) / len(flips)


def test_hand_example():
    # of |1 + 2 + 3 - 1| = 5 or more are: 7 with all signs alike, 5 with one of the two 1s against the rest; and mirrors
    assert sign_flip_test(np.array([1.0, 2.0, 3.0, -1.0])) == 6 / 16


@settings(max_examples=60, deadline=None)
@given(WHOLE)
def test_p_counts_sign_patterns_and_equal_sums_tie(differences):
    assert sign_flip_test(np.array(differences, dtype=float)) == brute_force_p(differences)


@settings(max_examples=60, deadline=None)
@given(WHOLE)
def test_ties_survive_round_off(differences):
    # the same differences as accuracies: 0.9 - 0.7 is not 0.7 - 0.5 in floating point
    control = 0.1 + np.arange(len(differences)) / 30
    scores = control + np.array(differences) / 10
    assert sign_flip_test(scores - control) == brute_force_p(differences)


@pytest.mark.parametrize("n", [2, 5, 8, 11])
def test_p_agrees_with_scipy(n):
    d = np.random.default_rng(n).normal(0.6, 1.0, n)
    expected = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided", axis=-1
    )
    assert len(expected.null_distribution) == 2**n
    assert sign_flip_test(d) == pytest.approx(expected.pvalue, abs=1e-12)


def test_p_of_rows_is_that_of_each_row():
    rows = np.random.default_rng(1).normal(0.4, 1.0, (3, 2, 9))
    p = sign_flip_p(rows)
    assert p.shape == (3, 2)
    assert p[2, 1] == sign_flip_test(rows[2, 1])
    assert len(np.unique(p)) > 3


def test_smallest_p_is_reached_when_all_differences_have_one_sign():
    for n in (1, 5, 8, EXACT_SEEDS):
        assert sign_flip_test(np.arange(1.0, n + 1)) == smallest_p(n) == 2 / 2**n
        assert sign_flip_test(-np.arange(1.0, n + 1)) == 2 / 2**n
    assert sign_flip_test(np.zeros(8)) == 1.0
    assert smallest_p(40) == 2 / (N_RANDOM + 1)
    assert sign_flip_test(np.ones(40)) == 2 / (N_RANDOM + 1)


def test_random_flips_come_close_to_all_of_them_and_depend_on_the_seed_alone():
    d = np.random.default_rng(3).normal(0.8, 1.0, EXACT_SEEDS + 4)
    sums = np.zeros(1)
    for difference in d:
        sums = np.concatenate([sums + difference, sums - difference])
    exact = float((np.abs(sums) >= abs(d.sum()) - 1e-12).mean())
    p = sign_flip_test(d, seed=5)
    assert 0.01 < exact < 0.2
    assert p == pytest.approx(exact, abs=5 * math.sqrt(exact / N_RANDOM))
    assert p == sign_flip_test(d, seed=5) != sign_flip_test(d, seed=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=2, max_size=7), st.sampled_from([0.5, 0.75, 0.875, 0.9, 0.95]))
def test_interval_is_the_set_of_effects_that_the_test_keeps(differences, level):
    """Brute force: the test jumps at subset means only, so those and the points between them decide."""
    found = interval(np.array(differences, dtype=float), level)
    subsets = [s for k in range(1, len(differences) + 1) for s in itertools.combinations(differences, k)]
    means = sorted({sum(s) / len(s) for s in subsets})
    between = [(a + b) / 2 for a, b in itertools.pairwise(means)]
    for effect in [means[0] - 1, *means, *between, means[-1] + 1]:
        # in whole numbers: 840 is a multiple of every subset size and of 2, so that nothing is rounded
        whole = [round(840 * (d - effect)) for d in differences]
        kept = brute_force_p(whole) > 1 - level + 1e-12
        assert kept == (found.low - 1e-9 <= effect <= found.high + 1e-9)


def test_interval_of_eight_seeds_by_hand():
    # k = floor(0.05 * 256 / 2) = 6; the six smallest means of subsets of 1, 2, 4, ..., 128
    d = 2.0 ** np.arange(8)
    by_hand = sorted(sum(s) / len(s) for k in range(1, 9) for s in itertools.combinations(d.tolist(), k))
    assert by_hand[:6] == [1.0, 1.5, 2.0, 7 / 3, 2.5, 3.0]
    found = interval(d)
    assert found.low == 3.0
    assert found.high == by_hand[-6]
    assert found.excludes_zero and found.bounded
    assert str(found) == f"0.95 interval +3 to +{by_hand[-6]:.4g}"


@pytest.mark.parametrize(("level", "needed"), [(0.95, 6), (0.99, 8), (0.5, 2)])
def test_too_few_seeds_leave_the_interval_unbounded_and_say_so(level, needed):
    assert seeds_needed(1 - level) == needed
    short = interval(np.arange(1.0, needed), level)
    assert (short.low, short.high) == (-math.inf, math.inf)
    assert not short.bounded and not short.excludes_zero
    assert str(short) == f"no {level:.4g} interval from {needed - 1} seeds: {needed} are needed"
    assert interval(np.arange(1.0, needed + 1), level).bounded


def test_interval_excludes_zero_exactly_when_the_test_rejects():
    rng = np.random.default_rng(4)
    for n in (6, 8, 13, EXACT_SEEDS + 2):
        rows = rng.normal(0.7, 1.0, (40, n)).round(1)
        low, high = sign_flip_bounds(rows, 0.95)
        rejected = sign_flip_p(rows) <= 1 - 0.95
        assert 0 < rejected.sum() < 40
        np.testing.assert_array_equal((low > 0) | (high < 0), rejected)


def test_rank_of_the_ends_does_not_hang_on_the_last_bit_of_the_level():
    # 1 - 0.9 is a little less than a tenth: of 100,000 flips the 5,000th on each side is meant, not the 4,999th
    rows = np.random.default_rng(6).normal(0.7, 1.0, (5, EXACT_SEEDS + 2))
    np.testing.assert_array_equal(sign_flip_bounds(rows, 0.9), sign_flip_bounds(rows, 0.9 - 1e-7))


def test_t_interval_is_scipys():
    d = np.random.default_rng(5).normal(1.0, 2.0, 9)
    expected = stats.ttest_1samp(d, 0.0).confidence_interval(0.9)
    found = interval(d, 0.9, method="t")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    low, high = t_bounds(np.stack([d, d + 1]), 0.9)
    assert (low[1], high[1]) == pytest.approx((expected.low + 1, expected.high + 1), rel=1e-12)
    same = interval(np.full(8, 0.25), method="t")
    assert (same.low, same.high) == (0.25, 0.25)


def test_holm_by_hand():
    # Holm (1979): 0.005 x 4; 0.01 x 3; 0.03 x 2; 0.04 x 1, which may not be smaller than the one before it
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.5])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.02])), [0.02])
    np.testing.assert_allclose(holm(np.array([0.02, 0.02, 0.02])), [0.06, 0.06, 0.06])
    rows = holm(np.array([[0.01, 0.04], [0.03, 0.005]]))
    np.testing.assert_allclose(rows, [[0.02, 0.04], [0.03, 0.01]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, alpha):
    """The procedure as Holm states it: go up the sorted p and stop at the first above alpha / (m - i)."""
    m = len(p_values)
    rejected = set()
    for i, index in enumerate(sorted(range(m), key=lambda j: p_values[j])):
        if p_values[index] * (m - i) > alpha:
            break
        rejected.add(index)
    assert set(np.flatnonzero(holm(np.array(p_values)) <= alpha)) == rejected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sign_flip_test(np.array([0.1, np.nan])), "differences = 'NaN or infinity'"),
        (lambda: sign_flip_test(np.array([0.1, np.inf])), "differences = 'NaN or infinity'"),
        (lambda: sign_flip_test(np.array([])), "number of seeds = 0"),
        (lambda: sign_flip_test(np.zeros((2, 8))), "shape of differences = (2, 8)"),
        (lambda: interval(np.zeros((2, 8))), "shape of differences = (2, 8)"),
        (lambda: interval(np.ones(8), level=95), "level = 95"),
        (lambda: interval(np.ones(8), method="bootstrap"), "method = 'bootstrap'"),  # type: ignore[arg-type]
        (lambda: interval(np.ones(1), method="t"), "number of seeds = 1"),
        (lambda: holm(np.array([0.1, 1.2])), "numbers from 0 to 1"),
        (lambda: holm(np.array([0.1, np.nan])), "numbers from 0 to 1"),
        (lambda: smallest_p(0), "n_seeds = 0"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)
