from __future__ import annotations

import numpy as np
import pytest

from analyses import attention
from mechproc.errors import ConfigError

from ..conftest import N_CTX, alternating, planted

ITEMS = alternating((1, 2, 6), (2, 3, 4))


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
