"""What recipes refuse, and that they are configs like any other."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mechproc.errors import ConfigError, MechprocError, PartError, StoreError
from mechproc.transfer import (
    Noise,
    Permute,
    Recipe,
    assemble,
    attention_only,
    check,
    composition,
    fresh,
    full,
    mlp_only,
    part,
)

SEED = 3


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (
            attention_only("set"),
            {"d_head": 4},
            r"part 'attn' from donor 'set': blocks\.0\.attn\.W_Q is \[4, 8, 4\] there and \[4, 8, 2\] in",
        ),
        (
            part("L0.H1", "set"),
            {"n_heads": 2, "d_head": 2},
            r"part 'L0\.H1' from donor 'set': blocks\.0\.attn\.W_Q is \[2, 8, 2\] there",
        ),
        (mlp_only("set"), {"d_mlp": 5}, r"blocks\.0\.mlp\.W_in is \[8, 5\] there and \[8, 6\] in this model"),
        (
            attention_only("set"),
            {"n_layers": 1},
            r"the donor has no blocks\.1\.attn\.W_Q, which is \[4, 8, 2\] in this",
        ),
        (
            attention_only("set"),
            {"n_layers": 3},
            r"it has blocks\.2\.attn\.W_Q too, this model has not; name what is meant",
        ),
        (part("embed", "set"), {}, r"embed\.W_E is \[9, 8\] there and \[12, 8\] in this model"),
        (part("unembed", "set"), {}, r"the donor has no unembed\.W_U, which is \[8, 12\]"),
        (part("ln", "set"), {"normalization_type": None}, r"the donor has no blocks\.0\.ln1\.w"),
        (
            attention_only("set"),
            {"normalization_type": None},
            r"donors\.set\.normalization_type = None is not allowed: 'LN'",
        ),
        (
            mlp_only("set"),
            {"act_fn": "relu"},
            r"donors\.set\.act_fn = 'relu' is not allowed: 'gelu_new', as in the model",
        ),
        *[
            (recipe, {"eps": 1e-3}, r"donors\.set\.eps = 0\.001 is not allowed: 1e-05, as in the model")
            for recipe in (attention_only("set"), mlp_only("set"), part("L0.H2.QK", "set"), full("set"))
        ],
        (Recipe(layernorm="donor", donor="set"), {"eps": 1e-3}, r"donors\.set\.eps = 0\.001"),
        (part("L5.attn", "set"), {}, r"'L5\.attn' is not in this model"),
        (Recipe(embedding="copy", donor="set"), {}, r"donors\.set\.d_vocab = 9 is not allowed: 12, as in the model"),
        (Recipe(embedding="mean", donor="set"), {"d_model": 16}, r"donors\.set\.d_model = 16 is not allowed: 8"),
        (Recipe(positions="donor", donor="set"), {"d_model": 16}, r"donors\.set\.d_model = 16 is not allowed: 8"),
        (
            Recipe(embedding="mean", donor="set"),
            {"tied_embeddings": False, "input": "vectors", "d_input": 9},
            r"donors\.set\.input = 'vectors' is not allowed: 'tokens', where embedding is 'mean'",
        ),
        (
            Recipe(parts={"ln": "set"}, layernorm="donor"),
            {},
            r"'ln' and 'layernorm' overlap: blocks\.0\.ln1\.w would be moved twice",
        ),
        (Recipe(parts={"attn": "set", "L0.H2": "set"}), {}, r"'attn' and 'L0\.H2' overlap: blocks\.0\.attn\.W_Q"),
        (
            Recipe(parts={"attn": "set"}, perturb={"mlp": Permute()}),
            {},
            r"perturb 'mlp': blocks\.0\.mlp\.W_in is not moved from a donor",
        ),
        (Recipe(parts={"L0.H1": "set"}, perturb={"L0.H1 + L0.H2": Permute()}), {}, r"W_Q is not moved from a donor"),
        (
            full("set").replace(perturb={"embed": Permute()}),
            {},
            r"perturb 'embed': embed\.W_E is not moved from a donor",
        ),
        (full("set").replace(perturb={"pos": Permute()}), {}, r"perturb 'pos': pos_embed\.W_pos is not moved"),
        (
            attention_only("set").replace(perturb={"attn": Permute(), "L1.H0": Noise(1.0)}),
            {},
            r"'attn' and 'L1\.H0' overlap: blocks\.1\.attn\.W_Q would be perturbed twice",
        ),
        (attention_only("set").replace(freeze="mlp + L7"), {}, r"'L7' is not in this model"),
        (
            attention_only("set").replace(freeze="all"),
            {},
            r"freeze = 'all' is not allowed: a part that leaves something",
        ),
    ],
)
def test_what_cannot_be_assembled_is_refused_before_there_are_weights(recipe, changes, message, cfg, donor_cfg):
    with pytest.raises((ConfigError, PartError), match=message) as caught:
        check(recipe, cfg, {"set": donor_cfg.replace(**changes)})
    assert "\n" not in str(caught.value)


def test_layers_can_be_named_when_the_donor_is_deeper(cfg, donor_cfg, random_state):
    deeper = donor_cfg.replace(n_layers=3)
    donor = random_state(deeper, 1)
    state = assemble(part("L0.attn + L1.attn", "set"), cfg, SEED, {"set": (deeper, donor)})
    assert torch.equal(state["blocks.1.attn.W_O"], donor["blocks.1.attn.W_O"])


def test_embeddings_that_would_lose_something_are_refused(cfg):
    copy, tied, biased = (
        Recipe(embedding="copy", donor="set"),
        cfg.replace(tied_embeddings=True),
        cfg.replace(unembed_bias=True),
    )
    with pytest.raises(ConfigError, match=r"tied_embeddings = False is not allowed: True"):
        check(copy, tied, {"set": cfg})
    with pytest.raises(ConfigError, match=r"unembed_bias = True is not allowed: False"):
        check(copy, cfg, {"set": biased})
    vectors = cfg.replace(input="vectors", d_input=5)
    check(copy, vectors, {"set": vectors})
    with pytest.raises(ConfigError, match=r"model\.input = 'vectors' is not allowed: 'tokens'"):
        check(Recipe(embedding="mean", donor="set"), vectors, {"set": cfg})


def test_two_donors_may_not_give_the_same_numbers(cfg):
    recipe = Recipe(parts={"attn": "set", "L0.H2.QK": "k-dyck"})
    with pytest.raises(PartError, match=r"'attn' and 'L0\.H2\.QK' overlap: blocks\.0\.attn\.W_Q would be moved twice"):
        check(recipe, cfg, {"set": cfg, "k-dyck": cfg})
    check(Recipe(parts={"attn - L0.H2.QK": "set", "L0.H2.QK": "k-dyck"}), cfg, {"set": cfg, "k-dyck": cfg})


def test_donors_given_are_donors_used(cfg, sets):
    with pytest.raises(ConfigError, match=r"donors = \[\] is not allowed: exactly those of the recipe, \['set'\]"):
        assemble(attention_only("set"), cfg, SEED, {})
    with pytest.raises(ConfigError, match=r"donors = \['set'\] is not allowed: exactly those of the recipe, \[\]"):
        assemble(fresh(), cfg, SEED, sets)
    donor_cfg, state = sets["set"]
    del state["blocks.1.mlp.b_in"]
    with pytest.raises(StoreError, match=r"donor 'set': tensor blocks\.1\.mlp\.b_in of shape \[6\] is missing"):
        assemble(attention_only("set"), cfg, SEED, {"set": (donor_cfg, state)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": {"attention": "set"}}, r"'attention' is not a part"),
        ({"parts": {"attn": "set"}, "perturb": {"attn +": Permute()}}, r"a word is missing"),
        ({"freeze": "atn"}, r"did you mean 'attn'"),
        ({"parts": {"attn": ""}}, r"donor = '' is not allowed"),
        ({"parts": {"attn": "set"}, "donor": "set"}, r"donor = 'set' is not allowed: None when no embedding"),
        ({"embedding": "mean"}, r"donor = None is not allowed: the one that gives embedding; parts name \[\]"),
        (
            {"parts": {"attn": "set", "mlp": "eca"}, "positions": "donor", "layernorm": "donor"},
            r"the one that gives positions and layernorm; parts name \['eca', 'set'\]",
        ),
    ],
)
def test_recipes_that_mean_nothing_are_refused_at_once(settings, message):
    with pytest.raises(MechprocError, match=message):
        Recipe(**settings)


# ---- as a config -----------------------------------------------------------------------------------------------------


def test_reads_back_from_json():
    recipe = full("set").replace(perturb={"L0.attn": Noise(0.25), "mlp": Permute()}, freeze="attn")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.to_dict()["perturb"] == {"L0.attn": {"kind": "noise", "sigma": 0.25}, "mlp": {"kind": "permute"}}
    with pytest.raises(
        ConfigError, match=r"Recipe\.embedding = 'means' is not allowed: one of 'random', 'mean', 'copy'; did"
    ):
        Recipe.from_dict({"embedding": "means"})


def test_donor_names_in_the_order_of_mention():
    assert fresh().donor_names == ()
    assert composition("set", "eca").donor_names == ("set", "eca")
    recipe = Recipe(parts={"attn": "set", "mlp": "set"}, embedding="mean", donor="k-dyck")
    assert recipe.donor_names == ("set", "k-dyck") and recipe.factor_donor == "k-dyck"
    assert full("set").factor_donor == "set" and attention_only("set").factor_donor is None


def test_a_recipe_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        fresh().embedding = "mean"  # pyright: ignore[reportAttributeAccessIssue]
