"""Splits of every procedure: no item in two, each with its share and its lengths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mechproc.errors import ConfigError
from mechproc.procedures import (
    SPLITS,
    Addition,
    Fixed,
    Haystack,
    Multiplication,
    ReversedAddition,
    Set,
    Sorting,
    Uniform,
)

from .conftest import every_known_rule, every_procedure, small


@every_procedure
def test_no_item_is_in_two_splits(kind):
    contents = [
        {text for seed in (0, 1) for text in small(kind).decode(small(kind).block(seed, split, 0))} for split in SPLITS
    ]
    assert min(map(len, contents)) > 0
    assert len(set.union(*contents)) == sum(map(len, contents))


@every_known_rule  # the splits of the others are splits of documents
def test_each_split_has_its_share_of_the_space(kind):
    rng = np.random.default_rng(0)
    tokens, _ = small(kind).draw(rng, small(kind).lengths.draw(rng, 40_000))
    tokens = np.unique(tokens, axis=0)
    shares = np.bincount(small(kind).split_of(tokens), minlength=3) / len(tokens)
    spread = np.sqrt(np.array(list(SPLITS.values())) / len(tokens))
    assert (np.abs(shares - list(SPLITS.values())) < 4 * spread).all()


def test_a_space_too_small_to_be_split_is_refused():
    with pytest.raises(ConfigError, match="set with these settings has too few different items"):
        Set(lengths=Fixed(1), n_symbols=2).block(0, "test", 0)


def test_a_split_of_few_items_has_blocks_all_the_same():
    """A validation split of two unordered pairs of digits, a fortieth of what is drawn."""
    procedure = Multiplication(lengths=Fixed(1))
    blocks = [procedure.block(0, "validation", index) for index in range(40)]
    found = {text for block in blocks for text in procedure.decode(block)}
    assert {text.split(" =")[0] for text in found} == {"1 * 3", "3 * 1", "5 * 8", "8 * 5"}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "procedure", [Addition(lengths=Uniform(1, 4)), Set(lengths=Uniform(1, 6), n_symbols=5), Haystack()]
)
def test_lengths_follow_their_distribution_in_each_split(procedure, split):
    """Where a length has few items, few of them are of the split: the length must not become rare by that."""
    n_tokens = np.concatenate([procedure.block(seed, split, 0).n_tokens for seed in range(4)])
    if isinstance(procedure, Addition):
        n_tokens = np.concatenate(
            [(procedure.block(seed, split, 0).tokens == procedure._token_of["+"]).argmax(axis=1) for seed in range(4)]
        )
    elif isinstance(procedure, Set):
        n_tokens = np.concatenate([(procedure.block(seed, split, 0).tokens == 1).argmax(axis=1) for seed in range(4)])
    _, counts = np.unique(n_tokens, return_counts=True)
    occurring = len(procedure._lengths_in(split, None))
    assert len(counts) == occurring and stats.chisquare(counts).pvalue > 1e-3


def test_a_length_without_items_in_a_split_gives_way_to_the_others():
    procedure = Set(lengths=Uniform(1, 6), n_symbols=2)  # two items of length 1
    missing = [split for split in SPLITS if 1 not in procedure._lengths_in(split, None)]
    assert missing
    for split in missing:
        assert ((procedure.block(0, split, 0).tokens == 1).argmax(axis=1) > 1).all()


@pytest.mark.parametrize(
    "procedure", [Addition(lengths=Fixed(2)), Multiplication(lengths=Fixed(2)), ReversedAddition()]
)
def test_twins_fall_into_one_split(procedure):
    items = procedure.items(300)
    texts = [text.split(" = ")[0] for text in procedure.decode(items)]
    operator = procedure.operator
    swapped = [f"{b} {operator} {a}" for a, b in (text.split(f" {operator} ") for text in texts)]
    assert (procedure.split_of(procedure.encode([f"{text} =" for text in swapped]).tokens) == 0).all()
    alone = procedure.replace(protocol="paper")
    assert len(set(alone.split_of(alone.encode([f"{text} =" for text in swapped]).tokens).tolist())) > 1


def test_lists_of_the_same_numbers_fall_into_one_split():
    task = Sorting(lengths=Uniform(2, 4))
    texts = [text.split(" | ")[0].split() for text in task.decode(task.items(200))]
    backwards = [[t for i in range(len(x) - 2, -1, -2) for t in x[i : i + 2]] for x in texts]
    tokens = task.encode([" ".join([*x, "|"]) for x in backwards]).tokens
    assert (task.split_of(tokens) == 0).all()
