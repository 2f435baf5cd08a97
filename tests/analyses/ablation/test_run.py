from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import analyses.models
from analyses import ablation
from analyses.ablation import measure
from analyses.interventions import patch, stand_ins
from analyses.interventions.items import cut, derangement, frequent, layouts, longest_first
from analyses.interventions.trace import InexactError
from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation
from mechproc.model.state import init_state
from mechproc.pretrained import load_pretrained
from mechproc.procedures import get
from mechproc.procedures.base import Items
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

from ..conftest import D_VOCAB, LOGIT, alternating, planted

PAIRS = alternating((1, 2, 6), (2, 3, 6), (3, 4, 6), (4, 1, 6))
INTACT_LOSS = math.log(math.exp(LOGIT) + D_VOCAB - 1) - LOGIT
"""Of a model that gives the right token a logit of LOGIT and all others 0."""
WRONG_LOSS = math.log(math.exp(LOGIT) + D_VOCAB - 1)
"""The same with a wrong token."""


def column(result) -> dict[str, float]:
    """The values of the only seed, by part."""
    return dict(zip(result.coordinates["part"], result.values[:, 0].tolist(), strict=True))


class TestPlanted:
    @pytest.mark.parametrize("previous", [0, 1])
    def test_zero_takes_the_copy_away_and_nothing_else(self, previous):
        result = ablation.run([planted(previous)], PAIRS)
        # All logits are then 0, the guess is token 0, and that is never right here.
        assert column(result) == {f"L0.H{previous}": 1.0, f"L0.H{1 - previous}": 0.0}
        assert result.metadata["intact"] == {"0": 1.0}
        assert result.metadata["n_scored_tokens"] == 16

    def test_loss_rises_to_that_of_a_uniform_guess(self):
        result = ablation.run([planted()], PAIRS, metric="loss")
        assert column(result) == pytest.approx({"L0.H0": math.log(D_VOCAB) - INTACT_LOSS, "L0.H1": 0.0})
        assert result.metadata["intact"]["0"] == pytest.approx(INTACT_LOSS)
        assert result.unit == "nats"

    def test_mean_writes_what_the_reference_items_have_there(self):
        reference = alternating(*[(1, 2, 6)] * 8)
        result = ablation.run([planted()], PAIRS, ablation=Ablation.MEAN, reference=reference)
        # "1 2 1 2" is now predicted everywhere. Targets: item 0 all four right; "2 3 2 3" and "3 4 3 4" and "4 1 4 1"
        # have at no position what "1 2 1 2" has there.
        assert column(result) == {"L0.H0": 0.75, "L0.H1": 0.0}

    def test_mean_of_a_mixed_reference(self):
        reference = alternating(*[(1, 2, 6)] * 6, *[(3, 2, 6)] * 2)
        item = alternating((1, 2, 6))
        result = ablation.run([planted()], item, ablation=Ablation.MEAN, reference=reference, metric="loss")
        share = LOGIT * 0.75  # three quarters of the reference have token 1 where it is copied from, all have token 2
        one = math.log(math.exp(share) + math.exp(LOGIT * 0.25) + D_VOCAB - 2) - share
        assert column(result)["L0.H0"] == pytest.approx((2 * one + 2 * INTACT_LOSS) / 4 - INTACT_LOSS)

    def test_resample_brings_the_other_items_token(self):
        items = alternating((1, 2, 6), (3, 4, 6))
        result = ablation.run([planted()], items, ablation=Ablation.RESAMPLE, metric="loss")
        assert column(result) == pytest.approx({"L0.H0": WRONG_LOSS - INTACT_LOSS, "L0.H1": 0.0})

    def test_items_are_aligned_within_their_layout_only(self):
        short, long = [(1, 2, 4)] * 70, [(3, 4, 6)] * 80
        items, reference = alternating((1, 2, 4), (3, 4, 6)), alternating(*short, *long)
        result = ablation.run([planted()], items, ablation=Ablation.MEAN, reference=reference, metric="loss")
        assert column(result) == {"L0.H0": 0.0, "L0.H1": 0.0}  # the mean of its layout is what each item has

    def test_items_of_rare_layouts_are_left_out_of_both_scores(self):
        items = alternating((1, 2, 6), (3, 4, 6), (1, 2, 4))
        result = ablation.run([planted()], items, ablation=Ablation.RESAMPLE)
        assert result.metadata["n_items"] == 2
        assert result.metadata["n_items_left_out"] == 1
        assert result.metadata["n_scored_tokens"] == 8

    def test_too_many_rare_layouts_are_an_error(self):
        items = alternating((1, 2, 6), (1, 2, 5), (1, 2, 4))
        with pytest.raises(ConfigError, match="3 of 3 have a layout too rare for resample"):
            ablation.run([planted()], items, ablation=Ablation.RESAMPLE)
        reference = alternating(*[(1, 2, 6)] * 7)
        with pytest.raises(ConfigError, match="1 of 1 have a layout too rare for mean"):
            ablation.run([planted()], alternating((1, 2, 6)), ablation=Ablation.MEAN, reference=reference)

    def test_what_is_no_procedure_is_refused(self):
        with pytest.raises(ConfigError, match="items = 'sort' is not allowed: a procedure, such as get"):
            ablation.run([planted()], "sort")  # pyright: ignore[reportArgumentType]

    def test_a_whole_layer_is_one_part(self):
        assert column(ablation.run([planted()], PAIRS, ["attn", "L0.H0 + L0.H1"])) == {
            "attn": 1.0,
            "L0.H0 + L0.H1": 1.0,
        }

    def test_seeds_keep_their_labels_and_their_order(self):
        result = ablation.run({7: planted(0), 3: planted(1)}, PAIRS)
        assert result.coordinates["seed"] == (7, 3)
        assert result.values.tolist() == [[1.0, 0.0], [0.0, 1.0]]


