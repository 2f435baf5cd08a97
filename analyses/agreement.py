"""Do two maps agree on which parts matter: does a map of the pretrained model tell what transfers?

A map is a Result with the axes ``part`` and ``seed``, of one rule and task. Within a seed, two maps are compared by
Spearman's rank correlation over the parts that both have; seeds are averaged, and then the cases, which are pairs of a
rule and a task. The case is the unit: its seeds share everything but their random numbers.

The null is that the rows of a map belong to no part in particular: within a case the part labels are permuted, the same
way for all of its seeds. p is the share of arrangements, the observed one counted, whose mean over cases is at least
the observed one. Few parts and few cases leave p coarse: with one case of six parts it is at least 1/720.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

from mechproc.errors import require
from mechproc.result import Result

N_ARRANGEMENTS = 9_999
MIN_PARTS = 4
"""Parts that two maps must share."""


@dataclasses.dataclass(frozen=True)
class Map:
    """One kind of map, such as mean ablation of the pretrained model, by case."""

    by_case: Mapping[str, Result]
    """``"set, haystack"`` -> a Result with the axes ``part`` and ``seed``; higher means that the part matters more."""
    describes: str
    """Which model it is a map of, such as ``"the pretrained model, on its own rule"``."""


def run(target: Map, others: Mapping[str, Map], seed: int = 0) -> Result:
    """The rank correlation of each of ``others`` with ``target``: axes ``map`` and ``case``, means over seeds.

    A case counts for a map where both have it; a seed where both have every shared part measured in it, and where
    neither gives all of them the same value. ``metadata`` has ``mean`` and ``p`` by map, ``n_parts`` and ``n_seeds`` by
    map and case, and ``describes``, which says which model each map is of. ``seed``: of the arrangements, where they
    are too many to count all.

    Errors: ``ConfigError`` for Results with other axes, or that share too few parts.
    """
    require(len(others) > 0, "others", dict(others), "at least one map")
    require(len(target.by_case) > 0, "target", dict(target.by_case), "a map of at least one case")
    cases = list(target.by_case)
    values = np.full((len(others), len(cases)), np.nan)
    about: dict[str, dict] = {"mean": {}, "p": {}, "n_parts": {}, "n_seeds": {}}
    rng = np.random.default_rng(seed)
    for row, (name, other) in enumerate(others.items()):
        ranked = {}
        for case in cases:
            if case in other.by_case:
                pairs = _ranks(target.by_case[case], other.by_case[case], f"{name}, {case}")
                if pairs is not None:
                    ranked[case] = pairs
        for case, (first, second) in ranked.items():
            values[row, cases.index(case)] = _mean_correlation(first, second)
        about["n_parts"][name] = {case: first.shape[1] for case, (first, _) in ranked.items()}
        about["n_seeds"][name] = {case: len(first) for case, (first, _) in ranked.items()}
        if ranked:
            about["mean"][name] = float(np.nanmean(values[row]))
            about["p"][name] = _p(list(ranked.values()), rng)
    return Result(
        name="agreement with the target",
        values=values,
        axes=("map", "case"),
        coordinates={"map": list(others), "case": cases},
        unit="rank correlation",
        direction="positive: parts that matter in one map matter in the other",
        what_it_does_not_show="that a part does the same in both models, or that one map could stand in for the other: "
        "ranks of a few parts agree often by chance",
        metadata={**about, "describes": {"target": target.describes, **{n: m.describes for n, m in others.items()}}},
    )


def _ranks(target: Result, other: Result, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Standardised ranks of the shared parts, float64 [seed, part] both; None where no seed has them all."""
    for result in (target, other):
        require(set(result.axes) == {"part", "seed"}, f"axes of {name}", tuple(result.axes), "part and seed; select")
    parts = [part for part in target.coordinates["part"] if part in other.coordinates["part"]]
    require(len(parts) >= MIN_PARTS, f"parts of {name}", parts, f"at least {MIN_PARTS} that both maps have")
    seeds = [seed for seed in target.coordinates["seed"] if seed in other.coordinates["seed"]]
    if not seeds:
        return None
    pair = []
    for result in (target, other):
        chosen = result.select(part=parts, seed=seeds)
        pair.append(chosen.values if tuple(chosen.axes) == ("seed", "part") else chosen.values.T)
    usable = np.all([np.isfinite(v).all(axis=1) & (np.ptp(np.nan_to_num(v), axis=1) > 0) for v in pair], axis=0)
    if not usable.any():
        return None
    first, second = (np.asarray(stats.zscore(stats.rankdata(v[usable], axis=1), axis=1)) for v in pair)
    return first, second


def _mean_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of each seed, averaged."""
    return float((first * second).mean(axis=1).mean())


def _p(cases: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> float:
    """The share of arrangements of the part labels whose mean over cases is at least the observed one."""
    # the mean over seeds of a permuted correlation is a sum over pairs of parts of this matrix
    shared = [np.einsum("si,sj->ij", a, b) / a.size for a, b in cases]
    observed = float(np.mean([np.trace(m) for m in shared]))
    n = math.prod(math.factorial(len(m)) for m in shared)
    if n <= N_ARRANGEMENTS + 1:
        tables = [[m[np.arange(len(m)), list(o)].sum() for o in itertools.permutations(range(len(m)))] for m in shared]
        sums = np.array([float(np.mean(each)) for each in itertools.product(*tables)])
        return float((sums >= observed - 1e-9).mean())
    drawn = np.zeros(N_ARRANGEMENTS)
    for m in shared:
        orders = rng.permuted(np.tile(np.arange(len(m)), (N_ARRANGEMENTS, 1)), axis=1)
        drawn += m[np.arange(len(m)), orders].sum(axis=1) / len(shared)
    return float((1 + (drawn >= observed - 1e-9).sum()) / (N_ARRANGEMENTS + 1))
