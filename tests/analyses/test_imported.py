"""The analyses on models that came from elsewhere: they say of a copy what they say of the original."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

from analyses import ablation, attention
from mechproc.cli import main
from mechproc.model.convert.bridge import from_bridge, to_bridge
from mechproc.model.hooked import HookedTransformer
from mechproc.model.io import load_model
from mechproc.model.parts import Ablation
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

from .conftest import alternating, planted

TASK = Haystack(lengths=Uniform(2, 3), n_keys=4, n_values=5)


def gpt2(tmp_path) -> HookedTransformer:
    """A small random GPT-2 of ``transformers``, through its folder and ``mechproc model import``."""
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=8, n_positions=TASK.n_ctx, vocab_size=TASK.d_vocab, initializer_range=0.5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "theirs")
    assert main(["model", "import", str(tmp_path / "theirs"), str(tmp_path / "ours.safetensors")]) == 0
    return HookedTransformer(*load_model(tmp_path / "ours.safetensors")[:2])


def native(tmp_path) -> HookedTransformer:
    """A small random model of TransformerLens."""
    cfg = TransformerBridgeConfig(
        n_layers=2, n_heads=2, d_model=8, d_head=4, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab, act_fn="gelu", seed=0
    )
    return HookedTransformer(*from_bridge(TransformerBridge.boot_native(cfg, device="cpu")))


@pytest.mark.parametrize("make", [gpt2, native])
def test_every_analysis_runs(make, tmp_path):
    model = make(tmp_path)
    lost = ablation.run([model], TASK, ablation=Ablation.MEAN, metric="loss", n_items=64)
    assert lost.axes == ("part", "seed") and len(lost.coordinates["part"]) == 6
    assert np.isfinite(lost.values).all() and (lost.values != 0).all()
    compared = ablation.compare([model], TASK, n_items=64)
    assert not np.isnan(compared.select(ablation="mean", part="L1.H0").values).any()
    items = TASK.items(8, seed=0, split="test")
    patterns = attention.patterns(model, items)
    sums = patterns.values.sum(-1)
    np.testing.assert_allclose(sums[~np.isnan(sums)], 1.0, atol=1e-5)
    scores = attention.scores([model], items, TASK.attention_targets(items))
    assert np.isfinite(scores.values).all()


def test_a_model_that_went_to_transformer_lens_and_back_is_described_as_before():
    before = planted(previous=1)
    items = alternating((1, 2, 6), (2, 3, 6), (3, 4, 6), (1, 3, 6))
    after = HookedTransformer(*from_bridge(to_bridge(before.cfg, before.state())))
    for kind in (Ablation.ZERO, Ablation.RESAMPLE):
        ours, theirs = (ablation.run([m], items, ablation=kind, metric="loss") for m in (before, after))
        np.testing.assert_array_equal(ours.values, theirs.values)
        assert ours.select(part="L0.H1", seed=0).values > 1 > abs(ours.select(part="L0.H0", seed=0).values)
    np.testing.assert_array_equal(attention.patterns(before, items).values, attention.patterns(after, items).values)
