"""Path patching: a model worked out by hand, a hooked run for each edge, and TransformerLens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformer_lens import patching
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from analyses import path_patching
from analyses.interventions.edges import Edge, receivers, senders
from analyses.interventions.items import Pairs, minimal_pairs
from mechproc.errors import ConfigError, PartError
from mechproc.procedures import get

from .conftest import LOGIT, alternating, planted
from .interventions.grid import TASK, VECTORS, items, model
from .interventions.replica import Replica

HAND = Pairs(alternating((1, 2, 6), (2, 3, 6)), alternating((4, 2, 6), (2, 1, 6)))
"""Every other token changes, and with it every other answer."""


def cell(result, sender, receiver, **labels):
    return float(result.select(sender=sender, receiver=receiver, seed=0, **labels).values)


def logit_diff(logits, pairs):
    """Mean over the scored tokens, which are one for each pair."""
    item, position = np.nonzero(pairs.clean.scored)
    right, other = (torch.from_numpy(block.targets[item, position]) for block in (pairs.clean, pairs.corrupt))
    rows = logits[item, position]
    return (rows.gather(1, right[:, None]) - rows.gather(1, other[:, None]))[:, 0].mean()


@pytest.mark.parametrize("direction", path_patching.DIRECTIONS)
def test_a_copying_head_by_hand(direction):
    result = path_patching.run([planted()], HAND, direction=direction)
    # The token that is copied reaches the logits through the head's values, and in no other way.
    for sender, receiver in [("embed", "L0.H0.v"), ("L0.H0", "logits")]:
        assert cell(result, sender, receiver) == pytest.approx(2 * LOGIT)
    others = result.table().query("not (sender == 'embed' and receiver == 'L0.H0.v')")
    others = others.query("not (sender == 'L0.H0' and receiver == 'logits')").dropna()
    assert np.abs(others.value).max() == 0.0
    assert result.metadata["clean"] == {"0": pytest.approx(LOGIT)}
    assert result.metadata["corrupt"] == {"0": pytest.approx(-LOGIT)}
    assert result.metadata["all_senders"]["logits"]["0"] == pytest.approx(2 * LOGIT)
    assert result.metadata["n_scored_tokens"] == 4  # two of the four scored tokens of each item have another answer


def test_tokens_that_count():
    changed, unchanged, every = (
        path_patching.run([planted()], HAND, metric="loss", tokens=tokens) for tokens in ("changed", "unchanged", "all")
    )
    assert cell(changed, "L0.H0", "logits") == pytest.approx(LOGIT)
    assert cell(unchanged, "L0.H0", "logits") == pytest.approx(0, abs=1e-12)
    assert cell(every, "L0.H0", "logits") == pytest.approx(LOGIT / 2)


def test_positions_and_items():
    # item 0 changes at positions 0, 2 and 4, item 1 at 1, 3 and 5; the last of each is not read
    at_copied = path_patching.run([planted()], HAND, positions=[[0, 2], [1, 3]], by_item=True)
    assert cell(at_copied, "embed", "L0.H0.v", item=0) == pytest.approx(2 * LOGIT)
    assert cell(at_copied, "embed", "L0.H0.v", item=1) == pytest.approx(2 * LOGIT)
    elsewhere = path_patching.run([planted()], HAND, positions=[1], by_item=True)
    assert cell(elsewhere, "embed", "L0.H0.v", item=0) == 0.0
    assert cell(elsewhere, "embed", "L0.H0.v", item=1) == pytest.approx(LOGIT)  # one of its two tokens


@pytest.mark.parametrize("direction", path_patching.DIRECTIONS)
def test_every_edge_agrees_with_its_own_hooked_run(direction):
    ours, pairs = model("usual", dtype=torch.float32), minimal_pairs(TASK, "query", 6)
    result = path_patching.run([ours], pairs, direction=direction)
    runs = (pairs.clean, pairs.corrupt) if direction == "corrupt_into_clean" else (pairs.corrupt, pairs.clean)
    replica, effects = Replica(ours, *runs), []
    with torch.inference_mode():
        base = logit_diff(replica.model(replica.inputs), pairs)
        for receiver in receivers(ours.cfg):
            for sender in senders(ours.cfg, receiver):
                change = logit_diff(replica(Edge(sender, receiver)), pairs) - base
                effects.append(float(change if direction == "clean_into_corrupt" else -change))
                assert cell(result, sender, receiver) == pytest.approx(effects[-1], abs=1e-5)
    assert np.std(effects) > 0.01


@pytest.mark.parametrize("which", "qkv")
def test_agrees_with_transformer_lens_between_heads(which):
    """TransformerLens patches the clean contribution of a head into a later head, in the corrupt run."""
    ours, pairs = model("three layers", dtype=torch.float32), minimal_pairs(TASK, "query", 8)
    result = path_patching.run([ours], pairs, direction="clean_into_corrupt")
    tokens = [torch.from_numpy(block.tokens) for block in (pairs.clean, pairs.corrupt)]
    clean, corrupt = (ours.run_with_cache(t)[1] for t in tokens)
    with torch.no_grad():
        base = logit_diff(ours(tokens[1]), pairs)
        for layer, head in [(0, 1), (1, 0)]:
            grid = patching.get_act_patch_direct_path(
                ours, tokens[1], clean, corrupt, lambda x: logit_diff(x, pairs), layer, head, which, verbose=False
            )
            for later in range(layer + 1, 3):
                for reader in range(2):
                    expected = float(grid[later, reader] - base)
                    found = cell(result, f"L{layer}.H{head}", f"L{later}.H{reader}.{which}")
                    assert found == pytest.approx(expected, abs=1e-5)
            assert float((grid[layer + 1 :] - base).abs().max()) > 1e-4


def test_transformer_lens_own_model_has_no_path_patching():
    """What the comparison above runs on is our model: its own small one lacks the split inputs."""
    cfg = TransformerBridgeConfig(
        d_model=8, d_head=4, n_layers=2, n_ctx=6, n_heads=2, d_vocab=5, d_mlp=16, act_fn="gelu_new",
        normalization_type="LN",
    )  # fmt: skip
    bridge = TransformerBridge.boot_native(cfg, device="cpu").eval()
    tokens = torch.zeros((1, 4), dtype=torch.int64)
    cache = bridge.run_with_cache(tokens)[1]
    with pytest.raises(NotImplementedError):
        patching.get_act_patch_direct_path(bridge, tokens, cache, cache, lambda x: x.sum(), 0, 0, "q", verbose=False)


def test_axes_and_cells_that_mean_nothing():
    ours = model("usual", dtype=torch.float32)
    result = path_patching.run({3: ours, 5: ours}, TASK, "answer", ["embed", "L1.H0"], ["L1.mlp", "L0.H1.k"], n_items=8)
    assert result.axes == ("sender", "receiver", "seed")
    assert result.coordinates["seed"] == (3, 5)
    assert result.texts()[1, 1].tolist() == ["undefined", "undefined"] and not result.is_missing.any()
    assert result.undefined == (
        ({"sender": "L1.H0", "receiver": "L0.H1.k"}, "the sender does not write before the receiver reads"),
    )
    assert (result.values[..., 0] == result.values[..., 1])[~result.is_undefined[..., 0]].all()
    assert result.metadata["pair"] == "answer" and result.metadata["n_pairs"] == 8


def test_models_that_read_vectors():
    ours, clean = model("vectors", dtype=torch.float32), items("vectors", 6)
    corrupt = type(clean)(clean.tokens, clean.n_tokens, clean.scored, {}, 1 - clean.vectors)
    result = path_patching.run([ours], Pairs(clean, corrupt))
    assert result.metadata["metric"] == "loss"
    assert np.nanmax(np.abs(result.values)) > 0.01
    with pytest.raises(ConfigError, match="logit_diff"):
        path_patching.run([ours], Pairs(clean, corrupt), metric="logit_diff")
    assert VECTORS["d_input"] == clean.vectors.shape[-1]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"senders": ["L0.H7"]}, PartError, r"senders: 'L0\.H7'"),
        ({"receivers": ["L0.H1"]}, PartError, r"receivers: 'L0\.H1'"),
        ({"senders": ["L1.mlp"], "receivers": ["L0.mlp"]}, ConfigError, "senders"),
        ({"senders": []}, ConfigError, "senders"),
        ({"direction": "sideways"}, ConfigError, "direction = 'sideways'"),
        ({"tokens": "some"}, ConfigError, "tokens = 'some'"),
        ({"pair": "kind"}, ConfigError, "pair kind 'kind'"),
        ({"pair": None}, ConfigError, "pair"),
        ({"pair": "order"}, ConfigError, "tokens = 'changed'"),
        ({"metric": "speed"}, ConfigError, "metric = 'speed'"),
        ({"positions": [99]}, ConfigError, "positions"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        path_patching.run([model("usual", dtype=torch.float32)], TASK, **{"pair": "answer", "n_items": 4, **arguments})


def test_items_without_partners_are_refused():
    with pytest.raises(ConfigError, match="items"):
        path_patching.run([model("usual")], TASK.items(4))
    assert get("haystack")().pair_kinds