class TestAgainstWeights:
    """Zeroing an activation is zeroing the weights that write it: checked with the training forward, without hooks."""

    task = Haystack(lengths=Uniform(1, 4), n_keys=6, n_values=8)
    cfg = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab, init_std=0.4)

    def loss(self, state, block) -> float:
        tokens = torch.from_numpy(block.tokens)
        logits = forward(state, self.cfg, tokens)[torch.from_numpy(block.scored)]
        return float(F.cross_entropy(logits.double(), torch.from_numpy(block.targets)[block.scored]))

    @pytest.mark.parametrize(
        ("part", "edits"),
        [
            ("L1.H1", {"blocks.1.attn.W_O": 1}),
            ("L0.mlp", {"blocks.0.mlp.W_out": None, "blocks.0.mlp.b_out": None}),
            ("L0.attn", {"blocks.0.attn.W_O": None, "blocks.0.attn.b_O": None}),
        ],
    )
    def test_zero(self, part, edits):
        rng = np.random.default_rng(0)
        state = {
            k: v + torch.from_numpy(rng.normal(0, 0.1, v.shape)).float() for k, v in init_state(self.cfg, 3).items()
        }
        block = self.task.items(100)
        without = {name: tensor.clone() for name, tensor in state.items()}
        for name, index in edits.items():
            without[name][slice(None) if index is None else index] = 0.0
        expected = self.loss(without, block) - self.loss(state, block)
        result = ablation.run([HookedTransformer(self.cfg, state)], self.task, [part], metric="loss", n_items=100)
        assert abs(expected) > 1e-3
        assert column(result)[part] == pytest.approx(expected, abs=1e-6)

    @pytest.mark.parametrize("kind", list(Ablation))
    def test_the_size_of_a_batch_changes_nothing(self, kind, monkeypatch):
        model = HookedTransformer(self.cfg, init_state(self.cfg, 3))
        monkeypatch.setattr(stand_ins, "REFERENCE_ITEMS", 300)
        whole = ablation.run([model], self.task, ablation=kind, metric="loss", n_items=60)
        monkeypatch.setattr(analyses.models, "BATCH_ITEMS", 7)
        monkeypatch.setattr(analyses.models, "BATCH_POSITIONS", 0)
        cut = ablation.run([model], self.task, ablation=kind, metric="loss", n_items=60)
        assert np.abs(whole.values).min() > 1e-6
        np.testing.assert_allclose(cut.values, whole.values, rtol=1e-4, atol=1e-7)
        sizes = {"intact": pytest.approx(whole.metadata["intact"], abs=1e-6)}  # float32 rounds by the size of a batch
        assert cut.metadata == whole.metadata | sizes

    def test_compare_marks_what_is_undefined(self):
        model = HookedTransformer(self.cfg, init_state(self.cfg, 3))
        result = ablation.compare([model], self.task, n_items=40)
        assert result.axes == ("ablation", "part", "seed")
        heads = ["L0.H0", "L0.H1", "L0.H0.QK", "L0.H1.QK", "L0.H0.OV", "L0.H1.OV"]
        assert result.coordinates["part"][:10] == ("embed", "pos", *heads, "L0.mlp", "L1.H0")
        undefined = {(where["ablation"], where["part"]) for where, _ in result.undefined}
        patterns = {("zero", f"L{layer}.H{head}.QK") for layer in range(2) for head in range(2)}
        assert undefined == {("mean", "pos"), ("resample", "pos")} | patterns
        assert (np.isnan(result.values) == result.is_undefined).all()
        (reason,) = {why for where, why in result.undefined if where["part"] == "L1.H0.QK"}
        assert "a pattern of zeros is no distribution" in reason
        heads = result.select(ablation="mean", part=["L0.H1", "L1.mlp"])
        alone = ablation.run([model], self.task, ["L0.H1", "L1.mlp"], Ablation.MEAN, n_items=40)
        assert heads.values.tolist() == alone.values.tolist()

    def test_zero_at_a_head_is_zero_at_its_values(self):
        model = HookedTransformer(self.cfg, init_state(self.cfg, 3))
        whole, values = ablation.run([model], self.task, ["L0.H1", "L0.H1.OV"], metric="loss", n_items=40).values
        assert whole == pytest.approx(values, abs=1e-6)


