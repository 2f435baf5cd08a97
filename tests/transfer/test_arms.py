"""The names of the usual recipes."""

from __future__ import annotations

import pytest

from mechproc.errors import ConfigError
from mechproc.transfer import (
    Noise,
    Permute,
    Recipe,
    arm,
    attention_only,
    body,
    composition,
    fresh,
    full,
    part,
    permuted,
)


def test_every_arm_has_a_name_of_its_own():
    mixed = Recipe(parts={"attn": "set", "mlp": "eca"}, embedding="mean", layernorm="donor", donor="eca")
    named = {
        "random": fresh(),
        "full (set)": full("set"),
        "full (set), permuted": permuted(full("set")),
        "full (set), positions if whole": full("set", positions="donor-if-whole"),
        "body (set)": body("set"),
        "attn (set)": attention_only("set"),
        "attn (set), permuted": permuted(attention_only("set")),
        "attn (set) + mlp (eca)": composition("set", "eca"),
        "attn (set) + mlp (eca) + mean embedding (eca) + LayerNorms (eca)": mixed,
        "body (set) + positions (set) + LayerNorms (set)": full("set").replace(embedding="random"),
        "L0.H2.QK (set), L0.H2.QK Noise(sigma=0.1)": part("L0.H2.QK", "set").replace(perturb={"L0.H2.QK": Noise(0.1)}),
        "random, embed frozen": Recipe(freeze="embed"),
        "copy embedding (set)": Recipe(embedding="copy", donor="set"),
    }
    assert {name: arm(recipe) for name, recipe in named.items()} == {name: name for name in named}


def test_permuted_permutes_all_that_is_moved():
    plain = composition("set", "eca")
    assert permuted(plain) == plain.replace(perturb={"attn": Permute(), "mlp": Permute()})


def test_permuted_needs_something_to_permute():
    with pytest.raises(ConfigError, match=r"parts = \{\} is not allowed"):
        permuted(fresh())
    with pytest.raises(ConfigError, match="perturb = "):
        permuted(permuted(full("set")))
