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
from mechproc.result import Result

from .conftest import N_CTX, alternating, planted, previous_mask

ITEMS = alternating((1, 2, 6), (2, 3, 4))
MASK = previous_mask(ITEMS)


class TestPatterns:
    def test_the_planted_head_looks_one_back(self):
        result = attention.patterns(planted(1), ITEMS)
        assert result.axes == ("layer", "head", "item", "query", "key")
        look = result.values[0, 1, 0]
        expected = np.eye(N_CTX, k=-1)
        expected[0, 0] = 1.0
        np.testing.assert_allclose(look, expected, atol=1e-6)
        assert result.metadata["tokens"] == [[1, 2, 1, 2, 1, 2], [2, 3, 2, 3]]

    def test_every_query_gives_one_away_and_nothing_to_the_future(self):
        values = attention.patterns(planted(), ITEMS).values
        np.testing.assert_allclose(values[0, :, 0].sum(-1), 1.0, atol=1e-6)
        assert (np.triu(values[0, :, 0], 1) == 0).all()

    def test_padding_is_undefined(self):
        result = attention.patterns(planted(), ITEMS)
        assert [dict(where) for where, _ in result.undefined] == [{"item": 1, "query": 4}, {"item": 1, "query": 5}]
        assert np.isnan(result.values).sum() == 2 * 2 * N_CTX

    def test_no_more_positions_than_the_longest_item(self):
        assert attention.patterns(planted(), ITEMS.take(slice(1, 2))).values.shape == (1, 2, 1, 4, 4)

    def test_a_window_keeps_the_last_query(self):
        whole, last = attention.patterns(planted(1), ITEMS), attention.patterns(planted(1), ITEMS, window=(-3, None))
        assert last.coordinates["query"] == last.coordinates["key"] == (3, 4, 5)
        np.testing.assert_array_equal(last.values, whole.values[..., 3:, 3:])
        assert [dict(where) for where, _ in last.undefined] == [{"item": 1, "query": 4}, {"item": 1, "query": 5}]
        with pytest.raises(ConfigError, match="window"):
            attention.patterns(planted(1), ITEMS, window=(9, None))

    def test_too_many_items(self):
        many = alternating(*[(1, 2, 6)] * 65)
        with pytest.raises(ConfigError, match="items = 65 is not allowed: 1 to 64"):
            attention.patterns(planted(), many)


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


class TestMatching:
    def scores(self, values) -> Result:
        """One mask, two layers of two heads, three seeds."""
        axes = {"mask": ["answer"], "layer": [0, 1], "head": [0, 1], "seed": [0, 1, 2]}
        shaped = np.array(values, dtype=float).T.reshape(1, 2, 2, 3)
        meta = {"uniform": {"answer": 0.2}}
        return Result("attention", shaped, tuple(axes), axes, "fraction", "higher", "use", metadata=meta)

    FIRST = ((0.1, 0.9, 0.2, 0.3), (0.8, 0.1, 0.1, 0.0), (0.0, 0.1, 0.2, 0.7))
    """By seed: L0.H0, L0.H1, L1.H0, L1.H1."""

    def test_ranks_and_names(self):
        scores = self.scores(self.FIRST)
        result, heads = attention.by_rank(scores), attention.match_heads(scores, "answer")
        assert result.axes == ("mask", "rank", "seed")
        assert result.coordinates["rank"] == (1, 2, 3, 4)
        assert result.values[0].T.tolist() == [[0.9, 0.3, 0.2, 0.1], [0.8, 0.1, 0.1, 0.0], [0.7, 0.2, 0.1, 0.0]]
        assert heads[0] == ["L0.H1", "L1.H1", "L1.H0", "L0.H0"]
        assert heads[1] == ["L0.H0", "L0.H1", "L1.H0", "L1.H1"]  # a tie keeps the order of the forward pass
        assert result.metadata["uniform"] == {"answer": 0.2}

    def test_seeds_with_the_head_at_different_places_are_alike_by_rank(self):
        found = attention.scores([planted(0), planted(1)], ITEMS, {"previous": MASK})
        assert attention.by_rank(found).select(mask="previous", rank=1).values == pytest.approx([1.0, 1.0])
        matched = attention.match_heads(found, "previous")
        assert {seed: heads[0] for seed, heads in matched.items()} == {0: "L0.H0", 1: "L0.H1"}

    @pytest.mark.parametrize(
        ("ranked_by", "seed_0"),
        [
            ("after", ([0.1, 0.9, 0.3, 0.2], [0.8, 0.6, 0.4, 0.2])),
            ("before", ([0.9, 0.3, 0.2, 0.1], [0.6, 0.4, 0.2, 0.8])),
        ],
    )
    def test_a_head_keeps_its_rank_before_and_after(self, ranked_by, seed_0):
        after = self.scores(((0.8, 0.6, 0.2, 0.4), *self.FIRST[1:]))
        result = attention.before_after(self.scores(self.FIRST), after, ranked_by)
        assert result.axes == ("mask", "when", "rank", "seed")
        assert result.select(mask="answer", seed=0, when="before").values.tolist() == seed_0[0]
        assert result.select(mask="answer", seed=0, when="after").values.tolist() == seed_0[1]
        assert result.metadata["ranked_by"] == ranked_by

    def test_other_seeds_are_refused(self):
        scores = self.scores(self.FIRST)
        with pytest.raises(ConfigError, match="coordinates after"):
            attention.before_after(scores, scores.select(seed=[0, 1]))

    def test_other_axes_are_refused(self):
        with pytest.raises(ConfigError, match="axes of 'attention'"):
            attention.by_rank(self.scores(self.FIRST).select(mask="answer"))

    def test_an_unknown_mask(self):
        with pytest.raises(ConfigError, match="mask 'anser'"):
            attention.match_heads(self.scores(self.FIRST), "anser")


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
