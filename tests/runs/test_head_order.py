"""Heads in the order of what they do: the same model, an identity of its own, and a record of which heads they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import select
from mechproc.model.state import init_state
from mechproc.procedures import EcaVectors, Set, Uniform
from mechproc.runs.config import RankedHeads, RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.head_order import head_order, with_heads_in_order
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor, transfer
from mechproc.transfer import part

RULE = Set(lengths=Uniform(2, 4), n_symbols=8)
TARGETS = ("previous", "source")


@pytest.fixture
def state(tiny):
    return init_state(donor(0, tiny).model, 3)


def test_the_order_is_that_of_attention_on_the_target(tiny, state):
    from analyses import attention

    cfg = donor(0, tiny).model
    order = head_order(cfg, state, RULE, TARGETS)
    items = RULE.items(256, split="validation")
    scores = attention.scores([HookedTransformer(cfg, state)], items, RULE.attention_targets(items))
    for layer, target in enumerate(TARGETS):
        expected = np.argsort(-scores.select(mask=target, layer=layer, seed=0).values)
        assert order[layer] == expected.tolist()


def test_the_model_stays_the_same_and_its_order_is_then_the_identity(tiny, state):
    cfg = donor(0, tiny).model
    order = [[1, 0], [1, 0]]
    moved = with_heads_in_order(cfg, state, order)
    tokens = torch.from_numpy(RULE.items(20).tokens)
    before, after = (HookedTransformer(cfg, each)(tokens) for each in (state, moved))
    assert torch.allclose(before, after, atol=1e-6)
    for circuit in ("QK", "OV"):
        ours, theirs = select(f"L1.H0.{circuit}", cfg).read(moved), select(f"L1.H1.{circuit}", cfg).read(state)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(moved["blocks.0.attn.b_O"], state["blocks.0.attn.b_O"])
    best = with_heads_in_order(cfg, state, head_order(cfg, state, RULE, TARGETS))
    assert head_order(cfg, best, RULE, TARGETS) == [[0, 1], [0, 1]]
    with pytest.raises(ConfigError, match="order of layer 0"):
        with_heads_in_order(cfg, state, [[0, 0], [0, 1]])


def test_a_run_from_ranked_heads_keeps_which_they_were(tiny, tmp_path):
    source = RankedHeads(donor(0, tiny), TARGETS)
    base = transfer("random", 0, tiny)
    run = base.replace(recipe=part("L0.H0 + L1.H0", "set"), donors={"set": source})
    assert [needed.identity for needed in run.with_donors()] == [source.run.identity, run.identity]
    assert RunConfig.from_dict(run.to_dict()).identity == run.identity
    store = Store(tmp_path / "runs", tmp_path / "records")
    for needed in run.with_donors():
        execute(needed, store)
    order = source.order(store)
    assert store.test(run)["head_order"] == {"set": order}
    start, whole = store.checkpoint(run, 0)[1], store.model(source.run)[1]
    for layer, heads in enumerate(order):
        name = f"blocks.{layer}.attn.W_Q"
        assert torch.equal(start[name][0], whole[name][heads[0]])
        assert not torch.equal(start[name][1], whole[name][heads[1]])


def test_identity_follows_run_and_targets(tiny):
    one, other = RankedHeads(donor(0, tiny), TARGETS), RankedHeads(donor(0, tiny), ("source", "previous"))
    assert len({one.identity, other.identity, one.run.identity, RankedHeads(donor(1, tiny), TARGETS).identity}) == 4
    assert one.label == "set, seed 0, heads by previous, source" and one.seed == 0


def test_unknown_targets_are_refused_before_anything_runs(tiny):
    with pytest.raises(ConfigError, match="did you mean 'previous'"):
        RankedHeads(donor(0, tiny), ("previos", "source"))
    with pytest.raises(ConfigError, match="one for each of the 2 layers"):
        RankedHeads(donor(0, tiny), ("previous",))


def test_models_that_read_vectors_can_be_ordered():
    rule = EcaVectors(width=8, lengths=Uniform(2, 3))
    from mechproc.studies.shape import Shape

    cfg = Shape(n_layers=1, n_heads=2, d_model=8).model_for(rule)
    target = next(iter(rule.attention_target_names))
    assert sorted(head_order(cfg, init_state(cfg, 0), rule, (target,))[0]) == [0, 1]
