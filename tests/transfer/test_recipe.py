"""What each recipe assembles, tensor by tensor."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.forward import forward
from mechproc.model.parts import select
from mechproc.model.state import init_state, tensor_shapes
from mechproc.transfer import (
    Noise,
    Permute,
    Recipe,
    Spectrum,
    assemble,
    attention_only,
    composition,
    fresh,
    frozen,
    full,
    mlp_only,
    part,
    permuted,
)

SEED = 3
ATTENTION = ("W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O", "b_O")
MLP = ("W_in", "b_in", "W_out", "b_out")


def names(*kinds: str) -> set[str]:
    """The tensors of both layers' attention, MLPs or LayerNorms, spelled out."""
    groups = {
        "attn": {f"blocks.{layer}.attn.{name}" for layer in (0, 1) for name in ATTENTION},
        "mlp": {f"blocks.{layer}.mlp.{name}" for layer in (0, 1) for name in MLP},
        "ln": {
            f"{ln}.{v}"
            for ln in ("blocks.0.ln1", "blocks.0.ln2", "blocks.1.ln1", "blocks.1.ln2", "ln_final")
            for v in "wb"
        },
    }
    return set().union(*(groups[kind] for kind in kinds))


def origin(state, donors, cfg):
    """Where each tensor comes from: ``"fresh"``, a donor's name, or ``"neither"``."""
    sources = {"fresh": init_state(cfg, SEED), **donors}
    return {
        name: next((s for s, other in sources.items() if name in other and torch.equal(other[name], tensor)), "neither")
        for name, tensor in state.items()
    }


def test_fresh_is_the_initialisation(cfg):
    state, expected = assemble(fresh(), cfg, SEED, {}), init_state(cfg, SEED)
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("recipe", "moved"), [(attention_only("set"), names("attn")), (mlp_only("set"), names("mlp"))])
def test_one_kind_of_module_moves_and_the_rest_is_the_same_fresh_start(recipe, moved, cfg, sets):
    state = assemble(recipe, cfg, SEED, sets)
    assert list(state) == list(tensor_shapes(cfg))
    assert origin(state, {"set": sets["set"][1]}, cfg) == {name: "set" if name in moved else "fresh" for name in state}


def test_composition_takes_each_from_its_own(cfg, donor_cfg, random_state):
    attention, mlps = random_state(donor_cfg, 1), random_state(donor_cfg, 2)
    donors = {"set": (donor_cfg, attention), "eca": (donor_cfg, mlps)}
    found = origin(assemble(composition("set", "eca"), cfg, SEED, donors), {"set": attention, "eca": mlps}, cfg)
    expected = {name: "set" if name in names("attn") else "eca" if name in names("mlp") else "fresh" for name in found}
    assert found == expected


def test_full_moves_the_body_layernorms_positions_and_the_mean_embedding(cfg, sets):
    state, donor = assemble(full("set"), cfg, SEED, sets), sets["set"][1]
    found = origin(state, {"set": donor}, cfg)
    assert {name for name, source in found.items() if source == "set"} == names("attn", "mlp", "ln")
    mean = np.array([column.mean() for column in donor["embed.W_E"].double().numpy().T], dtype=np.float32)
    np.testing.assert_array_equal(state["embed.W_E"].numpy(), np.tile(mean, (12, 1)))
    np.testing.assert_array_equal(state["unembed.W_U"].numpy(), np.tile(mean[:, None], (1, 12)))
    assert torch.equal(state["pos_embed.W_pos"][:7], donor["pos_embed.W_pos"])
    assert torch.equal(state["pos_embed.W_pos"][7:], init_state(cfg, SEED)["pos_embed.W_pos"][7:])


def test_full_starts_with_equal_logits_and_no_gradient_in_the_body(cfg, sets):
    leaves = {name: tensor.requires_grad_() for name, tensor in assemble(full("set"), cfg, SEED, sets).items()}
    inputs = torch.tensor([[1, 5, 2, 9], [4, 3, 3, 11]])
    logits = forward(leaves, cfg, inputs)
    assert (logits.amax(-1) - logits.amin(-1)).max() < 1e-6
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs.roll(-1, 1).flatten()).backward()
    assert max(leaves[name].grad.abs().max() for name in names("attn", "mlp")) < 1e-7
    assert leaves["unembed.W_U"].grad.abs().max() > 1e-2


