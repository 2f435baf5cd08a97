"""Metrics, positions, partners and pairs of one's own; what is said about the intact models; vector inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from analyses import ablation
from analyses.interventions.items import Pairs, own_items
from analyses.interventions.metrics import METRICS, Metric
from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation
from mechproc.pretrained import load_pretrained
from mechproc.procedures import get
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

from ..conftest import D_VOCAB, LOGIT, alternating, planted

ITEMS = alternating((1, 2, 6), (2, 3, 6), (3, 4, 6), (4, 1, 6))
TASK = Haystack(lengths=Uniform(1, 4), n_keys=6, n_values=8)


def small(**settings) -> HookedTransformer:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 8, "n_ctx": TASK.n_ctx, "d_vocab": TASK.d_vocab, "init_std": 0.4}
    return HookedTransformer(ModelConfig(**{**shape, **settings}))


class TestKinds:
    @pytest.mark.parametrize("kind", list(Ablation))
    def test_a_name_is_as_good_as_the_member(self, kind):
        by_member = ablation.run([small()], TASK, ablation=kind, metric="loss", n_items=50)
        by_name = ablation.run([small()], TASK, ablation=kind.value, metric="loss", n_items=50)
        assert by_member.to_json() == by_name.to_json()

    def test_an_unknown_name(self):
        with pytest.raises(ConfigError, match="ablation = 'zreo'"):
            ablation.run([planted()], ITEMS, ablation="zreo")

    def test_a_counterfactual_takes_the_partners_activation(self):
        pairs = Pairs(alternating((1, 2, 6), (2, 3, 6)), alternating((3, 4, 6), (4, 1, 6)))
        lost = ablation.run([planted()], pairs, ablation="counterfactual", metric="logit_diff")
        # The copying head then writes the partner's token: the difference goes from LOGIT to -LOGIT.
        assert lost.values[:, 0].tolist() == pytest.approx([2 * LOGIT, 0.0], abs=1e-5)
        assert lost.unit == "logits" and lost.name == "logit difference lost by counterfactual ablation"

    def test_a_counterfactual_of_a_procedure(self):
        lost = ablation.run([small()], TASK, ablation="counterfactual", pair="answer", metric="loss", n_items=40)
        assert lost.metadata["pair"] == "answer" and lost.metadata["n_items"] == 40
        assert np.abs(lost.values).min() > 0
        with pytest.raises(ConfigError, match="pair = None"):
            ablation.run([small()], TASK, ablation="counterfactual")
        with pytest.raises(ConfigError, match="pair kind 'anwser'"):
            ablation.run([small()], TASK, ablation="counterfactual", pair="anwser")
        with pytest.raises(ConfigError, match="items without partners"):
            ablation.run([small()], TASK.items(20), ablation="counterfactual")

    def test_compare_puts_kinds_side_by_side(self):
        kinds = ("zero", Ablation.RESAMPLE, "counterfactual")
        both = ablation.compare([small()], TASK, ablations=kinds, pair="answer", metric="loss", n_items=40)
        assert both.coordinates["ablation"] == ("zero", "resample", "counterfactual")
        with pytest.raises(ConfigError, match="each once"):
            ablation.compare([small()], TASK, ablations=("zero", Ablation.ZERO))


class TestOwn:
    def test_a_metric(self):
        def certainty(logits, tokens):
            return logits.gather(-1, tokens.targets[:, None])[:, 0]

        lost = ablation.run([planted()], ITEMS, metric=certainty)
        assert lost.values[:, 0].tolist() == pytest.approx([LOGIT, 0.0])
        assert lost.name == "certainty lost by zero ablation"
        cost = Metric("cost", "points", higher_is_better=False, function=lambda x, t: -certainty(x, t))
        gained = ablation.run([planted()], ITEMS, metric=cost)
        assert gained.values.tolist() == lost.values.tolist()
        assert (gained.unit, gained.name) == ("points", "cost gained by zero ablation")

    @pytest.mark.parametrize(
        ("function", "value"),
        [
            (lambda logits, tokens: logits, r"shape \[16, 5\]"),
            (lambda logits, tokens: logits.mean(), r"shape \[\]"),
            (lambda logits, tokens: 1.0, "float"),
            (lambda logits, tokens: logits[:, 0] / 0, "NaN or infinity"),
        ],
    )
    def test_a_metric_of_another_shape(self, function, value):
        with pytest.raises(ConfigError, match=f"result of metric .*{value}"):
            ablation.run([planted()], ITEMS, metric=function)

    def test_logit_diff_needs_pairs(self):
        with pytest.raises(ConfigError, match="metric = 'logit_diff'"):
            ablation.run([planted()], ITEMS, metric="logit_diff")

    def test_positions(self):
        lost = ablation.run([planted()], ITEMS, metric="accuracy", positions=[1, 2])
        assert lost.values[:, 0].tolist() == [0.5, 0.0]  # of four scored positions, 1 to 4
        by_item = np.array([[1], [1], [5], [5]])  # position 5 is not scored
        lost = ablation.run([planted()], ITEMS, positions=by_item)
        assert lost.values[:, 0].tolist() == [0.125, 0.0]
        for wrong in ([6], [-1], [[1], [2]], [0.5], []):
            with pytest.raises(ConfigError, match="positions"):
                ablation.run([planted()], ITEMS, positions=wrong)

    def test_positions_follow_their_items_when_these_are_sorted(self):
        items = alternating((1, 2, 4), (3, 4, 6))
        lost = ablation.run([planted()], items, positions=np.array([[0], [2]]))  # of six scored, one is replaced
        assert lost.values[:, 0].tolist() == pytest.approx([1 / 6, 0.0])

    def test_partners(self):
        items = alternating((1, 2, 6), (3, 4, 6), (1, 2, 6))
        lost = ablation.run([planted()], items, ablation="resample", partners=[2, 1, 1])
        assert lost.values[:, 0].tolist() == pytest.approx([1 / 3, 0.0])  # of the last item alone
        for wrong in ([0, 1], [0, 1, 3], [0.0, 1.0, 2.0]):
            with pytest.raises(ConfigError, match="partners"):
                ablation.run([planted()], items, ablation="resample", partners=wrong)
        with pytest.raises(ConfigError, match="pair 0"):
            mixed = alternating((1, 2, 6), (3, 4, 4))
            ablation.run([planted()], mixed, ablation="resample", partners=[1, 0])
        with pytest.raises(ConfigError, match="partners"):
            ablation.run([planted()], items, ablation="zero", partners=[1, 0, 1])

    def test_n_items_together_with_items_is_refused(self):
        with pytest.raises(ConfigError, match="n_items = 2"):
            ablation.run([planted()], ITEMS, n_items=2)

    @pytest.mark.parametrize("form", [list, np.array, torch.tensor])
    def test_items_in_any_form(self, form):
        tokens = [[1, 2, 1, 2, 1, 2], [2, 3, 2, 3, 0, 0]]
        scored = np.zeros((2, 6), dtype=bool)
        scored[0, 1:5] = scored[1, 1:3] = True
        items = own_items(form(tokens), form([6, 4]), form(scored.tolist()))
        assert ablation.run([planted()], items).values[:, 0].tolist() == [1.0, 0.0]

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            (([1, 2],), "tokens"),
            (([[1.0, 2.0]],), "tokens"),
            (([[1, 2], [1]],), "tokens"),
            (([[1, 2]], [3]), "n_tokens"),
            (([[1, 2]], [1, 1]), "n_tokens"),
            (([[1, 2]], [2], [[True]]), "scored"),
            (([[1, 2]], [2], [[False, True]]), "scored"),
            (([[1, 2]], None, None, [[1.0, 0.0]]), "vectors"),
        ],
    )
    def test_items_that_cannot_be(self, arguments, field):
        with pytest.raises(ConfigError, match=field):
            own_items(*arguments)

    def test_items_that_the_model_cannot_read(self):
        with pytest.raises(ConfigError, match=f"tokens 1 to 9.*{D_VOCAB - 1}"):
            ablation.run([planted()], own_items([[1, 9, 1]]))
        with pytest.raises(ConfigError, match="items = '9 positions'"):
            ablation.run([planted()], own_items([[1] * 9]))


class TestIntactModels:
    def test_scores_ceiling_and_baselines(self):
        task = get("sort")()
        result = ablation.run({3: load_pretrained("sort", 3)}, task, ["L0.H0"], n_items=60)
        known, items = result.metadata, task.items(60)
        assert known["intact"] == known["intact_accuracy"]
        assert known["ceiling"] == pytest.approx(task.ceiling(items))
        assert known["baselines"] == pytest.approx(task.baselines(items))
        name = known["best_baseline"]["name"]
        assert known["best_baseline"]["accuracy"] == known["baselines"][name] == max(known["baselines"].values())
        assert result.warnings == []

    def test_a_model_of_another_rule_is_said_to_be_below_the_baselines(self):
        task = get("reverse")()
        models = {3: load_pretrained("sort", 3), 5: load_pretrained("reverse", 5)}
        result = ablation.run(models, task, ["L0.H0"], metric="loss", n_items=60)
        (warning,) = result.warnings
        assert "1 of 2 models" in warning and "seeds 3" in warning
        assert ablation.compare(models, task, ["L0.H0"], n_items=60).warnings[0].startswith("Intact, 1 of 2 models")

    def test_a_hook_that_was_left(self):
        model = planted()
        model.add_hook("hook_embed", lambda activation, hook: 0 * activation)
        with pytest.raises(PartError, match="hook_embed"):
            ablation.run([model], ITEMS)

    def test_a_nan_that_is_met_late_names_its_seed(self):
        broken = planted()
        broken.embed.W_E.data[4] = torch.nan  # a token that the first item lacks
        items = alternating((1, 2, 6), *[(1, 3, 6)] * 80, (4, 3, 6))
        with pytest.raises(ConfigError, match="logits of seed 8"):
            ablation.run({7: planted(), 8: broken}, items)


class TestVectors:
    def test_shipped_models(self):
        task = get("eca-vectors")()
        models = {seed: load_pretrained("eca-vectors", seed) for seed in (0, 1)}
        result = ablation.compare(models, task, ["L0.attn", "L0.mlp"], metric="loss", n_items=40)
        assert np.isfinite(result.values).all()
        accuracy = ablation.run(models, task, ["L0.mlp"], n_items=40)
        assert min(accuracy.metadata["intact"].values()) > accuracy.metadata["best_baseline"]["accuracy"]
        pair = next(iter(task.pair_kinds))
        swapped = ablation.run(models, task, ["embed"], "counterfactual", pair=pair, n_items=20)
        assert swapped.values.min() > 0

    def test_scores_by_hand(self):
        cfg = ModelConfig(
            n_layers=1, n_heads=1, d_model=4, n_ctx=3, d_vocab=2, d_mlp=0, normalization_type=None, input="vectors",
            d_input=2,
        )  # fmt: skip
        model = HookedTransformer(cfg)
        for parameter in model.parameters():
            parameter.data.zero_()
        model.embed.W_E.data[:, :2] = 4.0 * torch.eye(2)
        model.unembed.W_U.data[:2] = torch.eye(2)
        model.pos_embed.W_pos.data[:, :2] = -2.0  # logits are 2 for a cell of 1, -2 for a cell of 0
        items = own_items(np.zeros((1, 3), dtype=int), vectors=[[[1, 0], [1, 0], [1, 1]]])
        result = ablation.run([model], items, ["embed"], metric="loss")
        right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
        assert result.metadata["intact"]["0"] == pytest.approx((3 * right + wrong) / 4)
        assert result.metadata["intact_accuracy"]["0"] == 0.75
        without = (1 * right + 3 * wrong) / 4  # all cells are then taken for 0
        assert result.values[0, 0] == pytest.approx(without - (3 * right + wrong) / 4)

    def test_tokens_are_no_vectors(self):
        with pytest.raises(ConfigError, match="vectors"):
            ablation.run([load_pretrained("eca-vectors", 0)], own_items([[1, 2, 3]]))


def test_metrics_have_units_and_directions():
    assert {m.unit for m in METRICS.values()} == {"fraction", "nats", "logits"}
    assert [m.change for m in METRICS.values()] == ["accuracy lost", "loss gained", "logit difference lost"]
