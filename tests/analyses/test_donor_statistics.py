"""Statistics of models on repeated tokens and of their weights, on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses import donor_statistics, transferable
from analyses.donor_statistics import ABOUT, ATTENTION, repeated, run
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.runs.store import Store

CFG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=12, d_vocab=10)


def of(model: HookedTransformer) -> dict[str, float]:
    return dict(zip(ABOUT, run([model]).values[0].tolist(), strict=True))


def test_sequences_are_repeated_once_and_masks_point_where_they_say():
    items, masks = repeated(CFG, 5, seed=0)
    assert items.tokens.shape == (5, 12) and items.tokens.min() >= 1
    assert (items.tokens[:, :6] == items.tokens[:, 6:]).all()
    for name, offset in (("previous token", 1), ("induction", 5), ("duplicate token", 6)):
        queries, keys = np.nonzero(masks[name][0])
        assert (queries - keys == offset).all() and len(queries) == (11 if offset == 1 else 6)


def test_a_head_that_looks_at_the_token_before_is_found():
    """Positions are one-hot, and head 1 of the second layer matches each with the one before it."""
    cfg = ModelConfig(n_layers=1, n_heads=1, d_model=16, n_ctx=8, d_vocab=10, d_head=16)
    state = {name: torch.zeros_like(tensor) for name, tensor in init_state(cfg, 0).items()}
    state["pos_embed.W_pos"] = 4 * torch.eye(8, 16)
    for name in state:
        if name.endswith("ln1.w"):
            state[name] = torch.ones(16)
    state["blocks.0.attn.W_K"][0] = torch.eye(16)
    state["blocks.0.attn.W_Q"][0] = 40 * torch.diag(torch.ones(15), -1)  # position i to the key of position i - 1
    found = of(HookedTransformer(cfg, state))
    assert found["previous token"] > 0.99 > 0.5 > found["induction"]


def test_untrained_models_are_what_a_model_is_held_against():
    found = run([HookedTransformer(CFG, init_state(CFG, 0))])
    fresh = {name: next(iter(level.values())) for name, level in found.metadata["baselines"].items()}
    assert list(fresh) == sorted(ABOUT) and fresh["attention norm"] == pytest.approx(0.95, abs=0.1)
    text = str(found)
    assert "QK trace: mean of 3 untrained models" in text and f"induction: {ABOUT['induction']}." in text


def test_weights():
    state = init_state(CFG, 0)
    fresh = of(HookedTransformer(CFG, state))
    assert 0.8 < fresh["attention norm"] < 1.1 and abs(fresh["QK trace"]) < 0.6
    state["blocks.1.attn.W_K"][1] = state["blocks.1.attn.W_Q"][1]
    state["blocks.0.attn.W_O"][0] = -state["blocks.0.attn.W_V"][0].T
    like = of(HookedTransformer(CFG, state))
    assert like["QK trace"] > 0.7 and like["OV trace"] < -0.7
    assert like["QK trace"] <= 1 and like["OV trace"] >= -1
    doubled = {name: 2 * tensor if ".attn.W_" in name else tensor for name, tensor in state.items()}
    after = of(HookedTransformer(CFG, doubled))
    assert after["attention norm"] == pytest.approx(2 * like["attention norm"])
    assert after["QK stable rank"] == pytest.approx(like["QK stable rank"])


def test_attention_is_undefined_of_models_that_read_vectors():
    cfg = ModelConfig(2, 2, 8, 12, 6, input="vectors", d_input=6)
    found = run([HookedTransformer(cfg, seed=0)])
    assert found.is_undefined[:, : len(ATTENTION)].all() and np.isfinite(found.values[:, len(ATTENTION) :]).all()


def test_donors_of_the_search_are_measured_once(tmp_path, monkeypatch, tiny):
    from mechproc.studies.set_to_haystack import donor

    runs = [donor(seed, tiny) for seed in (0, 1)]
    ends = [RunAtStep(run.replace(training=run.training.replace(checkpoints_at=(4,))), 4) for run in runs]
    monkeypatch.setattr(transferable, "donors", lambda seeds: ends)
    store = Store(tmp_path)
    assert transferable.run(store) is None

    from mechproc.runs.execute import execute

    execute(ends[0].run, store)
    first = transferable.run(store)
    assert first is not None and first.coordinates["donor"] == (ends[0].identity,)
    execute(ends[1].run, store)
    monkeypatch.setattr(donor_statistics, "N_ITEMS", 8)
    both = transferable.run(store, first)
    assert both is not None and both.coordinates["donor"] == tuple(end.identity for end in ends)
    assert np.array_equal(both.values[0], first.values[0])
    assert transferable.run(store, both) is both and isinstance(ends[0].run, RunConfig)
