from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Items, KDyck, Set


def test_scored_positions_are_listed_left_aligned():
    positions, real = Set().encode(["a b b | a b", "c | c"]).positions()
    assert positions.tolist() == [[3, 4], [1, 0]] and real.tolist() == [[True, True], [True, False]]
    positions, real = KDyck().encode(["( ( ) )", "( )"]).positions()
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]] and real.sum(axis=1).tolist() == [3, 1]


def test_blocks_are_taken_apart_and_joined():
    block = Set().encode(["a b b | a b", "c | c", "d e | d e"])
    joined = Items.join([block.take(np.array([2])), block.take(slice(0, 1))])
    assert Set().decode(joined) == ["d e | d e", "a b b | a b"]
    assert joined.latents["written"][0, :5].tolist() == [-1, -1, 0, 1, 2]
    assert block.targets[1, :3].tolist() == [1, 4, 0] and block.targets[1, -1] == UNDEFINED


def test_a_block_whose_arrays_do_not_fit_is_refused():
    tokens, n_tokens = np.ones((2, 3), dtype=np.int64), np.full(2, 3)
    with pytest.raises(ConfigError, match="Items = \\['depth'\\]"):
        Items(tokens, n_tokens, np.zeros((2, 3), dtype=bool), {"depth": np.zeros((2, 2), dtype=np.int64)})
    with pytest.raises(ConfigError, match="scored"):
        Items(tokens, n_tokens, np.ones((2, 3), dtype=bool), {})
