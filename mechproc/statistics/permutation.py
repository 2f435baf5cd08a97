"""Whether groups of models differ more from each other than models of one group do: a permutation test on distances.

The model is the unit. The statistic is the *excess*: the mean distance between models of different groups less the mean
distance between models of one group (as in the energy statistic of Szekely and Rizzo 2004; 0 in expectation where the
groups do not differ). The null: which group a model belongs to says nothing about it, so that the labels may be
exchanged. Models that share a start resemble each other whatever their group, and therefore

- distances between two of them are left out of both means, and
- labels are exchanged among the models of one start; those that share their start with no other exchange theirs among
  each other.

Every labelling is counted where there are at most ``EXACT_LABELLINGS``, else ``N_RANDOM`` random ones stand for them,
and the one that was seen is counted too (Phipson and Smyth 2010).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from mechproc.errors import require

EXACT_LABELLINGS = 200_000
"""Up to so many labellings all are counted."""
N_RANDOM = 9_999
"""Random labellings where there are more; a p of 0.05 then has a standard error of 0.002."""
CHUNK = 400
"""Labellings that are computed at once."""
TIE = 1e-9
"""Excesses that differ by less than this share of the mean distance are equal."""


@dataclasses.dataclass(frozen=True)
class GroupTest:
    """The outcome for each row of distances."""

    excess: np.ndarray
    """float64 [row], in the unit of the distances; positive: models of different groups are further apart."""
    p: np.ndarray
    """float64 [row]: the share of labellings whose excess is at least the one that was seen (one-sided)."""
    n_labellings: int
    exact: bool


def group_test(
    distances: np.ndarray, groups: Sequence[Hashable], starts: Sequence[Hashable] | None = None, seed: int = 0
) -> GroupTest:
    """The test of each row of ``distances`` [row, model, model], which are symmetric.

    ``groups``: the group of each model. ``starts``: its start, the same label for models that share one; ``None``: all
    differ. ``seed``: of the random labellings. Errors: ``ConfigError`` where fewer than two groups, or no two models of
    one group, have different starts, and for distances that are not finite or not symmetric.
    """
    d = np.asarray(distances, dtype=np.float64)
    n = len(groups)
    require(d.ndim == 3 and d.shape[1:] == (n, n), "shape of distances", d.shape, f"[row, {n}, {n}]")
    require(bool(np.isfinite(d).all()), "distances", "NaN or infinity", "finite numbers")
    require(bool(np.allclose(d, d.transpose(0, 2, 1))), "distances", "not symmetric", "the same in both directions")
    codes, blocks = _codes(groups), _codes(range(n) if starts is None else starts)
    require(len(blocks) == n, "number of starts", len(blocks), f"{n}, one for each model")
    counted = blocks[:, None] != blocks
    same = codes[:, None] == codes
    require(bool((counted & same).any()), "groups", list(groups), "two models of one group with different starts")
    require(bool((counted & ~same).any()), "groups", list(groups), "two groups whose models have different starts")
    pools = _pools(blocks)
    n_all = math.prod(_n_labellings(codes[pool]) for pool in pools)
    exact = n_all <= EXACT_LABELLINGS
    seen = _excess(d, codes[None], counted)[:, 0]
    limit = seen - TIE * np.maximum(d.mean(axis=(1, 2)), np.finfo(float).tiny)
    chunks = _all(codes, pools) if exact else _random(codes, pools, np.random.default_rng(seed))
    at_least = np.zeros(len(d))
    for chunk in chunks:
        at_least += (_excess(d, chunk, counted) >= limit[:, None]).sum(axis=1)
    total = n_all if exact else N_RANDOM + 1
    return GroupTest(seen, (at_least + (not exact)) / total, total, exact)


def _codes(labels: Sequence[Hashable]) -> np.ndarray:
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _pools(blocks: np.ndarray) -> list[np.ndarray]:
    """The models that exchange their labels with each other, as indices."""
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    alone = [int(block[0]) for block in members if len(block) == 1]
    return [block for block in members if len(block) > 1] + ([np.array(alone)] if alone else [])


def _n_labellings(codes: np.ndarray) -> int:
    counts = Counter(codes.tolist()).values()
    return math.factorial(len(codes)) // math.prod(math.factorial(count) for count in counts)


def _excess(d: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Float64 [row, labelling], from ``labels`` [labelling, model]."""
    same = ((labels[:, :, None] == labels[:, None, :]) & counted).reshape(len(labels), -1).astype(np.float64)
    flat = (d * counted).reshape(len(d), -1)
    within, n_within = flat @ same.T, same.sum(axis=1)
    total, n_total = flat.sum(axis=1)[:, None], float(counted.sum())
    n_between = n_total - n_within
    # a labelling under which no pair counts as one group's has nothing to compare: the least extreme there is
    safe = (n_within > 0) & (n_between > 0)
    excess = (total - within) / np.maximum(n_between, 1) - within / np.maximum(n_within, 1)
    return np.where(safe, excess, -np.inf)


def _all(codes: np.ndarray, pools: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Every labelling once, in chunks [labelling, model]."""
    options = [_arrangements(codes[pool]) for pool in pools]
    numbers = itertools.product(*(range(len(each)) for each in options))
    while chosen := list(itertools.islice(numbers, CHUNK)):
        picked = np.array(chosen)
        labels = np.empty((len(picked), len(codes)), dtype=np.int64)
        for column, (pool, each) in enumerate(zip(pools, options, strict=True)):
            labels[:, pool] = each[picked[:, column]]
        yield labels


def _arrangements(codes: np.ndarray) -> np.ndarray:
    """The distinct orders of these labels, [arrangement, place]."""
    first = int(codes.min())
    here = int((codes == first).sum())
    if here == len(codes):
        return codes[None]
    rest = _arrangements(codes[codes != first])
    places = np.array(list(itertools.combinations(range(len(codes)), here)))
    others = np.ones((len(places), len(codes)), dtype=bool)
    np.put_along_axis(others, places, False, axis=1)
    shape = (len(places), len(rest), len(codes))
    found = np.full(shape, first, dtype=np.int64)
    found[np.broadcast_to(others[:, None], shape)] = np.broadcast_to(rest, (*shape[:2], rest.shape[1])).ravel()
    return found.reshape(-1, len(codes))


def _random(codes: np.ndarray, pools: list[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """``N_RANDOM`` labellings, in chunks [labelling, model]."""
    for start in range(0, N_RANDOM, CHUNK):
        n = min(CHUNK, N_RANDOM - start)
        labels = np.tile(codes, (n, 1))
        for pool in pools:
            labels[:, pool] = rng.permuted(labels[:, pool], axis=1)
        yield labels
