from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.statistics.measures import digits_by_position, digits_by_stairs, mean_over_steps, measure, steps_to

STEPS = np.array([0, 100, 200, 400])


def test_measures_have_unit_and_direction():
    assert (measure("accuracy").unit, measure("accuracy").higher_is_better) == ("fraction", True)
    assert measure("steps to 0.5").threshold == 0.5 and measure("steps to 0.5").unit == "steps"
    for name in ("steps to", "steps to x", "steps to 0", "steps to 1.5", "steps to nan", "speed"):
        with pytest.raises(ConfigError, match="measure = "):
            measure(name)


def test_steps_to_are_restricted_to_the_budget():
    accuracy = np.array([0.1, 0.2, 0.6, 0.5])
    assert steps_to(STEPS, accuracy, 0.5, 400) == 200
    assert steps_to(STEPS, accuracy, 0.5, 150) == 150
    assert steps_to(STEPS, accuracy, 0.9, 400) == 400
    with pytest.raises(ConfigError, match="watched up to the budget"):
        steps_to(STEPS, accuracy, 0.9, 1000)


def test_mean_over_steps_is_the_area_divided_by_the_steps():
    # trapezes of 100 x 3, 100 x 1.5 and 200 x 1 over 400 steps
    assert mean_over_steps(STEPS, np.array([4.0, 2.0, 1.0, 1.0])) == (300 + 150 + 200) / 400
    assert mean_over_steps(STEPS, np.full(4, 2.5)) == 2.5
    for steps, values in ((STEPS[:1], [1.0]), (STEPS[::-1], np.ones(4)), (STEPS, [1.0, np.nan, 1.0, 1.0])):
        with pytest.raises(ConfigError):
            mean_over_steps(np.array(steps), np.array(values))


def test_digits_are_counted_by_position():
    scored = np.array([100, 100, 100, 100, 40])
    assert digits_by_position(np.array([100, 90, 89, 10, 40]), scored, 4) == 2
    assert digits_by_position(np.array([0, 0, 0, 100, 40]), scored, 3) == 0
    with pytest.raises(ConfigError, match="positions = 5"):
        digits_by_position(scored, scored, 6)


@pytest.mark.parametrize(
    ("accuracy", "digits"), [(0.267, 0), (0.511, 3), (0.764, 6), (0.910, 8), (1.0, 9), (0.10, 0), (0.300, 0)]
)
def test_digits_of_reversed_addition_by_stairs(accuracy, digits):
    """Nine digits of eleven scored tokens: 0.267 without any, and 0.0815 for each."""
    assert digits_by_stairs(accuracy, 9, 11) == digits
