"""Distractors have the norms of the parts that do something, are busy, and reach no logit but through LayerNorm."""

import numpy as np
import pytest
import torch

from analyses.planted.accept import Trial
from analyses.planted.distract import fine_writer
from analyses.planted.family import families
from analyses.planted.interchange import loss, replaced
from analyses.planted.planting import plant
from analyses.planted.roles import Role


def qk_and_ov_norms(planting, part):
    """Products of the norms of W_Q and W_K, and of W_V and W_O: free of the scale of the one against the other."""
    layer, head = part[1], int(part.rpartition("H")[2])
    norm = {n: float(planting.state[f"blocks.{layer}.attn.W_{n}"][head].norm()) for n in "QKVO"}
    return np.array([norm["Q"] * norm["K"], norm["V"] * norm["O"]])


@pytest.mark.parametrize("distractors", ["ones", "junk"])
def test_heads_have_the_norms_of_the_true_one(distractors):
    planting = plant(families()["offset"](distractors=distractors, n_items=64), 0)
    (true,) = planting.parts(Role.CARRIES)
    idle = [part for part in planting.roles if part != true and "mlp" not in part]
    ratios = np.array([qk_and_ov_norms(planting, part) / qk_and_ov_norms(planting, true) for part in idle])
    assert (ratios > 0.6).all() and (ratios < 1.7).all()  # LayerNorm's gains weigh each part's axes differently
    assert np.abs(np.log(ratios).mean(0)).max() < 0.2


@pytest.mark.parametrize("kind", ["offset", "haystack", "modsum"])
def test_ones_are_exactly_inert_and_busy(kind):
    planting = plant(families()[kind](distractors="ones", n_items=128), 2)
    inert = planting.parts(Role.INERT_EXACT)
    trial = Trial(planting.model, planting.items, inert)
    before = loss(trial.logits, planting.items)
    for kind in ("zero", "resample"):
        after = loss(replaced(planting.model, planting.items, inert, trial.values[kind]), planting.items)
        assert float((after - before).abs().median()) < 1e-6
    for hook, activation in trial.own.items():
        assert float(activation.std(dim=0).mean()) > 0.05, hook


def test_junk_leaves_accuracy_and_moves_logits():
    planting = plant(families()["haystack"](distractors="junk", n_items=128), 2)
    inert = planting.parts(Role.INERT_NORM)
    trial = Trial(planting.model, planting.items, inert)
    moved = replaced(planting.model, planting.items, inert, trial.values["resample"]) - trial.logits
    scored = torch.from_numpy(planting.items.scored)
    assert trial.cost("resample", *inert) <= 0.005
    assert float(moved[scored].abs().max()) > 0.05


def test_fine_writer_has_both_norms():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(200, 12)) * np.logspace(0, -4, 12)
    writer = fine_writer(hidden, rng.normal(size=(12, 5)), 30.0)
    written = (hidden - hidden.mean(0)) @ writer
    assert np.linalg.norm(writer) == pytest.approx(30.0)
    assert (written**2).sum(1).mean() == pytest.approx(1.0, abs=0.3)


def test_a_loud_part_writes_more():
    planting = plant(families()["loud"](distractors="junk", n_items=64), 0)
    tokens = torch.from_numpy(planting.items.tokens)
    with torch.inference_mode():
        _, cache = planting.model.run_with_cache(tokens, names_filter=lambda name: name.endswith("mlp_out"))
    sizes = [float(cache[f"blocks.{i}.hook_mlp_out"][:, :-1].std(dim=0).norm(dim=-1).mean()) for i in (0, 1)]
    assert max(sizes) > 2 * min(sizes)
