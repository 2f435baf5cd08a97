from __future__ import annotations

import re
from math import erfc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.statistics.comparisons import Family
from mechproc.statistics.survival import (
    Crossing,
    crossing_steps,
    kaplan_meier,
    logrank,
    restricted_mean,
    restricted_steps,
)

BUDGET = 1000.0
RUNS = [Crossing(200, True), Crossing(500, True), Crossing(500, True), Crossing(BUDGET, False)]
NOBODY = [Crossing(BUDGET, False)] * 3
CURVE = st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=9)


def test_crossing_is_the_first_evaluation_at_or_above():
    steps = np.array([0, 100, 200, 300])
    assert crossing_steps(steps, np.array([0.1, 0.4, 0.9, 0.95]), 0.9) == (200.0, True)
    assert crossing_steps(steps, np.array([0.1, 0.95, 0.3, 0.95]), 0.9) == (100.0, True)
    assert crossing_steps(steps, np.array([0.1, 0.2, 0.3, 0.89]), 0.9) == (300.0, False)
    assert crossing_steps(steps, np.array([0.9, 0.2, 0.3, 0.89]), 0.9) == (0.0, True)


def test_kaplan_meier_by_hand():
    # of four, one crosses at 2; of the three left one is cut short at 3; of the two left one crosses at 5
    steps, share = kaplan_meier([Crossing(2, True), Crossing(3, False), Crossing(5, True), Crossing(9, False)])
    assert steps.tolist() == [0, 2, 3, 5, 9]
    np.testing.assert_allclose(share, [1, 3 / 4, 3 / 4, 3 / 4 * 1 / 2, 3 / 8])


def test_nobody_crossed():
    steps, share = kaplan_meier(NOBODY)
    assert (steps.tolist(), share.tolist()) == ([0.0, BUDGET], [1.0, 1.0])
    assert restricted_mean(NOBODY, BUDGET) == BUDGET
    assert restricted_steps(NOBODY, BUDGET).tolist() == [BUDGET] * 3
    assert logrank(NOBODY, NOBODY) == 1.0
    assert logrank([Crossing(5, True)] * 3, [Crossing(5, True)] * 3) == 1.0


def test_restricted_mean_by_hand():
    assert restricted_mean(RUNS, BUDGET) == (200 + 500 + 500 + 1000) / 4
    assert restricted_mean(RUNS, 300) == (200 + 300 + 300 + 300) / 4
    # a run cut short at 3 shares the fate of those watched longer: 2 + 3 * 3/4 + 4 * 3/8
    cut = [Crossing(2, True), Crossing(3, False), Crossing(5, True), Crossing(9, False)]
    assert restricted_mean(cut, 9) == pytest.approx(2 + 3 * 3 / 4 + 4 * 3 / 8)
    assert restricted_mean([Crossing(2, True), Crossing(3, True)], 50) == 2.5


def test_restricted_mean_is_not_made_up_beyond_the_last_run():
    with pytest.raises(ConfigError, match="budget = 6 is not allowed: at most 5, where the last run stops"):
        restricted_mean([Crossing(5, True), Crossing(5, False)], 6)


def test_restricted_steps_stop_at_the_budget():
    assert restricted_steps(RUNS, 300).tolist() == [200, 300, 300, 300]
    assert restricted_steps(RUNS, BUDGET).tolist() == [200, 500, 500, 1000]


@settings(max_examples=80, deadline=None)
@given(CURVE, st.integers(1, 14))
def test_restricted_mean_is_the_area_under_the_product_limit(runs, budget):
    crossings = [Crossing(step, crossed) for step, crossed in runs]
    longest = max(step for step, _ in runs)
    if budget > longest and not all(crossed for step, crossed in runs if step == longest):
        with pytest.raises(ConfigError, match=f"at most {longest}, where the last run stops"):
            restricted_mean(crossings, budget)
        return
    area, share = 0.0, 1.0
    for step in range(budget):  # S holds from each whole step to the next
        at_risk = sum(s >= step for s, _ in runs)
        crossed_now = sum(s == step and crossed for s, crossed in runs)
        share *= 1 - crossed_now / at_risk if at_risk else 1.0
        area += share
    assert restricted_mean(crossings, budget) == pytest.approx(area)


def test_logrank_by_hand():
    # crossings at 1 and 2 against 3 and 4. Expected in the first arm: 1/2 + 1/3 = 5/6 of 2 seen; variance 1/4 + 2/9
    first, second = [Crossing(1, True), Crossing(2, True)], [Crossing(3, True), Crossing(4, True)]
    z = (2 - 5 / 6) / np.sqrt(1 / 4 + 2 / 9)
    assert logrank(first, second) == pytest.approx(erfc(z / np.sqrt(2)))
    assert logrank(second, first) == pytest.approx(logrank(first, second))
    # a run that is cut short at a step is still watched at that step: 1 seen, 1/2 expected, variance 1/4
    assert logrank([Crossing(5, True)], [Crossing(5, False)]) == pytest.approx(erfc(1 / np.sqrt(2)))


def test_logrank_knows_that_censored_runs_did_not_cross():
    fast = [Crossing(step, True) for step in (100, 200, 300, 400, 500, 600)]
    assert logrank(fast, [Crossing(BUDGET, False)] * 6) < 0.01
    assert logrank(fast, [Crossing(50, False)] * 6) == 1.0  # cut short before anybody crossed
    assert logrank(fast, [Crossing(100, False)] * 6) > 0.2


@settings(max_examples=80, deadline=None)
@given(CURVE, CURVE)
def test_logrank_always_gives_a_probability(first, second):
    p = logrank([Crossing(*run) for run in first], [Crossing(*run) for run in second])
    assert 0 <= p <= 1


def test_restricted_steps_are_paired_by_the_family():
    fresh = restricted_steps(NOBODY * 2 + [Crossing(900, True), Crossing(700, True)], BUDGET)
    moved = restricted_steps([Crossing(step, True) for step in (100, 200, 300, 150, 250, 350, 400, 450)], BUDGET)
    family = Family("haystack", (("moved", "fresh"),), unit="steps", higher_is_better=False)
    (verdict,) = family.judge({"moved": dict(enumerate(moved)), "fresh": dict(enumerate(fresh))})
    assert verdict.word == "helps"
    assert verdict.comparison.mean == moved.mean() - (6 * 1000 + 900 + 700) / 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crossing_steps(np.array([0, 0]), np.array([0.1, 0.2]), 0.9), "a rising list, not empty"),
        (lambda: crossing_steps(np.array([]), np.array([]), 0.9), "a rising list, not empty"),
        (lambda: crossing_steps(np.array([0, 1]), np.array([0.1]), 0.9), "shape of accuracy = (1,)"),
        (lambda: crossing_steps(np.array([0, 1]), np.array([0.1, np.nan]), 0.9), "finite numbers"),
        (lambda: restricted_steps([Crossing(10, False)], 20), "run 0 = Crossing(step=10, crossed=False)"),
        (lambda: restricted_steps(RUNS, 0), "budget = 0"),
        (lambda: restricted_mean([], 20), "budget = 20"),
        (lambda: kaplan_meier([]), "at least one run"),
        (lambda: logrank(RUNS, []), "at least one run"),
        (lambda: kaplan_meier([Crossing(-1, True)]), "step = -1"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)
