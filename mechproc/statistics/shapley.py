"""Exact Shapley values: how a total is shared among players whose contributions depend on each other.

The players of a model are its parts; the value of a coalition is a score of the model that has these parts, such as the
area under the loss curve after they were moved. The Shapley value of a player is the mean of what it adds to the
players before it, over all orders of the players (Shapley 1953):

    ``phi_i = sum over coalitions S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))``
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.result import Label, Result

MOST_PLAYERS = 10
Coalition = frozenset[str]


def coalitions(players: Sequence[str]) -> list[Coalition]:
    """All 2^n coalitions. Coalition number k has player i exactly when bit i of k is 1: the empty one is the first."""
    _check_players(players)
    return [frozenset(p for i, p in enumerate(players) if k >> i & 1) for k in range(2 ** len(players))]


def shapley_values(values: np.ndarray, n_players: int) -> np.ndarray:
    """The Shapley value of each player, float64 [player, ...], from the value of each coalition, [coalition, ...].

    Coalitions are in the order of ``coalitions``; further axes, such as seeds, are kept. For each of them the values of
    the players add up to the value of all players minus that of none. Errors: ``ConfigError``.
    """
    v = np.asarray(values, dtype=np.float64)
    require(1 <= n_players <= MOST_PLAYERS, "number of players", n_players, f"1 to {MOST_PLAYERS}")
    require(v.ndim >= 1 and len(v) == 2**n_players, "number of coalitions", v.shape[:1], f"{2**n_players}, all of them")
    require(bool(np.isfinite(v).all()), "values", "NaN or infinity", "a finite value for every coalition")
    numbers = np.arange(2**n_players)
    sizes = np.array([int(k).bit_count() for k in numbers])
    factorials = [math.factorial(k) for k in range(n_players + 1)]
    weights = (
        np.array([factorials[s] * factorials[n_players - s - 1] for s in range(n_players)]) / factorials[n_players]
    )
    shares = []
    for player in range(n_players):
        without = numbers[numbers >> player & 1 == 0]
        added = v[without | 1 << player] - v[without]
        shares.append(np.tensordot(weights[sizes[without]], added, axes=1))
    return np.stack(shares)


def shapley(
    table: Mapping[Collection[str], Mapping[Label, float]],
    players: Sequence[str],
    *,
    name: str,
    unit: str,
    direction: str,
) -> Result:
    """The Shapley value of each player within each seed: a Result with the axes ``player`` and ``seed``.

    ``table``: for each coalition, as a collection of players, the value by seed. Errors: ``ConfigError`` for a
    coalition that is missing or has an unknown player, and for seeds that are not the same in all coalitions.
    """
    given: dict[Coalition, Mapping[Label, float]] = {}
    for coalition, by_seed in table.items():
        key = frozenset(coalition)
        unknown = sorted(key - set(players))
        require(not unknown, "coalition", sorted(key), f"players among {', '.join(players)}")
        require(key not in given, "coalition", sorted(key), "each coalition once")
        given[key] = by_seed
    wanted = coalitions(players)
    for coalition in wanted:
        if coalition not in given:
            raise ConfigError(
                f"coalition {{{', '.join(sorted(coalition))}}} has no value: all {len(wanted)} are needed"
            )
    seeds = list(given[wanted[0]])
    for coalition in wanted:
        apart = sorted(map(str, given[coalition].keys() ^ set(seeds)))
        require(not apart, f"seeds of coalition {sorted(coalition)}", apart, "those of every other coalition")
    values = np.array([[given[coalition][seed] for seed in seeds] for coalition in wanted])
    return Result(
        name=name,
        values=shapley_values(values, len(players)),
        axes=("player", "seed"),
        coordinates={"player": list(players), "seed": seeds},
        unit=unit,
        direction=direction,
        what_it_does_not_show="whether a player works alone or only with others: look at the coalitions themselves",
        metadata={"n_coalitions": len(wanted)},
    )


def shapley_contrast(players: Sequence[str], shares: Mapping[str, float]) -> dict[Coalition, float]:
    """A sum of Shapley values, ``shares[player]`` times each, as weights of the coalitions' values: those not zero.

    The Shapley value is linear in the values of the coalitions, so that a claim on it is a contrast of arms. Errors:
    ``ConfigError`` for a share of an unknown player.
    """
    unknown = sorted(set(shares) - set(players))
    require(not unknown, "shares", unknown, f"players among {', '.join(players)}")
    factors = np.array([shares.get(player, 0.0) for player in players])
    weights = factors @ shapley_values(np.eye(2 ** len(players)), len(players))
    known = zip(coalitions(players), weights.tolist(), strict=True)
    return {coalition: weight for coalition, weight in known if abs(weight) > 1e-12}


def _check_players(players: Sequence[str]) -> None:
    n = len(players)
    require(not isinstance(players, str) and 1 <= n <= MOST_PLAYERS, "number of players", n, f"1 to {MOST_PLAYERS}")
    require(len(set(players)) == n, "players", list(players), "names that differ")
