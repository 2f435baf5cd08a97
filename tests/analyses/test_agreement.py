"""Rank correlations of maps, held to scipy, and their null, held to the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from analyses.agreement import Map, run
from mechproc.errors import ConfigError
from mechproc.result import Result

PARTS = ("L0.attn", "L0.mlp", "L1.attn", "L1.mlp", "ln", "embed + pos")


def result(values: np.ndarray, parts=PARTS, seeds=None) -> Result:
    seeds = list(range(values.shape[1])) if seeds is None else seeds
    return Result("x", values, ("part", "seed"), {"part": parts, "seed": seeds}, "nats", "higher", "nothing")


def agreed(first: dict[str, Result], second: dict[str, Result]) -> Result:
    return run(Map(first, "models in training"), {"ablation": Map(second, "the pretrained model")})


def test_the_value_is_spearmans_correlation_averaged_over_seeds():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    found = agreed({"set, haystack": result(a)}, {"set, haystack": result(b)})
    expected = np.mean([stats.spearmanr(x, y).statistic for x, y in zip(a.T, b.T, strict=True)])
    assert found.values[0, 0] == pytest.approx(expected)
    assert found.metadata["describes"] == {"target": "models in training", "ablation": "the pretrained model"}
    assert found.metadata["n_parts"] == {"ablation": {"set, haystack": 6}}


def test_labels_are_permuted_the_same_way_for_all_seeds_of_a_case():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    found = agreed({"x": result(a, PARTS[:4])}, {"x": result(b, PARTS[:4])})

    def mean(order) -> float:
        return float(np.mean([stats.spearmanr(x, y[list(order)]).statistic for x, y in zip(a.T, b.T, strict=True)]))

    all_means = [mean(order) for order in itertools.permutations(range(4))]
    assert found.metadata["p"]["ablation"] == pytest.approx(np.mean(np.array(all_means) >= mean(range(4)) - 1e-9))


def test_many_seeds_that_share_their_parts_are_one_case():
    """Maps that are the same in every seed are no evidence: the case is the unit, not the seed."""
    one = np.array([3.0, 1, 2, 5, 4, 6])[:, None]
    same = agreed({"x": result(np.tile(one, 10))}, {"x": result(np.tile(one, 10))})
    assert same.values[0, 0] == pytest.approx(1) and same.metadata["p"]["ablation"] == pytest.approx(1 / 720)
    p = []
    for seed in range(60):
        a, b = np.random.default_rng(seed).permuted(np.tile(np.arange(6.0), (2, 1)), axis=1)
        cases = ({"x": result(np.tile(v[:, None], 10))} for v in (a, b))
        p.append(agreed(*cases).metadata["p"]["ablation"])
    assert np.mean(np.array(p) <= 0.05) <= 0.12


def test_several_cases_are_averaged_and_counted_together():
    rng = np.random.default_rng(3)
    first = {name: result(rng.normal(size=(6, 4))) for name in ("set, haystack", "k-dyck, haystack")}
    found = agreed(first, first)
    assert (found.values == pytest.approx(1)) and found.metadata["p"]["ablation"] == pytest.approx(1e-4)
    only = agreed(first, {"set, haystack": first["set, haystack"]})
    assert only.is_missing.tolist() == [[False, True]]


def test_seeds_that_lack_a_part_or_are_flat_are_left_out():
    a = np.random.default_rng(4).normal(size=(6, 3))
    b = a.copy()
    b[2, 1], b[:, 2] = np.nan, 0.0
    found = agreed({"x": result(a)}, {"x": result(b)})
    assert found.metadata["n_seeds"] == {"ablation": {"x": 1}} and found.values[0, 0] == pytest.approx(1)
    nothing = agreed({"x": result(a)}, {"x": result(np.zeros((6, 3)))})
    assert nothing.is_missing.all() and nothing.metadata["p"] == {}


def test_what_is_refused():
    a = result(np.random.default_rng(5).normal(size=(6, 2)))
    with pytest.raises(ConfigError, match="at least 4 that both maps have"):
        agreed({"x": a}, {"x": a.select(part=PARTS[:3])})
    with pytest.raises(ConfigError, match="axes of ablation, x"):
        agreed({"x": a}, {"x": a.select(seed=0)})
    with pytest.raises(ConfigError, match="others"):
        run(Map({"x": a}, "m"), {})
