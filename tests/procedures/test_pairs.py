"""Minimal pairs of every procedure."""

from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.procedures import (
    SPLITS,
    Set,
    Uniform,
)

from .conftest import ALL, names, small

PAIRS = [(kind, pair_kind) for kind, procedure in ALL.items() for pair_kind in procedure.pair_kinds]


@pytest.mark.parametrize(("kind", "pair_kind"), PAIRS)
def test_pairs_change_what_they_declare_and_hold_the_rest(kind, pair_kind):
    procedure = small(kind)
    declared = procedure.pair_kinds[pair_kind]
    assert sorted([*declared.changes, *declared.holds]) == sorted(procedure.latent_names), "each latent in one of both"
    clean, corrupt = procedure.minimal_pairs(pair_kind, 200, split="test")
    assert len(clean) == len(corrupt) == 200
    for name in declared.changes:
        assert (clean.latents[name] != corrupt.latents[name]).any(axis=1).all(), name
    for name in declared.holds:
        assert np.array_equal(clean.latents[name], corrupt.latents[name]), name


@pytest.mark.parametrize(("kind", "pair_kind"), PAIRS)
def test_both_items_of_a_pair_are_items_of_the_rule_and_of_the_split(kind, pair_kind):
    procedure = small(kind)
    for split in ("test", "train"):
        for block in procedure.minimal_pairs(pair_kind, 64, seed=1, split=split):
            procedure.encode(procedure.decode(block))
            starts = procedure.answer_start(block).tolist()
            for item, start in zip(names(procedure, block), starts, strict=True):
                assert procedure.oracle(item[:start]) == item[start:]
            assert (procedure.split_of(block.tokens) == list(SPLITS).index(split)).all()


@pytest.mark.parametrize(("kind", "pair_kind"), PAIRS)
def test_pairs_are_a_pure_function_of_the_seed(kind, pair_kind):
    first, again, other = (small(kind).minimal_pairs(pair_kind, 32, seed=seed)[1].tokens for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_pairs_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match=r"pair kind 'symbl' of set.*did you mean 'symbol'"):
        Set().minimal_pairs("symbl", 4)
    with pytest.raises(ConfigError, match="4 pairs of kind 'duplicate' cannot be drawn from set"):
        Set(lengths=Uniform(8, 12), n_symbols=2).minimal_pairs("duplicate", 4)
