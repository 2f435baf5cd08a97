from __future__ import annotations

import numpy as np
import pytest

from analyses import attention
from analyses.attention import analysis
from analyses.models import untrained
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

from ..conftest import N_CTX, alternating, planted

TASK = Haystack(lengths=Uniform(1, 4), n_keys=6, n_values=8)
CFG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
ITEMS = alternating((1, 2, 6), (2, 3, 4))


class TestRun:
    def test_a_rules_targets_and_the_general_ones_each_with_its_baselines(self):
        models = untrained(CFG, 2)
        result = attention.run(models, TASK, n_items=20, n_untrained=5)
        assert result.coordinates["mask"] == (*TASK.attention_target_names, *attention.GENERAL)
        items = TASK.items(20)
        alone = attention.scores(models, items, TASK.attention_targets(items))
        np.testing.assert_array_equal(result.values[: len(TASK.attention_target_names)], alone.values)
        for mask in result.coordinates["mask"]:
            levels = result.metadata["baselines"][mask]
            best = result.metadata["untrained_best"][mask]
            assert len(best) == 5 and levels == {
                "uniform attention": result.metadata["uniform"][mask],
                "untrained models": max(best),
            }
        assert "ceiling" not in result.metadata, "the rule's accuracy has one, attention has none"
        assert result.metadata["targets"]["induction_head"]["on"] == "random tokens, repeated once"

    def test_models_that_do_not_know_the_rule_are_said_first(self):
        result = attention.run(untrained(CFG, 2), TASK, ["answer"], n_items=50)
        assert len(result.warnings) == 2
        assert "2 of 2 models are not above the best baseline" in result.warnings[0]
        assert "untrained models does to answer" in result.warnings[1]

    def test_a_planted_head_is_above_its_baselines(self):
        result = attention.run({3: planted(1), 4: planted(0)})
        assert result.coordinates["mask"] == tuple(attention.GENERAL)
        best = attention.best_heads(result)["previous_token_head"]
        assert best.heads == {3: "L0.H1", 4: "L0.H0"} and best.above == [3, 4]
        assert result.metadata["sentences"][0].startswith("In 2 of 2 seeds the best head for 'previous_token_head'")
        assert not any("previous_token_head" in warning for warning in result.warnings)

    def test_items_of_ones_own_are_scored_on_their_own_tokens(self):
        result = attention.run([planted(1)], ITEMS, ["previous_token_head", "duplicate_token_head"])
        masks = attention.general_masks(ITEMS)
        chosen = {name: masks[name] for name in ("previous_token_head", "duplicate_token_head")}
        alone = attention.scores([planted(1)], ITEMS, chosen)
        np.testing.assert_array_equal(result.values, alone.values)

    def test_models_of_vectors_have_no_equal_tokens(self):
        cfg = ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=6, d_vocab=3, input="vectors", d_input=3)
        with pytest.raises(ConfigError, match="these models read vectors"):
            attention.run([HookedTransformer(cfg)])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"targets": ["anser"]}, "targets: 'anser' is not one of answer"),
            ({"targets": []}, "targets = "),
            ({"n_untrained": 0}, "n_untrained = 0"),
            ({"items": ITEMS, "n_items": 3}, "n_items = 3"),
            ({"items": "haystack"}, "items = 'haystack'"),
        ],
    )
    def test_what_cannot_be(self, arguments, message):
        with pytest.raises(ConfigError, match=message):
            attention.run(untrained(CFG, 1), **{"items": TASK, **arguments})

    def test_items_with_other_tokens(self):
        with pytest.raises(ConfigError, match="tokens 2 to 20"):
            attention.run([planted()], Haystack(lengths=Uniform(1, 1), n_keys=6, n_values=8))


class TestEntropy:
    def test_a_head_that_looks_at_one_key_has_none(self):
        result = attention.entropy([planted(1)], ITEMS)
        assert result.axes == ("layer", "head", "seed") and result.unit == "nats"
        assert result.values[0, 1, 0] == pytest.approx(0.0, abs=1e-6)
        look = attention.patterns(planted(1), ITEMS).values[0, 0]
        each = [[-(look[i, q, : q + 1] * np.log(look[i, q, : q + 1])).sum() for q in range(1, n)]
                for i, n in enumerate(ITEMS.n_tokens)]  # fmt: skip
        assert result.values[0, 0, 0] == pytest.approx(np.mean([np.mean(item) for item in each]), abs=1e-6)

    def test_uniform_attention_has_the_maximum(self):
        model = planted()
        for parameter in model.parameters():
            parameter.data.zero_()
        result = attention.entropy([model], ITEMS)
        by_hand = np.mean([np.log(np.arange(2, n + 1)).mean() for n in ITEMS.n_tokens])
        assert result.metadata["maximum"] == pytest.approx(by_hand)
        assert result.values == pytest.approx(by_hand)
        assert result.metadata["baselines"]["untrained models"] == min(result.metadata["untrained_lowest"]) < by_hand

    def test_items_of_one_token(self):
        with pytest.raises(ConfigError, match="items of one token"):
            attention.entropy([planted()], alternating((1, 2, 1)))


def test_the_largest_head_of_untrained_models_is_the_baseline(monkeypatch):
    monkeypatch.setattr(analysis, "untrained", lambda cfg, n: [planted(0), planted(1)])
    result = attention.run([planted(1)], targets=["previous_token_head"])
    assert result.metadata["baselines"]["previous_token_head"]["untrained models"] == pytest.approx(1.0)
    assert N_CTX == 6 and result.metadata["sentences"][0].startswith("In 0 of 1 seeds")