def test_the_mean_of_an_untied_donor_is_taken_on_either_side(cfg, donor_cfg, random_state):
    untied = donor_cfg.replace(tied_embeddings=False)
    donor = random_state(untied, 1)
    state = assemble(Recipe(embedding="mean", donor="set"), cfg, SEED, {"set": (untied, donor)})
    torch.testing.assert_close(state["embed.W_E"], donor["embed.W_E"].mean(0).repeat(12, 1))
    torch.testing.assert_close(state["unembed.W_U"], donor["unembed.W_U"].mean(1)[:, None].repeat(1, 12))
    assert not torch.allclose(state["unembed.W_U"][:, 0], state["embed.W_E"][0])
    rest = origin(state, {"set": donor}, cfg)
    assert {name for name, source in rest.items() if source != "fresh"} == {"embed.W_E", "unembed.W_U"}


@pytest.mark.parametrize("tied", [True, False], ids=["tied donor", "untied donor"])
def test_copy_takes_both_embeddings(tied, cfg, random_state):
    donor_cfg = cfg.replace(tied_embeddings=tied)
    donor = random_state(donor_cfg, 1)
    state = assemble(Recipe(embedding="copy", donor="set"), cfg, SEED, {"set": (donor_cfg, donor)})
    assert torch.equal(state["embed.W_E"], donor["embed.W_E"])
    assert torch.equal(state["unembed.W_U"], donor["embed.W_E"].T if tied else donor["unembed.W_U"])


def test_copy_takes_the_bias_of_the_unembedding(cfg, random_state):
    biased = cfg.replace(unembed_bias=True)
    donor, unbiased = random_state(biased, 1), random_state(cfg, 2)
    copy = Recipe(embedding="copy", donor="set")
    assert torch.equal(assemble(copy, biased, SEED, {"set": (biased, donor)})["unembed.b_U"], donor["unembed.b_U"])
    assert (assemble(copy, biased, SEED, {"set": (cfg, unbiased)})["unembed.b_U"] == 0).all()


def test_a_tied_model_gets_one_embedding(cfg, sets):
    tied = cfg.replace(tied_embeddings=True)
    state, donor = assemble(full("set"), tied, SEED, sets), sets["set"][1]
    assert "unembed.W_U" not in state
    torch.testing.assert_close(state["embed.W_E"], donor["embed.W_E"].mean(0).repeat(12, 1))


def test_longer_donors_give_their_first_positions(cfg, donor_cfg, random_state):
    longer = donor_cfg.replace(n_ctx=15)
    donor = random_state(longer, 1)
    state = assemble(Recipe(positions="donor", donor="set"), cfg, SEED, {"set": (longer, donor)})
    assert torch.equal(state["pos_embed.W_pos"], donor["pos_embed.W_pos"][:10])


@pytest.mark.parametrize(("n_ctx", "moved"), [(7, False), (9, False), (10, True), (15, True)])
def test_the_authors_move_positions_only_when_the_donor_has_them_all(n_ctx, moved, cfg, donor_cfg, random_state):
    there = donor_cfg.replace(n_ctx=n_ctx)
    donor = random_state(there, 1)
    recipe = full("set", positions="donor-if-whole")
    state = assemble(recipe, cfg, SEED, {"set": (there, donor)})
    expected = donor["pos_embed.W_pos"][:10] if moved else init_state(cfg, SEED)["pos_embed.W_pos"]
    assert torch.equal(state["pos_embed.W_pos"], expected)


def test_factors_come_one_by_one(cfg, sets):
    donor = sets["set"][1]
    for change, moved in [({"layernorm": "donor"}, names("ln")), ({"positions": "donor"}, {"pos_embed.W_pos"})]:
        state = assemble(attention_only("set").replace(**change), cfg, SEED, sets)
        found = origin(state, {"set": donor}, cfg)
        assert {name for name, source in found.items() if source != "fresh"} == names("attn") | moved


def test_any_part_moves_alone(cfg, sets):
    state, donor, start = assemble(part("L1.H2.QK", "set"), cfg, SEED, sets), sets["set"][1], init_state(cfg, SEED)
    for name, tensor in state.items():
        if name in {f"blocks.1.attn.{t}" for t in ("W_Q", "b_Q", "W_K", "b_K")}:
            assert torch.equal(tensor[2], donor[name][2])
            assert torch.equal(tensor[[0, 1, 3]], start[name][[0, 1, 3]])
        else:
            assert torch.equal(tensor, start[name]), name


