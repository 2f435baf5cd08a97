"""Attribution: against the exact effect where it must agree, against finite differences, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses import attribution, patching
from analyses.interventions.items import Pairs, minimal_pairs
from mechproc.errors import ConfigError, PartError

from .conftest import LOGIT, alternating, planted
from .interventions.grid import TASK, model

PAIRS = Pairs(alternating((1, 2, 6), (2, 3, 6)), alternating((3, 4, 6), (4, 1, 6)))


def by(result, method) -> np.ndarray:
    return result.select(method=method).values


@pytest.mark.parametrize("direction", ["clean_into_corrupt", "corrupt_into_clean"])
def test_where_the_score_is_linear_in_the_activation_all_three_agree(direction):
    found = attribution.run([planted()], PAIRS, direction=direction)
    for method in attribution.METHODS:  # logits are linear in z without LayerNorm
        assert by(found, method)[:, 0].tolist() == pytest.approx([2 * LOGIT, 0.0], abs=1e-4)
    assert found.metadata["clean"]["0"] == pytest.approx(LOGIT, abs=1e-4)
    assert found.metadata["corrupt"]["0"] == pytest.approx(-LOGIT, abs=1e-4)
    assert found.metadata["deviation"]["gradient"]["0"]["largest"] < 1e-4
    assert found.warnings == []


def test_exact_is_the_patching_analysis():
    ours, pairs = model("usual"), minimal_pairs(TASK, "answer", 12)
    found = attribution.run([ours], pairs, parts=["L0.H0", "L1.mlp", "embed"], n_exact=12)
    exact = patching.effect(patching.run([ours], pairs, parts=["L0.H0", "L1.mlp", "embed"]))
    np.testing.assert_allclose(by(found, "exact"), exact.values, atol=1e-12)


@pytest.mark.parametrize("metric", ["loss", "logit_diff"])
def test_gradient_is_the_slope_of_the_exact_effect(metric):
    """Between runs that hardly differ the estimate to first order is the effect."""
    ours, pairs = model("usual"), minimal_pairs(TASK, "answer", 8)
    embeddings = ours.embed.W_E.data
    embeddings.copy_(embeddings.mean(0) + 1e-5 * (embeddings - embeddings.mean(0)))
    found = attribution.run([ours], pairs, metric=metric, n_exact=8)
    exact = by(found, "exact")
    assert np.abs(exact).max() > 1e-8
    for method in ("gradient", "integrated"):
        np.testing.assert_allclose(by(found, method), exact, rtol=1e-2, atol=1e-3 * np.abs(exact).max())


def test_integrated_gradients_at_the_embeddings_add_up_to_the_difference():
    pairs = minimal_pairs(TASK, "answer", 8)
    few, many = (attribution.run([model("usual")], pairs, parts=["embed"], steps=steps, n_exact=8) for steps in (1, 64))
    assert many.metadata["completeness"]["0"] == pytest.approx(1.0, abs=1e-2)
    assert abs(few.metadata["completeness"]["0"] - 1) > abs(many.metadata["completeness"]["0"] - 1)
    difference = many.metadata["clean"]["0"] - many.metadata["corrupt"]["0"]
    assert by(many, "integrated")[0, 0] == pytest.approx(difference, rel=1e-2)
    assert by(many, "exact")[0, 0] == pytest.approx(difference, rel=1e-6)


def test_positions_add_up_for_gradients_and_are_those_of_the_patch():
    ours, pairs = model("usual"), minimal_pairs(TASK, "answer", 10)
    parts = ["L0.H1", "L1.H0.QK", "L0.mlp"]
    each = attribution.run([ours], pairs, parts=parts, positions="each", n_exact=10)
    whole = attribution.run([ours], pairs, parts=parts, n_exact=10)
    assert each.axes == ("method", "part", "position", "seed")
    for method in ("gradient", "integrated"):
        np.testing.assert_allclose(by(each, method).sum(1), by(whole, method), atol=1e-10)
    quiet = by(each, "exact")[..., 0] == 0
    assert quiet.any() and not quiet.all()
    assert (by(each, "gradient")[..., 0][quiet] == 0).all()


def test_a_saturated_softmax_is_missed_by_the_gradient_and_said_so():
    """The queries change in the pair, the pattern is saturated in both runs: the slope is zero, the effect is not."""
    ours = planted()
    ours.blocks[0].attn.W_Q.data *= 4  # sharper still
    pairs = Pairs(alternating((1, 2, 6), (2, 3, 6)), alternating((3, 4, 6), (4, 1, 6)))
    ours.pos_embed.W_pos.data[:] = 0  # the pattern then follows the tokens alone ...
    ours.blocks[0].attn.W_Q.data[0, :5] = 240 * torch.eye(6)[:5]
    ours.blocks[0].attn.W_K.data[0, :5] = torch.eye(6)[[4, 0, 1, 2, 3]]
    found = attribution.run([ours], pairs, parts=["blocks.0.attn.hook_q[:, :, 0]"], metric="loss", tokens="all")
    exact, gradient = by(found, "exact")[0, 0], by(found, "gradient")[0, 0]
    if abs(exact) > 0.1:
        assert abs(gradient) < 0.01 * abs(exact)
        assert any("gradient estimate is off" in sentence for sentence in found.warnings)
    else:
        pytest.fail(f"the example has no effect: {exact}")


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"metric": "accuracy"}, ConfigError, "metric = 'accuracy'"),
        ({"metric": lambda logits, t: logits.argmax(-1).double()}, ConfigError, "one with a gradient"),
        ({"steps": 0}, ConfigError, "steps = 0"),
        ({"n_exact": 0}, ConfigError, "n_exact = 0"),
        ({"positions": [1]}, ConfigError, "positions"),
        ({"parts": ["blocks.0.attn.hook_attn_scores"]}, PartError, "infinite scores"),
        ({"parts": []}, ConfigError, "parts"),
        ({"direction": "up"}, ConfigError, "direction = 'up'"),
    ],
)
def test_refusals(arguments, error, match):
    with pytest.raises(error, match=match):
        attribution.run([model("usual")], minimal_pairs(TASK, "answer", 6), **arguments)
