from __future__ import annotations

import itertools

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.statistics import permutation
from mechproc.statistics.permutation import N_RANDOM, group_test


def distances(points: np.ndarray) -> np.ndarray:
    """One row of distances between points on a line."""
    return np.abs(points[:, None] - points)[None]


def excess(d: np.ndarray, groups: tuple, starts: list) -> float:
    """One pair after another."""
    within, between = [], []
    for i, j in itertools.combinations(range(len(groups)), 2):
        if starts[i] != starts[j]:
            (within if groups[i] == groups[j] else between).append(d[i, j])
    return np.mean(between) - np.mean(within)


def brute_force_p(d: np.ndarray, groups: list, starts: list) -> tuple[float, int]:
    """Every labelling that keeps the labels of each start, as the set of all permutations gives them."""
    shared = [s for s in starts if starts.count(s) > 1]
    pool = [s if s in shared else None for s in starts]
    seen = excess(d, tuple(groups), starts)

    def kept(labels: tuple) -> bool:
        return all(
            sorted(x for x, p in zip(labels, pool, strict=True) if p == q)
            == sorted(x for x, p in zip(groups, pool, strict=True) if p == q)
            for q in set(pool)
        )

    labellings = [labels for labels in set(itertools.permutations(groups)) if kept(labels)]
    count = sum(excess(d, labels, starts) >= seen - 1e-9 for labels in labellings)
    return count / len(labellings), len(labellings)


def test_hand_example():
    # 0, 1 | 10, 12: between (10 + 12 + 9 + 11) / 4, within (1 + 2) / 2. Of the 6 labellings the same two groups, with
    # either name, are the most extreme.
    found = group_test(distances(np.array([0.0, 1.0, 10.0, 12.0])), ["a", "a", "b", "b"])
    assert found.excess[0] == pytest.approx(10.5 - 1.5)
    assert found.p[0] == pytest.approx(2 / 6)
    assert (found.n_labellings, found.exact) == (6, True)


@pytest.mark.parametrize(
    "groups, starts",
    [
        (list("aaabbb"), list(range(6))),
        (list("aaaabb"), list(range(6))),
        (list("aabbcc"), list(range(6))),
        (list("aaabbb"), [0, 1, 2, 0, 1, 2]),
        (list("aaabbb"), [0, 1, 2, 0, 3, 4]),
        (list("aabbcc"), [0, 1, 0, 1, 0, 1]),
    ],
)
def test_as_by_brute_force(groups, starts):
    d = distances(np.random.default_rng(3).integers(0, 6, 6).astype(float))
    found = group_test(d, groups, starts)
    p, n = brute_force_p(d[0], groups, starts)
    assert found.exact and found.n_labellings == n
    assert found.p[0] == pytest.approx(p)
    assert found.excess[0] == pytest.approx(excess(d[0], tuple(groups), starts))


def test_pairs_that_share_a_start_do_not_count():
    points = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    d = distances(points)
    wide = d.copy()
    wide[0][[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]] = 100.0
    starts = [0, 1, 2, 0, 1, 2]
    groups = list("aaabbb")
    assert group_test(wide, groups, starts).excess == group_test(d, groups, starts).excess
    assert group_test(wide, groups).excess > group_test(d, groups).excess


def test_eight_seeds_of_two_rules_are_enough_for_a_family_of_six():
    points = np.concatenate([np.arange(8.0), 100 + np.arange(8.0)])
    found = group_test(distances(points), [*"a" * 8, *"b" * 8], [*range(8), *range(8)])
    assert found.n_labellings == 2**8
    assert 6 * found.p[0] == pytest.approx(6 * 2 / 256) and 6 * found.p[0] <= 0.05


def test_random_labellings_stand_for_too_many():
    points = np.concatenate([10.0 * k + np.arange(6.0) for k in range(4)])
    found = group_test(np.concatenate([distances(points)] * 2), [r for r in "abcd" for _ in range(6)], seed=1)
    assert not found.exact and found.n_labellings == N_RANDOM + 1
    assert found.p.tolist() == [1 / (N_RANDOM + 1)] * 2


def test_random_labellings_agree_with_all(monkeypatch):
    points = np.random.default_rng(0).normal(size=12)
    points[6:] += 0.7
    groups = [*"a" * 6, *"b" * 6]
    exact = group_test(distances(points), groups)
    monkeypatch.setattr(permutation, "EXACT_LABELLINGS", 10)
    drawn = group_test(distances(points), groups)
    assert exact.exact and not drawn.exact
    assert drawn.p[0] == pytest.approx(exact.p[0], abs=4 * np.sqrt(exact.p[0] / N_RANDOM))


@pytest.mark.parametrize("shared", [False, True])
def test_p_is_at_most_alpha_as_often_as_alpha_says(shared):
    """Models without a difference between rules, whose starts show in them where they are shared."""
    rng = np.random.default_rng(5)
    wrong = 0
    n = 5 if shared else 4  # 32 labellings, or 70: the two smallest p are 1/16 and 2/16, or 2/70, 4/70, ...
    alpha = 2 / 16 if shared else 8 / 70
    for _ in range(300):
        start = rng.normal(size=(n, 2))
        points = np.concatenate([start, start if shared else rng.normal(size=(n, 2))])
        points += 0.3 * rng.normal(size=points.shape)
        d = np.linalg.norm(points[:, None] - points, axis=2)[None]
        starts = [*range(n), *range(n)] if shared else None
        wrong += group_test(d, [*"a" * n, *"b" * n], starts).p[0] <= alpha
    assert wrong / 300 == pytest.approx(alpha, abs=3 * np.sqrt(alpha * (1 - alpha) / 300))


def test_bad_input_is_named():
    d = distances(np.arange(4.0))
    groups = list("aabb")
    with pytest.raises(ConfigError, match="shape of distances"):
        group_test(d, list("aab"))
    with pytest.raises(ConfigError, match="distances = 'NaN"):
        group_test(d * np.nan, groups)
    with pytest.raises(ConfigError, match="not symmetric"):
        group_test(d + np.triu(np.ones((4, 4)))[None], groups)
    with pytest.raises(ConfigError, match="two models of one group"):
        group_test(d, list("abcd"))
    with pytest.raises(ConfigError, match="two groups"):
        group_test(d, list("aaaa"))
    with pytest.raises(ConfigError, match="number of starts"):
        group_test(d, groups, [1, 2])
