"""Every analysis has a figure, whose caption says the direction, the seeds and what is not shown."""

from __future__ import annotations

import numpy as np
import pytest

from analyses import ANALYSES, figures
from analyses.registry import function
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.result import Result
from mechproc.studies.transfer_map import PLAYERS

from .interventions.grid import TASK

CFG = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
MODELS = {seed: HookedTransformer(CFG, init_state(CFG, seed)) for seed in (3, 4)}
STARTS = {seed: HookedTransformer(CFG, init_state(CFG, 9 + seed)) for seed in MODELS}
GROUPS = {"a": MODELS, "b": STARTS}
FEW = {"n_items": 4}
PAIRED = {"pair": "answer", **FEW}


def on_rule(name, **settings):
    return lambda: function(name)(MODELS, TASK, **settings)


MADE = {
    "ablation": on_rule("ablation", **FEW),
    "ablation-kinds": on_rule("ablation-kinds", ablations=["zero", "mean"], parts=["L0.H0", "L0.attn"], **FEW),
    "ablation-pairs": on_rule("ablation-pairs", **FEW),
    "ablation-shapley": on_rule("ablation-shapley", parts=["L0.attn", "L0.mlp"], **FEW),
    "attention": on_rule("attention", n_untrained=1, **FEW),
    "attention-entropy": on_rule("attention-entropy", n_untrained=1, **FEW),
    "attention-compare": lambda: function("attention-compare")(GROUPS, {"a": TASK}, n_untrained=1, **FEW),
    "patching": on_rule("patching", positions="each", **PAIRED),
    "attribution": on_rule("attribution", steps=1, **PAIRED),
    "logits": on_rule("logits", **PAIRED),
    "logit-lens": on_rule("logit-lens", **FEW),
    "path-patching": on_rule("path-patching", **PAIRED),
    "circuit": on_rule("circuit", threshold=1e-9, **PAIRED),
    "circuit-functions": lambda: function("circuit-functions")(
        GROUPS, dict.fromkeys(GROUPS, TASK), ["answer"], threshold=1e-9, **FEW
    ),
    "circuit-map": lambda: function("circuit-map")(MODELS[3], TASK, "answer", threshold=1e-9, **FEW),
    "probing": on_rule("probing", latents=["answer"], sites=["L0.attn"], n_items=60),
    "probing-causal": on_rule("probing-causal", latents=["answer"], sites=["L0.attn"], n_items=60, n_controls=1),
    "spectrum": lambda: function("spectrum")(MODELS),
    "weight-circuit": lambda: function("weight-circuit")(MODELS[3], "L0.H0.OV"),
    "composition": lambda: function("composition")(MODELS, n_random=2),
    "principal-angles": lambda: function("principal-angles")({3: wide()}),
    "weight-change": lambda: function("weight-change")(MODELS, STARTS),
    "compare-weights": lambda: function("compare-weights")(GROUPS),
    "weight-distances": lambda: function("weight-distances")(GROUPS),
    "loss-barriers": lambda: function("loss-barriers")(GROUPS, dict.fromkeys(GROUPS, TASK), points=3, **FEW),
    "donor-statistics": lambda: function("donor-statistics")(MODELS, **FEW),
    "over-training": lambda: table(measure=["accuracy"], step=[0, 10], seed=[3, 4]),
    "transfer-map": lambda: table(map=["alone", "removed"], part=list(PLAYERS), seed=[3, 4]),
    "agreement": lambda: table(
        {"p": {"ablation": 0.2}, "n_parts": {"ablation": {"set": 6}}, "describes": {"target": "x", "ablation": "y"}},
        map=["ablation", "probing"], case=["set"],
    ),
}  # fmt: skip


def wide() -> HookedTransformer:
    """A model of two layers, whose heads span half of the residual stream."""
    cfg = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
    return HookedTransformer(cfg, init_state(cfg, 0))


def table(metadata=None, **axes) -> Result:
    """A Result of the axes of an analysis whose runs take too long here."""
    values = np.linspace(-1, 1, int(np.prod([len(labels) for labels in axes.values()])))
    values = values.reshape([len(labels) for labels in axes.values()])
    return Result("made", values, tuple(axes), axes, "nats", "higher: more", "anything else", metadata=metadata or {})


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_has_a_figure_with_a_caption(name):
    found = MADE[name]()
    drawn = figures.figures_of(found)
    assert drawn
    for figure in drawn:
        caption = figure.layout.meta["caption"]
        assert f"Does not show: {found.what_it_does_not_show.rstrip('.')}" in caption
        assert found.direction[1:].rstrip(".") in caption
        assert any(word in caption for word in ("seed", "one model", "One model", "Models:", "pair", "case")), caption
        assert len(figure.data) > 0


def test_a_result_that_nothing_draws_has_none():
    assert figures.figures_of(table(colour=["red"])) == []