class TestRefusals:
    def test_an_undefined_cell_that_is_asked_for(self):
        with pytest.raises(PartError, match=r"zero at 'L0\.H0\.QK' is undefined"):
            ablation.run([planted()], PAIRS, ["L0.H1", "L0.H0.QK"])

    def test_a_part_that_does_not_exist(self):
        for ask in (ablation.run, ablation.compare):
            with pytest.raises(PartError, match=r"L0\.mlp"):
                ask([planted()], PAIRS, ["L0.mlp"])

    def test_a_part_twice(self):
        with pytest.raises(ConfigError, match="each once"):
            ablation.run([planted()], PAIRS, ["L0.H0", "L0.H0"])

    def test_no_models(self):
        with pytest.raises(ConfigError, match="models"):
            ablation.run([], PAIRS)

    def test_models_of_two_shapes(self):
        other = HookedTransformer(planted().cfg.replace(n_heads=3))
        with pytest.raises(ConfigError, match=r"seeds 0 and 1 differ: n_heads = 2 and 3"):
            ablation.run([planted(), other], PAIRS)

    def test_a_mean_without_reference(self):
        with pytest.raises(ConfigError, match="reference is missing"):
            ablation.run([planted()], PAIRS, ablation=Ablation.MEAN)

    def test_an_unknown_metric(self):
        with pytest.raises(ConfigError, match="metric = 'acuracy'"):
            ablation.run([planted()], PAIRS, metric="acuracy")  # type: ignore[arg-type]

    def test_logits_that_are_not_finite(self):
        model = planted()
        model.unembed.W_U.data[0] = torch.nan
        with pytest.raises(ConfigError, match="logits of seed 4"):
            ablation.run({4: model}, PAIRS)

    def test_a_no_op_that_changes_something(self, monkeypatch):
        monkeypatch.setattr(patch, "_replace", lambda activation, hook, patch: 1.01 * activation)
        with pytest.raises(RuntimeError, match=r"L0\.H0: replacing the activation by itself"):
            ablation.run([planted()], PAIRS)


