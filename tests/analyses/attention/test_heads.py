from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analyses import attention
from mechproc.errors import ConfigError
from mechproc.result import Result

from ..conftest import alternating, planted, previous_mask

ITEMS = alternating((1, 2, 6), (2, 3, 4))
MASK = previous_mask(ITEMS)


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

    def test_which_heads_have_which_rank_is_returned_and_not_hidden_in_the_metadata(self):
        after = self.scores(((0.8, 0.6, 0.2, 0.4), *self.FIRST[1:]))
        result = attention.before_after(self.scores(self.FIRST), after)
        assert "heads" not in result.metadata
        assert attention.match_heads(after, "answer")[0] == ["L0.H0", "L0.H1", "L1.H1", "L1.H0"]


class TestBest:
    def test_seeds_are_counted_whose_best_head_is_above_every_baseline(self):
        scores = TestMatching().scores(TestMatching.FIRST)
        levels = {"answer": {"uniform attention": 0.2, "untrained models": 0.75}}
        found = attention.best_heads(dataclasses.replace(scores, metadata={"baselines": levels}))["answer"]
        assert found.heads == {0: "L0.H1", 1: "L0.H0", 2: "L1.H1"}
        assert found.scores == {0: 0.9, 1: 0.8, 2: 0.7}
        assert found.above == [0, 1]
        assert "2 of 3 seeds" in found.sentence() and "untrained models 0.750" in found.sentence()
        assert attention.best_heads(scores)["answer"].baselines == {"uniform attention": 0.2}

    def test_a_target_that_no_item_has_has_no_best_head(self):
        scores = attention.scores([planted()], ITEMS, {"none": np.zeros_like(MASK), "previous": MASK})
        assert list(attention.best_heads(scores)) == ["previous"]