def test_donors_are_neither_changed_nor_shared(cfg, random_state):
    donor = random_state(cfg, 1)
    before = {name: tensor.clone() for name, tensor in donor.items()}
    everything = [
        permuted(part("all", "set")),
        Recipe(parts={"body": "set"}, embedding="copy", positions="donor", layernorm="donor"),
    ]
    for recipe in everything:
        for tensor in assemble(recipe, cfg, SEED, {"set": (cfg, donor)}).values():
            tensor.fill_(9.0)
        assert all(torch.equal(donor[name], before[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("recipe", [Recipe(donor="d", positions="donor"), Recipe(donor="d", embedding="mean")])
def test_a_donor_in_another_precision_is_refused_rather_than_rounded(recipe, dtype, cfg, donor_cfg, random_state):
    other = {name: tensor.to(dtype) for name, tensor in random_state(donor_cfg).items()}
    with pytest.raises(ConfigError, match=f"dtype of donor 'd' = {dtype} is not allowed"):
        assemble(recipe, cfg, SEED, {"d": (donor_cfg, other)})


def test_all_is_the_donor_itself(cfg, random_state):
    donor = random_state(cfg, 1)
    state = assemble(part("all", "set"), cfg, SEED, {"set": (cfg, donor)})
    assert all(torch.equal(state[name], donor[name]) for name in tensor_shapes(cfg))


# ---- perturbations, freezing -----------------------------------------------------------------------------------------


def test_the_permuted_control_differs_in_arrangement_alone(cfg, sets):
    plain, control = (assemble(recipe, cfg, SEED, sets) for recipe in (full("set"), permuted(full("set"))))
    for name, tensor in plain.items():
        if name in names("mlp") or name.endswith("b_O"):
            assert torch.equal(control[name].flatten().sort().values, tensor.flatten().sort().values), name
        elif name in names("attn"):
            for head in range(4):
                assert torch.equal(control[name][head].flatten().sort().values, tensor[head].flatten().sort().values)
        else:
            assert torch.equal(control[name], tensor), name
    moved = sum(int((control[name] != plain[name]).sum()) for name in plain)
    assert moved > 0.7 * select("body", cfg).n_parameters


def test_the_seed_decides_the_perturbation_and_the_fresh_start(cfg, sets):
    one, same, other = (assemble(permuted(attention_only("set")), cfg, seed, sets) for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.0.attn.W_Q"], other["blocks.0.attn.W_Q"])
    assert not torch.equal(one["embed.W_E"], other["embed.W_E"])


def test_perturbing_some_of_what_moves_leaves_the_rest(cfg, sets):
    recipe = attention_only("set").replace(perturb={"L0.H1.OV": Noise(0.1), "L1.attn": Spectrum()})
    plain, changed = (assemble(r, cfg, SEED, sets) for r in (attention_only("set"), recipe))
    different = {name for name in plain if not torch.equal(plain[name], changed[name])}
    assert different == {f"blocks.1.attn.{t}" for t in ATTENTION} | {
        f"blocks.0.attn.{t}" for t in ("W_V", "b_V", "W_O")
    }
    assert torch.equal(plain["blocks.0.attn.W_V"][[0, 2, 3]], changed["blocks.0.attn.W_V"][[0, 2, 3]])


def test_copied_embeddings_and_whole_positions_can_be_perturbed(cfg, random_state):
    recipe = Recipe(
        embedding="copy", positions="donor", layernorm="donor", donor="set",
        perturb={"embed + unembed": Permute(), "pos": Permute(), "ln": Permute()},
    )  # fmt: skip
    donor = random_state(cfg, 1)
    state = assemble(recipe, cfg, SEED, {"set": (cfg, donor)})
    for name in ("embed.W_E", "unembed.W_U", "pos_embed.W_pos", "ln_final.w"):
        assert not torch.equal(state[name], donor[name])
        assert torch.equal(state[name].flatten().sort().values, donor[name].flatten().sort().values)


def test_what_is_frozen_is_a_mask_of_the_model(cfg):
    assert frozen(fresh(), cfg) == {}
    masks = frozen(Recipe(freeze="L0.H2.OV + embed"), cfg)
    assert set(masks) == {"embed.W_E", "blocks.0.attn.W_V", "blocks.0.attn.b_V", "blocks.0.attn.W_O"}
    assert masks["embed.W_E"].all() and masks["embed.W_E"].shape == (12, 8)
    assert masks["blocks.0.attn.b_V"].tolist() == [[head == 2] * 2 for head in range(4)]
