"""Every analysis that intervenes holds its tool to the hooked model first, and stops where a fault is put into it."""

from __future__ import annotations

import pytest

from analyses import ablation, attribution, circuit, logits, patching, path_patching, probing
from analyses.interventions.patch import Patch
from analyses.interventions.trace import Weights

from .interventions.grid import TASK, model

FEW = {"n_items": 8}
PAIRED = {"pair": "answer", **FEW}
ANALYSES = {
    "ablation": lambda models: ablation.run(models, TASK, ablation="zero", **FEW),
    "kinds": lambda models: ablation.compare(models, TASK, ["L0.H0"], ["zero"], **FEW),
    "pairs of parts": lambda models: ablation.pairs(models, TASK, ["L0.H0", "L1.H1"], **FEW),
    "shapley": lambda models: ablation.shapley(models, TASK, ["L0.attn", "L1.attn"], "zero", **FEW),
    "patching": lambda models: patching.run(models, TASK, **PAIRED),
    "attribution": lambda models: attribution.run(models, TASK, **PAIRED),
    "probe directions": lambda models: probing.causal_effect(models, TASK, ["answer"], ["L0.attn"], n_items=60),
    "attribution of logits": lambda models: logits.run(models, TASK, **PAIRED),
    "logit lens": lambda models: logits.lens(models, TASK, **FEW),
    "path patching": lambda models: path_patching.run(models, TASK, senders=["embed"], receivers=["logits"], **PAIRED),
    "circuit": lambda models: circuit.run(models, TASK, threshold=1e9, **PAIRED),
}
WITHOUT_PATCHES = ("attribution of logits", "logit lens", "path patching", "circuit")
"""These replace no activation of the hooked model."""


@pytest.mark.parametrize("name", ANALYSES)
def test_a_forward_pass_that_is_off_is_noticed(name, monkeypatch):
    right = Weights.act
    monkeypatch.setattr(Weights, "act", lambda weights, pre: 1.01 * right(weights, pre))
    with pytest.raises(RuntimeError, match=r"differs from the hooked model by .* do not trust"):
        ANALYSES[name]([model("usual")])


@pytest.mark.parametrize("name", [name for name in ANALYSES if name not in WITHOUT_PATCHES])
def test_a_patch_that_is_off_is_noticed(name, monkeypatch):
    right = Patch.applied
    monkeypatch.setattr(Patch, "applied", lambda patch, activation: right(patch, activation) + 1e-3)
    with pytest.raises(RuntimeError, match="replacing the activation by itself changed the logits"):
        ANALYSES[name]([model("usual")])
