from __future__ import annotations

import numpy as np
import pytest
import torch

import analyses.models
from analyses import attention
from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Uniform

from ..conftest import N_CTX, alternating, planted, previous_mask

ITEMS = alternating((1, 2, 6), (2, 3, 4))
MASK = previous_mask(ITEMS)


class TestScores:
    def test_the_planted_head_scores_one(self):
        result = attention.scores([planted(1)], ITEMS, {"previous": MASK})
        assert result.axes == ("mask", "layer", "head", "seed")
        assert result.select(mask="previous", layer=0, head=1, seed=0).values == pytest.approx(1.0)
        # Uniform attention gives 1 / (query + 1): item 0 has queries 1 to 5, item 1 queries 1 to 3; items count alike.
        by_hand = (np.mean([1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]) + np.mean([1 / 2, 1 / 3, 1 / 4])) / 2
        assert result.metadata["uniform"]["previous"] == pytest.approx(by_hand)
        assert result.metadata["n_items"] == {"previous": 2}

    def test_the_idle_head_scores_what_its_pattern_says(self):
        model = planted(1, seed=5)
        result = attention.scores([model], ITEMS, {"previous": MASK})
        look = attention.patterns(model, ITEMS).values[0, 0]
        by_hand = np.mean([np.mean([look[i, q, q - 1] for q in range(1, n)]) for i, n in enumerate(ITEMS.n_tokens)])
        assert result.values[0, 0, 0, 0] == pytest.approx(by_hand)

    def test_a_model_without_weights_scores_what_uniform_attention_does(self):
        cfg = planted().cfg
        model = HookedTransformer(cfg)
        for parameter in model.parameters():
            parameter.data.zero_()
        two = MASK | (np.arange(N_CTX)[:, None] == np.arange(N_CTX)) & MASK.any(axis=2)[:, :, None]
        result = attention.scores([model], ITEMS, {"one": MASK, "two": two})
        for mask in ("one", "two"):
            assert result.select(mask=mask).values == pytest.approx(result.metadata["uniform"][mask])
        assert result.metadata["uniform"]["two"] == pytest.approx(2 * result.metadata["uniform"]["one"])

    def test_a_mask_without_a_target_is_undefined(self):
        result = attention.scores([planted()], ITEMS, {"none": np.zeros_like(MASK), "previous": MASK})
        assert np.isnan(result.select(mask="none").values).all()
        assert [where for where, _ in result.undefined] == [{"mask": "none"}]
        assert "none" not in result.metadata["uniform"]
        assert result.metadata["n_items"]["none"] == 0
        assert attention.by_rank(result).is_undefined.sum() == 2
        with pytest.raises(ConfigError, match="mask = 'none'"):
            attention.match_heads(result, "none")

    def test_items_without_a_target_do_not_count(self):
        first_only = MASK & (np.arange(len(ITEMS)) == 0)[:, None, None]
        whole = attention.scores([planted()], ITEMS, {"first": first_only}).values
        alone = attention.scores([planted()], ITEMS.take(slice(0, 1)), {"first": MASK[:1]}).values
        np.testing.assert_allclose(whole, alone, atol=1e-6)

    def test_the_size_of_a_batch_changes_nothing(self, monkeypatch):
        whole = attention.scores([planted(0, 3)], ITEMS, {"previous": MASK})
        monkeypatch.setattr(analyses.models, "BATCH_ITEMS", 1)
        cut = attention.scores([planted(0, 3)], ITEMS, {"previous": MASK})
        np.testing.assert_allclose(cut.values, whole.values, atol=1e-6)

    def test_a_procedures_own_masks(self):
        task = Haystack(lengths=Uniform(1, 4), n_keys=6, n_values=8)
        cfg = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
        items = task.items(50)
        result = attention.scores([HookedTransformer(cfg)], items, task.attention_targets(items))
        assert result.coordinates["mask"] == tuple(task.attention_target_names)
        uniform = np.mean([1 / (2 * n + 1) for n in items.latents["n_pairs"].max(axis=1)])
        assert result.metadata["uniform"]["answer"] == pytest.approx(uniform)

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (MASK[:, :4, :4], "shape of mask 'bad'"),
            (MASK | MASK.transpose(0, 2, 1), "a key after its query"),
            (np.broadcast_to(np.eye(N_CTX, k=-1, dtype=bool), MASK.shape), "a query on padding"),
        ],
    )
    def test_masks_that_cannot_be(self, mask, message):
        with pytest.raises(ConfigError, match=message):
            attention.scores([planted()], ITEMS, {"bad": mask})


class TestModels:
    def test_vectors(self):
        cfg = ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=6, d_vocab=3, input="vectors", d_input=3)
        items = Items(ITEMS.tokens, ITEMS.n_tokens, ITEMS.scored, {})
        with pytest.raises(ConfigError, match="vectors"):
            attention.patterns(HookedTransformer(cfg), items)
        vectors = np.random.default_rng(0).random((*ITEMS.tokens.shape, 3)).astype(np.float32)
        items = Items(ITEMS.tokens, ITEMS.n_tokens, ITEMS.scored, {}, vectors)
        result = attention.scores([HookedTransformer(cfg)], items, {"previous": MASK})
        assert np.isfinite(result.values).all()

    def test_logits_that_are_not_finite(self):
        broken = planted()
        broken.embed.W_E.data[1] = torch.nan
        with pytest.raises(ConfigError, match="logits of seed 4"):
            attention.scores({3: planted(), 4: broken}, ITEMS, {"previous": MASK})

    def test_a_hook_that_was_left(self):
        model = planted()
        model.add_hook("hook_embed", lambda activation, hook: 0 * activation)
        with pytest.raises(PartError, match="hook_embed"):
            attention.patterns(model, ITEMS)