class TestAlignment:
    def test_layouts_are_lengths_and_scored_positions(self):
        block = alternating((1, 2, 6), (3, 4, 6), (1, 2, 4))
        first, second, third = layouts(block)
        assert first == second != third
        moved = block.scored.copy()
        moved[0] = np.roll(moved[0], -1)
        other = layouts(Items(block.tokens, block.n_tokens, moved, {}))
        assert other[0] != other[1]
        longer = layouts(Items(block.tokens, np.array([6, 5, 4]), block.scored, {}))
        assert longer[0] != longer[1]

    def test_frequent(self):
        block = alternating((1, 2, 6), (1, 2, 5), (1, 2, 4))
        reference = alternating((3, 4, 6), (3, 4, 4), (1, 4, 6))
        assert frequent(block, reference, 2).tolist() == [0]
        assert frequent(block, reference, 1).tolist() == [0, 2]

    def test_nobody_is_his_own_partner(self):
        groups = layouts(alternating(*[(1, 2, 6)] * 5, *[(1, 2, 4)] * 2, *[(1, 2, 5)] * 20))
        seen = set()
        for seed in range(5):
            partner = derangement(groups, seed)
            assert (partner != np.arange(len(groups))).all()
            assert sorted(partner) == list(range(len(groups)))
            assert [groups[p] for p in partner] == groups
            seen.add(tuple(partner))
        assert len(seen) == 5

    def test_longest_first(self):
        block = longest_first(alternating((1, 2, 4), (3, 4, 6), (2, 1, 4), (4, 1, 5)))
        assert block.n_tokens.tolist() == [6, 5, 4, 4]
        assert block.tokens[:, 0].tolist() == [3, 4, 1, 2]

    def test_cut_keeps_all_that_is_predicted(self):
        block = alternating((1, 2, 4), (3, 4, 3))
        narrow = cut(block)
        assert narrow.tokens.tolist() == [[1, 2, 1, 2], [3, 4, 3, 0]]
        assert narrow.scored.tolist() == block.scored[:, :4].tolist()
        for last, width in ((0, 2), (1, 3), (4, 6)):  # the target of a position is the token after it
            scored = np.arange(6) == np.array([[0], [last]])
            assert cut(Items(block.tokens, block.n_tokens, scored, {})).tokens.shape == (2, width)


@pytest.mark.parametrize("positions", [None, [2, 3]])
def test_a_trained_model_that_amplifies_rounding_is_measured_as_in_float64(positions):
    ours, task = load_pretrained("k-dyck", 2), get("k-dyck")()
    exact = HookedTransformer(ours.cfg, ours.state(), dtype=torch.float64)
    asked = {"metric": "loss", "n_items": 32, "positions": positions}
    found, expected = (ablation.run([m], task, ["L0.H0"], **asked).values for m in (ours, exact))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_only_the_batches_that_need_float64_are_measured_in_it(kind, monkeypatch):
    model, task, turned, real = load_pretrained("set", 0), get("set")(), [], measure.sweep

    def inexact_once(intact, interventions):
        dtype = intact.logits.dtype
        turned.append(dtype)
        if len(turned) == 2 and dtype == torch.float32:
            raise InexactError("seeded")
        yield from real(intact, interventions)

    monkeypatch.setattr(analyses.models, "BATCH_POSITIONS", 0)
    asked = {"metric": "loss", "n_items": 192, "ablation": kind}  # three batches
    expected = ablation.run([model], task, ["L0.H0", "L1.mlp"], **asked).values
    monkeypatch.setattr(measure, "sweep", inexact_once)
    found = ablation.run([model], task, ["L0.H0", "L1.mlp"], **asked).values
    assert turned == [torch.float32, torch.float32, torch.float64, torch.float64]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
