"""Activation patching: by hand on a model that copies, against transformer_lens.patching, and what it refuses."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from transformer_lens import patching as theirs

from analyses import patching
from analyses.interventions import exchange
from analyses.interventions.items import Pairs, cut, minimal_pairs
from analyses.interventions.metrics import METRICS, Metric, scored_tokens
from mechproc.errors import ConfigError, PartError
from mechproc.pretrained import load_pretrained
from mechproc.procedures import get
from mechproc.procedures.base import Items
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Fixed

from .conftest import D_VOCAB, LOGIT, alternating, planted
from .interventions.grid import TASK, model
from .interventions.grid import items as grid_items

PAIRS = Pairs(alternating((1, 2, 6), (2, 3, 6)), alternating((3, 4, 6), (4, 1, 6)))
MIXED = Pairs(alternating((1, 2, 4), (2, 3, 6)), alternating((3, 4, 4), (4, 1, 6)))
RIGHT = math.log(math.exp(LOGIT) + D_VOCAB - 1) - LOGIT
WRONG = math.log(math.exp(LOGIT) + D_VOCAB - 1)


def column(result) -> list[float]:
    return result.values[..., 0].tolist()


class TestByHand:
    @pytest.mark.parametrize("direction", patching.DIRECTIONS)
    @pytest.mark.parametrize("copying", [0, 1])
    def test_the_copying_head_carries_all_of_it(self, direction, copying):
        found = patching.run([planted(copying)], PAIRS, direction=direction)
        expected = [0.0, 0.0]
        expected[copying] = 2 * LOGIT  # from -LOGIT to LOGIT, or back
        assert column(patching.effect(found)) == pytest.approx(expected, abs=1e-5)
        assert column(patching.recovery(found)) == pytest.approx([e / (2 * LOGIT) for e in expected], abs=1e-6)
        assert found.metadata["clean"]["0"] == pytest.approx(LOGIT, abs=1e-5)
        assert found.metadata["corrupt"]["0"] == pytest.approx(-LOGIT, abs=1e-5)
        assert found.metadata["intact_accuracy"] == {"0": 1.0}

    def test_units_and_directions(self):
        found = patching.run([planted()], PAIRS, metric="loss")
        assert found.axes == ("quantity", "part", "seed") and found.unit == "nats (recovery: fraction)"
        effect, recovery = patching.effect(found), patching.recovery(found)
        assert (effect.unit, recovery.unit) == ("nats", "fraction")
        assert effect.values[0, 0] == pytest.approx(WRONG - RIGHT, abs=1e-5)  # positive although the loss falls
        assert recovery.values[0, 0] == pytest.approx(1.0, abs=1e-6)
        assert "brings the clean answer back" in effect.direction
        back = patching.run([planted()], PAIRS, metric="loss", direction="corrupt_into_clean")
        assert patching.effect(back).values[0, 0] == pytest.approx(WRONG - RIGHT, abs=1e-5)
        assert "that the part is enough" in back.what_it_does_not_show

    def test_each_position(self):
        found = patching.effect(patching.run([planted()], MIXED, positions="each", by_item=True))
        assert found.axes == ("part", "position", "item", "seed")
        assert found.coordinates["position"] == (0, 1, 2, 3, 4)  # the last scored position is 4
        head = found.values[0, :, :, 0]
        # Scored are positions 1 and 2 of the item of 4 tokens, and 1 to 4 of that of 6; a mean over them.
        np.testing.assert_allclose(head[:, 0], [0, LOGIT, LOGIT, 0, np.nan], atol=1e-5)
        np.testing.assert_allclose(head[:, 1], [0, *[LOGIT / 2] * 4], atol=1e-5)
        assert found.undefined == (({"position": 4, "item": 0, "seed": 0}, "the item has ended"),)
        mean = patching.effect(patching.run([planted()], MIXED, positions="each")).values[0, :, 0]
        # Position 3 changes 1 of 6 scored tokens. The item of 4 tokens does not count at position 4: 1 of 4.
        expected = [0, 2 * LOGIT * 2 / 6, 2 * LOGIT * 2 / 6, 2 * LOGIT / 6, 2 * LOGIT / 4]
        np.testing.assert_allclose(mean, expected, atol=1e-5)

    def test_positions_together_and_by_name(self):
        run = lambda positions: patching.effect(patching.run([planted()], PAIRS, positions=positions)).values[0]  # noqa: E731
        assert run([1, 2]).tolist() == pytest.approx([LOGIT], abs=1e-5)
        assert run([2, 2]).tolist() == pytest.approx([LOGIT / 2], abs=1e-5)
        named = {"scored": [1, 2, 3, 4], "before": [0], "one or another": np.array([[1], [0]])}
        np.testing.assert_allclose(run(named)[:, 0], [2 * LOGIT, 0.0, LOGIT / 4], atol=1e-5)

    def test_runs_that_score_the_same_have_no_recovery(self):
        same = Pairs(PAIRS.clean, PAIRS.clean)
        found = patching.run([planted()], same, metric="loss", tokens="all")
        assert np.isnan(patching.recovery(found).values).all() and not found.is_missing.any()
        assert patching.effect(found).values.tolist() == [[0.0], [0.0]]
        assert {reason for _, reason in found.undefined} == {"the two runs score the same"}

    def test_only_the_tokens_that_change(self):
        corrupt = alternating((1, 2, 6), (2, 4, 6))  # the first pair does not change
        pairs = Pairs(PAIRS.clean, corrupt)
        found = patching.run([planted()], pairs, by_item=True)
        assert found.metadata["n_items"] == 1 and found.metadata["n_pairs_left_out"] == 1
        assert found.metadata["n_scored_tokens"] == 2 and found.coordinates["item"] == (1,)
        whole = patching.effect(patching.run([planted()], pairs, tokens="all"))
        assert whole.values[0, 0] == pytest.approx(2 * LOGIT * 2 / 8, abs=1e-5)
        assert patching.effect(found).values[0, 0] == pytest.approx(2 * LOGIT, abs=1e-5)
        with pytest.raises(ConfigError, match="none has one"):
            patching.run([planted()], Pairs(PAIRS.clean, PAIRS.clean))

    def test_a_metric_of_ones_own(self):
        def rank(logits, tokens):
            return (logits > 1 + logits.gather(-1, tokens.targets[:, None])).sum(-1).double()

        found = patching.run([planted()], PAIRS, metric=Metric("rank", "places", False, rank))
        assert found.unit.startswith("places") and patching.effect(found).values[0, 0] == 1.0


class TestDonors:
    def test_a_head_of_a_model_that_can_into_one_that_cannot(self):
        blank = planted()
        for head in range(2):
            blank.blocks[0].attn.W_O.data[head] = 0
        models, donors = {5: blank}, {4: blank, 5: planted()}
        found = patching.run(models, PAIRS.clean, donors=donors, metric="loss", parts=["L0.attn", "L0.H0", "embed"])
        assert found.metadata["base"]["5"] == pytest.approx(math.log(D_VOCAB))
        assert found.metadata["source"]["5"] == pytest.approx(RIGHT, abs=1e-5)
        assert patching.recovery(found).values[:, 0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
        assert "of the donor" in found.direction

    def test_shipped_models_before_and_after_training(self):
        rule = get("sort")()
        before, after = ({s: load_pretrained("sort", s, step=step) for s in (0, 1)} for step in (0, None))
        found = patching.run(before, rule, donors=after, parts=["pos", "blocks.1.hook_resid_post"], n_items=20)
        assert found.metadata["metric"] == "loss" and found.warnings  # before training it is below the baselines
        own = patching.run(after, rule, donors=after, parts=["L1.attn"], n_items=20)
        assert np.abs(patching.effect(own).values).max() < 1e-5
        paired = patching.run(before, rule, pair="rank", donors=after, n_items=20, metric="accuracy")
        assert paired.metadata["base"]["0"] < paired.metadata["source"]["0"]

    def test_refusals(self):
        with pytest.raises(ConfigError, match="seeds of donors"):
            patching.run({1: planted()}, PAIRS.clean, donors={2: planted()})
        with pytest.raises(ConfigError, match="n_layers of the donors = 2"):
            patching.run([planted()], PAIRS.clean, donors=[model("usual")])
        with pytest.raises(ConfigError, match="metric = 'logit_diff'"):
            patching.run([planted()], PAIRS.clean, donors=[planted()], metric="logit_diff")


class TestAgainstTransformerLens:
    """On the same model, pairs and metric."""

    @pytest.fixture
    def setting(self):
        task = Haystack(lengths=Fixed(4), n_keys=6, n_values=8)
        ours, pairs = model("usual", dtype=torch.float32), minimal_pairs(task, "answer", 7)
        pairs = Pairs(cut(pairs.clean), cut(pairs.corrupt))
        tokens = scored_tokens(pairs.clean, foils=pairs.corrupt)

        def metric(logits):
            return METRICS["logit_diff"](logits[tokens.item, tokens.position].double(), tokens).mean()

        clean, corrupt = (torch.from_numpy(x.tokens) for x in (pairs.clean, pairs.corrupt))
        _, cache = ours.run_with_cache(clean)
        base = float(metric(ours(corrupt)))
        return ours, pairs, lambda function: function(ours, corrupt, cache, metric).numpy() - base

    @staticmethod
    def ours(setting, parts, **options):
        return patching.effect(patching.run([setting[0]], setting[1], parts=parts, **options)).values[..., 0]

    @pytest.fixture(autouse=True)
    def _no_progress_bars(self, monkeypatch):
        monkeypatch.setattr("sys.stderr", io.StringIO())

    @pytest.mark.parametrize(
        "function, row",
        [
            (theirs.get_act_patch_resid_pre, "blocks.{}.hook_resid_pre"),
            (theirs.get_act_patch_resid_mid, "blocks.{}.hook_resid_mid"),
            (theirs.get_act_patch_attn_out, "L{}.attn"),
            (theirs.get_act_patch_mlp_out, "L{}.mlp"),
        ],
    )
    def test_layer_by_position(self, setting, function, row):
        expected = setting[2](function)
        found = self.ours(setting, [row.format(0), row.format(1)], positions="each")
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], atol=1e-5)
        assert np.abs(found).max() > 0.05

    @pytest.mark.parametrize(
        "function, row",
        [
            (theirs.get_act_patch_attn_head_out_all_pos, "L{}.H{}"),
            (theirs.get_act_patch_attn_head_pattern_all_pos, "L{}.H{}.QK"),
            (theirs.get_act_patch_attn_head_v_all_pos, "L{}.H{}.OV"),
            (theirs.get_act_patch_attn_head_q_all_pos, "blocks.{}.attn.hook_q[:, :, {}]"),
            (theirs.get_act_patch_attn_head_k_all_pos, "blocks.{}.attn.hook_k[:, :, {}]"),
        ],
    )
    def test_heads(self, setting, function, row):
        rows = [row.format(layer, head) for layer in range(2) for head in range(2)]
        found = self.ours(setting, rows).reshape(2, 2)
        np.testing.assert_allclose(found, setting[2](function), atol=1e-5)
        assert np.abs(found).max() > 1e-3

    def test_heads_by_position(self, setting):
        expected = setting[2](theirs.get_act_patch_attn_head_out_by_pos)  # layer, pos, head
        found = self.ours(setting, [f"L{x}.H{h}" for x in range(2) for h in range(2)], positions="each")
        expected = expected.transpose(0, 2, 1).reshape(4, -1)
        np.testing.assert_allclose(found, expected[:, : found.shape[1]], atol=1e-5)


class TestChecks:
    def test_a_patch_that_does_not_give_the_other_run_is_noticed(self, monkeypatch):
        def off(activations, sites, positions=None):
            return original({hook: 1.001 * x for hook, x in activations.items()}, sites, positions)

        original = exchange.patches_from
        monkeypatch.setattr(exchange, "patches_from", off)
        with pytest.raises(RuntimeError, match="patching all embeddings"):
            patching.run([model("usual")], TASK, "answer", n_items=8)

    def test_a_hook_that_was_left(self):
        ours = planted()
        ours.add_hook("hook_embed", lambda activation, hook: 0 * activation)
        with pytest.raises(PartError, match="hook_embed"):
            patching.run([ours], PAIRS)

    def test_weights_that_are_not_finite_name_the_seed(self):
        broken = planted()
        broken.embed.W_E.data[4] = torch.nan
        with pytest.raises(ConfigError, match="logits of seed 8"):
            patching.run({7: planted(), 8: broken}, PAIRS)


class TestVectors:
    def test_pairs_of_the_rule(self):
        rule = get("eca-vectors")()
        pair = next(iter(rule.pair_kinds))
        found = patching.run({0: load_pretrained("eca-vectors", 0)}, rule, pair, ["embed", "L0.attn"], n_items=10)
        assert found.metadata["metric"] == "loss"
        assert patching.recovery(found).values[0, 0] == pytest.approx(1.0, abs=1e-4)  # the pair differs there alone
        with pytest.raises(ConfigError, match="metric = 'logit_diff'"):
            patching.run({0: load_pretrained("eca-vectors", 0)}, rule, pair, metric="logit_diff", n_items=10)

    def test_pairs_of_ones_own(self):
        ours, clean = model("vectors"), grid_items("vectors", 6)
        corrupt = Items(clean.tokens, clean.n_tokens, clean.scored, {}, 1 - clean.vectors)
        found = patching.run([ours], Pairs(clean, corrupt), parts=["embed", "L0.H0"], metric="accuracy")
        assert patching.recovery(found).values[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "arguments, error, match",
    [
        ({"items": TASK}, ConfigError, "pair = None.*answer"),
        ({"items": TASK, "pair": "anwser"}, ConfigError, "pair kind 'anwser'"),
        ({"items": TASK.items(5)}, ConfigError, "items = 'Items'"),
        ({"parts": []}, ConfigError, "parts = \\[\\]"),
        ({"parts": ["L0.H0", "L0.H0"]}, ConfigError, "each once"),
        ({"parts": ["L0.H9"]}, PartError, "H0 to H1"),
        ({"parts": ["pos"]}, PartError, "same in every item"),
        ({"parts": ["unembed"]}, PartError, "no activation"),
        ({"parts": ["ln_final"]}, PartError, "undefined"),
        ({"parts": ["blocks.7.hook_resid_pre"]}, ConfigError, "cannot be patched"),
        ({"parts": ["blocks.0.hook_resid_pre[:, :, 0]"]}, PartError, "no slice"),
        ({"parts": ["blocks.0.attn.hook_z[:, :, 5]"]}, PartError, "0 to 1"),
        ({"parts": ["blocks.0.attn.hook_z[0]"]}, PartError, "no slice"),
        ({"parts": ["blocks.0.attn.hook_z["]}, PartError, "is no hook"),
        ({"direction": "up"}, ConfigError, "direction = 'up'"),
        ({"tokens": "some"}, ConfigError, "tokens = 'some'"),
        ({"metric": "acuracy"}, ConfigError, "metric = 'acuracy'"),
        ({"positions": "all"}, ConfigError, "positions = 'all'"),
        ({"positions": [99]}, ConfigError, "positions = \\[99\\]"),
        ({"positions": {"here": [0.5]}}, ConfigError, "positions 'here'"),
        ({"positions": {}}, ConfigError, "at least one name"),
        ({"n_items": 3}, ConfigError, "n_items = 3"),
        ({"pair": "answer"}, ConfigError, "pair = 'answer'"),
        ({"models": []}, ConfigError, "models"),
    ],
)
def test_refusals(arguments, error, match):
    pairs = minimal_pairs(TASK, "answer", 6)
    with pytest.raises(error, match=match):
        patching.run(**{"models": [model("usual")], "items": pairs, **arguments})


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(ConfigError, match="pair 0"):
        Pairs(alternating((1, 2, 4)), alternating((1, 2, 6)))


def test_models_without_mlps_or_layernorms_lack_their_hooks():
    pairs = minimal_pairs(TASK, "answer", 4)
    for kind, row, word in (
        ("attention only", "blocks.0.mlp.hook_post", "MLPs"),
        ("no LayerNorm", "blocks.0.ln1.hook_normalized", "LayerNorms"),
    ):
        with pytest.raises(PartError, match=word):
            patching.run([model(kind)], pairs, parts=[row])


def test_the_same_seed_gives_the_same_bits():
    one, two = (patching.run([model("usual")], TASK, "answer", n_items=20, seed=3) for _ in range(2))
    assert one == two
    assert patching.run([model("usual")], TASK, "answer", n_items=20, seed=4) != one
