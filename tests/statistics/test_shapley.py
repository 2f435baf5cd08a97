from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.statistics.shapley import coalitions, shapley, shapley_values


def by_orders(values: np.ndarray, n: int) -> np.ndarray:
    """The definition: the mean of what a player adds, over all orders of the players."""
    total = np.zeros(n)
    orders = list(itertools.permutations(range(n)))
    for order in orders:
        number = 0
        for player in order:
            total[player] += values[number | 1 << player] - values[number]
            number |= 1 << player
    return total / len(orders)


def test_the_glove_game():
    """One left glove (a) and two right ones (b, c); a pair is worth 1: 2/3, 1/6, 1/6 (Shapley 1953)."""
    players = ("a", "b", "c")
    values = np.array([float("a" in c and len(c) > 1) for c in coalitions(players)])
    np.testing.assert_allclose(shapley_values(values, 3), [2 / 3, 1 / 6, 1 / 6])


def test_the_airport_game():
    """Costs are those of the longest runway: 1, 2 and 4 are shared as 1/3, 1/3 + 1/2, 1/3 + 1/2 + 2."""
    players = ("small", "middle", "large")
    cost = {"small": 1.0, "middle": 2.0, "large": 4.0}
    values = np.array([max((cost[p] for p in c), default=0.0) for c in coalitions(players)])
    np.testing.assert_allclose(shapley_values(values, 3), [1 / 3, 5 / 6, 17 / 6])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_it_is_the_mean_over_orders_and_shares_the_whole(n, seed):
    values = np.random.default_rng(seed).normal(size=2**n)
    shares = shapley_values(values, n)
    np.testing.assert_allclose(shares, by_orders(values, n), atol=1e-12)
    assert shares.sum() == pytest.approx(values[-1] - values[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_symmetry_null_player_and_additivity(seed):
    rng = np.random.default_rng(seed)
    by_size = rng.normal(size=5)
    sizes = np.array([bin(k).count("1") for k in range(16)])
    alike = shapley_values(by_size[sizes], 4)
    np.testing.assert_allclose(alike, np.full(4, (by_size[4] - by_size[0]) / 4), atol=1e-12)

    first, second = rng.normal(size=8), rng.normal(size=8)
    without_last = np.concatenate([first, first])  # player 3 adds nothing
    assert shapley_values(without_last, 4)[3] == pytest.approx(0.0, abs=1e-12)
    both = shapley_values(first + second, 3)
    np.testing.assert_allclose(both, shapley_values(first, 3) + shapley_values(second, 3), atol=1e-12)


def test_seeds_are_kept_apart():
    players = ("attn", "mlp")
    table = {
        (): {0: 0.1, 1: 0.2},
        ("attn",): {0: 0.5, 1: 0.2},
        ("mlp",): {1: 0.4, 0: 0.1},
        ("mlp", "attn"): {0: 0.9, 1: 0.6},
    }
    result = shapley(table, players, name="Shapley", unit="fraction", direction="positive: helps")
    assert result.axes == ("player", "seed")
    np.testing.assert_allclose(result.select(player="attn").values, [(0.4 + 0.8) / 2, (0.0 + 0.2) / 2])
    np.testing.assert_allclose(result.values.sum(axis=0), [0.8, 0.4])


def test_ten_players():
    values = np.arange(2.0**10)
    np.testing.assert_allclose(shapley_values(values, 10), 2.0 ** np.arange(10))


FIELDS = {"name": "x", "unit": "nats", "direction": "positive: more"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shapley_values(np.zeros(7), 3), "number of coalitions"),
        (lambda: shapley_values(np.zeros(2**11), 11), "number of players = 11"),
        (lambda: shapley_values(np.array([0.0, np.nan]), 1), "NaN or infinity"),
        (lambda: coalitions("ab"), "number of players"),
        (lambda: coalitions(("a", "a")), "names that differ"),
        (lambda: shapley({(): {0: 1.0}}, ("a",), **FIELDS), "coalition {a} has no value"),
        (lambda: shapley({(): {0: 1.0}, ("b",): {0: 1.0}}, ("a",), **FIELDS), "coalition = ['b']"),
        (lambda: shapley({(): {0: 1.0}, ("a",): {1: 1.0}}, ("a",), **FIELDS), "seeds of coalition"),
    ],
)
def test_tables_that_are_not_whole_are_refused(call, message):
    with pytest.raises(ConfigError) as error:
        call()
    assert message in str(error.value)
