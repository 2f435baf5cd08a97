"""Exact Shapley values of parts, and how alike kinds of ablation rank them."""

from __future__ import annotations

import numpy as np
import pytest

from analyses import ablation
from mechproc.errors import ConfigError, PartError
from mechproc.result import Result

from ..conftest import LOGIT, alternating, planted
from ..interventions.grid import TASK, model

ITEMS = alternating((1, 2, 6), (2, 3, 6), (3, 4, 6), (4, 1, 6))


def right_logit(logits, tokens):
    """Linear in the residual stream, as there is no LayerNorm."""
    return logits.gather(-1, tokens.targets[:, None])[:, 0]


def twins():
    """Both heads copy, so that either is enough for the right answer."""
    ours = planted()
    for name in "QKVO":
        weight = getattr(ours.blocks[0].attn, f"W_{name}").data
        weight[1] = weight[0]
    return ours


def test_twins_share_what_neither_shows_alone():
    found = ablation.shapley([twins()], ITEMS, ["L0.H0", "L0.H1"], "zero", "accuracy")
    assert found.values[:, 0].tolist() == [0.5, 0.5]
    assert found.metadata["alone"] == {"L0.H0": {"0": 0.0}, "L0.H1": {"0": 0.0}}
    assert found.metadata["together"] == {"0": 1.0} and found.metadata["n_coalitions"] == 4


def test_of_a_linear_score_it_is_what_each_costs_alone():
    found = ablation.shapley([planted()], ITEMS, ["L0.H0", "L0.H1", "embed"], "zero", right_logit)
    assert found.metadata["alone"]["L0.H0"]["0"] == pytest.approx(LOGIT)
    assert found.values[1, 0] == pytest.approx(0.0, abs=1e-6)
    # Without its embeddings the head has nothing to copy: the two need each other and share alike.
    assert found.values[[0, 2], 0].tolist() == pytest.approx([LOGIT / 2, LOGIT / 2], abs=1e-5)


def test_values_add_up_in_every_seed():
    models = {3: model("usual", 1), 4: model("usual", 2)}
    parts = ["L0.attn", "L0.mlp", "L1.attn", "L1.mlp"]
    found = ablation.shapley(models, TASK, n_items=60)
    together = [found.metadata["together"][str(seed)] for seed in (3, 4)]
    np.testing.assert_allclose(found.values.sum(0), together, atol=1e-10)
    whole = ablation.run(models, TASK, [" + ".join(parts)], "mean", "loss", n_items=60)
    np.testing.assert_allclose(whole.values[0], together, atol=1e-10)
    assert found.coordinates["part"] == tuple(parts) and found.unit == "nats"
    both, alone = found.metadata["sentences"]
    assert both.startswith(f"All of them cost together {min(together):.4g} nats to {max(together):.4g} nats")
    assert alone.startswith("Each alone costs L0.attn ")


def test_players_that_overlap_or_are_too_many_are_refused():
    with pytest.raises(PartError, match=r"'L0\.H1' and 'L0\.attn' overlap"):
        ablation.shapley([model("usual")], TASK, ["L0.attn", "L0.H1"], n_items=20)
    with pytest.raises(ConfigError, match="1 to 10 parts, each once"):
        ablation.shapley([model("usual")], TASK, [f"L0.mlp.N{n}" for n in range(11)], n_items=20)


def test_kinds_agree_as_far_as_they_rank_parts_alike():
    kinds, parts = ["zero", "mean", "resample"], ["a", "b", "c", "d"]
    values = np.array([[4.0, 3, 2, 1], [40.0, 30, 20, 10], [1.0, 2, 3, np.nan]])[..., None]
    compared = Result(
        "loss gained", values, ("ablation", "part", "seed"), {"ablation": kinds, "part": parts, "seed": [7]}, "nats",
        "positive: it hurts", "x", undefined=[({"ablation": "resample", "part": "d"}, "no reason")],
    )  # fmt: skip
    found = ablation.agreement(compared)
    of = lambda a, b: float(found.select(first=a, second=b, seed=7).values)  # noqa: E731
    assert of("zero", "mean") == pytest.approx(1.0) and of("zero", "resample") == pytest.approx(-1.0)
    flat = ablation.agreement(compared.select(part=["a", "b"]))
    assert np.isnan(flat.values).all() and not flat.is_missing.any()
    real = ablation.compare([model("usual")], TASK, ["L0.H0", "L0.mlp", "L1.mlp"], metric="loss", n_items=60)
    assert np.isfinite(ablation.agreement(real).values).all()
