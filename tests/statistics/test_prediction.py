"""Skill on groups that were left out, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mechproc.errors import ConfigError
from mechproc.statistics import prediction
from mechproc.statistics.prediction import leave_one_group_out

GROUPS = ["a"] * 5 + ["b"] * 5 + ["c"] * 5


def drawn(seed: int, effect: float, times: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Units whose times share most of their noise, as the checkpoints of one training do."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(15, 1)) + 0.2 * rng.normal(size=(15, times))
    return x, effect * x + rng.normal(size=(15, 1)) + 0.2 * rng.normal(size=(15, times))


def test_a_perfect_predictor_has_skill_one_and_its_slope():
    x, _ = drawn(0, 0)
    found = leave_one_group_out(x, 3 * x - 1, GROUPS)
    assert found.skill == pytest.approx(1) and found.n_units == 15
    assert list(found.slopes.values()) == pytest.approx([3, 3, 3]) and found.p == 0.001
    assert all(skill == pytest.approx(1) for skill in found.by_group.values())


def test_skill_is_that_of_a_weighted_regression():
    x, y = drawn(1, 0.7)
    y[0, 1:] = np.nan  # a unit that was seen once counts as much as the others
    errors = np.zeros(2)
    labels, seen = np.array(GROUPS), np.isfinite(y)
    weight = seen / seen.sum(axis=1, keepdims=True)
    for group in "abc":
        kept, out = seen & (labels != group)[:, None], seen & (labels == group)[:, None]
        line = LinearRegression().fit(x[kept][:, None], y[kept], sample_weight=weight[kept])
        mean = np.average(y[kept], weights=weight[kept])
        for i, guess in enumerate((line.predict(x[out][:, None]), mean)):
            errors[i] += (weight[out] * (y[out] - guess) ** 2).sum()
    assert leave_one_group_out(x, y, GROUPS).skill == pytest.approx(1 - errors[0] / errors[1])


def test_under_the_null_small_p_are_rare_although_the_times_of_a_unit_are_alike(monkeypatch):
    monkeypatch.setattr(prediction, "N_ARRANGEMENTS", 99)
    p = np.array([leave_one_group_out(*drawn(seed, 0), GROUPS).p or 1.0 for seed in range(40)])
    assert (p <= 0.05).sum() <= 5  # 2 are expected
    assert (leave_one_group_out(*drawn(3, 2), GROUPS).p or 1) <= 0.02


def test_no_p_where_nothing_can_change_places():
    y = np.arange(12.0).reshape(3, 4)
    assert leave_one_group_out(y, y, ["a", "b", "c"]).p is None
    same = np.tile(np.arange(4.0), (15, 1))  # as the number of updates is the same for every donor
    assert leave_one_group_out(same, drawn(0, 0)[1], GROUPS).p is None


@pytest.mark.parametrize(
    ("x", "groups", "text"),
    [
        (np.zeros((3, 2)), ["a", "b", "b"], "number of groups"),
        (np.zeros((3, 3)), ["a", "b", "c"], "shape of x and y"),
        (np.array([[0, 0], [0, 0], [np.nan, np.nan]]), ["a", "b", "c"], "a unit without values"),
    ],
)
def test_what_is_refused(x, groups, text):
    with pytest.raises(ConfigError, match=text):
        leave_one_group_out(x, np.zeros((3, 2)), groups)
