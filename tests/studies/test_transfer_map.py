"""Coalitions of parts: every one is there once, and moves what it says."""

from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.statistics.shapley import coalitions, shapley_contrast, shapley_values
from mechproc.studies import transfer_map, which_heads
from mechproc.studies.scales import LAPTOP
from mechproc.studies.transfer_map import PLAYERS, arm, recipe
from mechproc.transfer import fresh, full


def test_every_coalition_is_an_arm_and_no_two_are_one_run():
    study = transfer_map.study("laptop", [1000])
    for rule in ("set", "k-dyck"):
        for players in coalitions(PLAYERS):
            assert arm(rule, players) in study.arms
    identities = [run.identity for _, run in study.runs]
    assert len(set(identities)) == len(identities) == 1 + 2 * 63 + 5 + 6


def test_players_are_what_full_transfer_moves():
    whole = recipe(PLAYERS, "set")
    assert whole.replace(parts={}) == full("set").replace(parts={}, donor="set")
    assert list(whole.parts) == ["L0.attn + L0.mlp + L1.attn + L1.mlp"]
    only = recipe(["ln"], "set")
    assert (only.parts, only.layernorm, only.embedding, only.donor_names) == ({}, "donor", "random", ("set",))
    assert recipe((), "set") == fresh()
    assert list(recipe(["L0.mlp", "ln"], "set", True).perturb) == ["L0.mlp", "ln"]


def test_a_claim_on_shapley_values_is_a_contrast_of_arms():
    values = np.random.default_rng(0).normal(size=2**6)
    shares = {"L0.attn": 1.0, "L0.mlp": -2.0}
    weights = shapley_contrast(PLAYERS, shares)
    by_coalition = dict(zip(coalitions(PLAYERS), values, strict=True))
    shapley = shapley_values(values, 6)
    total = sum(weight * by_coalition[who] for who, weight in weights.items())
    assert total == pytest.approx(shapley[0] - 2 * shapley[1])
    assert sum(weights.values()) == pytest.approx(0)
    with pytest.raises(ConfigError, match="shares"):
        shapley_contrast(PLAYERS, {"L7.attn": 1.0})


def test_other_heads_are_never_the_chosen_ones_and_differ_between_seeds():
    others = {seed: next(iter(which_heads.arms(seed, 8)["other heads"].parts)) for seed in range(10, 20)}
    assert not any("H0" in expression for expression in others.values()) and len(set(others.values())) > 5
    run = next(run for name, run in which_heads.head_runs(LAPTOP, [10]) if name == "haystack: both heads, QK")
    assert run.recipe.parts == {"L0.H0.QK + L1.H0.QK": "ranked set"}
