"""Brackets that may cross, beside a plain-Python reader and the probabilities of a simulation."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Fixed, KDyckShuffle, Uniform


@given(k=st.integers(1, 5), max_open=st.integers(1, 6), closed=st.booleans(), seed=st.integers(0, 99))
def test_latents_are_what_a_reader_finds(k, max_open, closed, seed):
    procedure = KDyckShuffle(lengths=Uniform(4, 12, step=2), k=k, max_open=max_open, closed=closed)
    rng = np.random.default_rng(seed)
    tokens, n_tokens = procedure.draw(rng, procedure.lengths.draw(rng, 20))
    block = procedure.annotate(tokens, n_tokens)
    for i, n in enumerate(n_tokens.tolist()):
        open_at: dict[int, list[int]] = defaultdict(list)
        for p, token in enumerate(tokens[i, :n].tolist()):
            kind, match = (token - 1) % k, UNDEFINED
            if token <= k:
                open_at[kind].append(p)
            else:
                match = open_at[kind].pop()  # fails where nothing of this kind is open
            depth = sum(map(len, open_at.values()))
            assert depth <= max_open
            found = {name: int(values[i, p]) for name, values in block.latents.items()}
            n_kinds = sum(1 for where in open_at.values() if where)
            expected = {"depth": depth, "own": len(open_at[kind]), "open_kinds": n_kinds, "match": match}
            assert found == {**expected, "remaining": n - 1 - p}
        assert not closed or depth == 0


@pytest.mark.parametrize("closed", [True, False])
def test_probabilities_are_those_of_the_generator(closed):
    """After each beginning that is frequent enough, the share of each next token."""
    procedure = KDyckShuffle(lengths=Uniform(2, 6, step=2), k=2, max_open=2, closed=closed)
    rng = np.random.default_rng(0)
    tokens, n_tokens = procedure.draw(rng, procedure.lengths.draw(rng, 200_000))
    following: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for row, n in zip(tokens.tolist(), n_tokens.tolist(), strict=True):
        for p in range(1, n):
            following[tuple(row[:p])][row[p]] += 1
    frequent = {start: seen for start, seen in following.items() if sum(seen.values()) > 3_000}
    assert len(frequent) > 20
    for start, seen in frequent.items():
        row = np.zeros((1, procedure.n_ctx), dtype=np.int64)
        row[0, : len(start)] = start
        block = procedure.annotate(row, np.array([len(start) + 1]))
        probabilities = procedure.next_probabilities(block)[0, len(start) - 1]
        n = sum(seen.values())
        for token in range(procedure.d_vocab):
            spread = np.sqrt(max(probabilities[token] * (1 - probabilities[token]), 1e-6) / n)
            assert abs(seen[token] / n - probabilities[token]) < 5 * spread, (start, token)


def test_brackets_do_cross_and_the_cut_form_stays_open():
    texts = KDyckShuffle.small_version().decode(KDyckShuffle.small_version().items(300))
    assert any("( [ ) ]" in text for text in texts)
    cut = KDyckShuffle(lengths=Fixed(9), closed=False, k=3).items(300)
    assert (cut.latents["depth"][:, -1] > 0).mean() > 0.9
    assert (KDyckShuffle(k=3).items(300).latents["remaining"] == 0).sum() == 300


def test_items_of_the_cut_form_are_read_back_and_wrong_ones_refused():
    procedure = KDyckShuffle(lengths=Fixed(4), closed=False, k=2)
    assert len(procedure.encode(["( ( [ )", "( [ ( ["])) == 2
    with pytest.raises(ConfigError, match="']' may not stand at position 2"):
        procedure.encode(["( ( ] ("])
    with pytest.raises(ConfigError, match=r"'\[' may not stand at position 2"):
        KDyckShuffle(lengths=Fixed(4), k=2).encode(["( ( [ )"])


def test_the_oracle_closes_one_kind_and_an_answer_starts_where_one_is_left():
    procedure = KDyckShuffle.small_version()
    for text, start in {"( [ ) ]": 3, "( ( [ ] ) )": 4, "[ ( ) ( ) ]": 5}.items():
        block = procedure.encode([text])
        assert procedure.answer_start(block).tolist() == [start]


def test_open_brackets_are_what_the_mask_shows():
    procedure = KDyckShuffle.small_version()
    mask = procedure.attention_targets(procedure.encode(["( [ ) ( ] )"]))["open"][0]
    looked = [np.flatnonzero(row).tolist() for row in mask[:6]]
    assert looked == [[0], [0, 1], [1], [1, 3], [3], []]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"max_open": 0}, "max_open = 0"), ({"lengths": Fixed(5)}, "even lengths only"), ({"k": 0}, "k = 0")],
)
def test_settings_that_make_no_item_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        KDyckShuffle(**settings)


def test_each_item_is_legal_all_along():
    procedure = KDyckShuffle(lengths=Uniform(4, 20, step=2), k=4, max_open=3)
    block = procedure.items(200)
    legal = procedure.legal_next(block)
    item, query = np.nonzero(block.scored)
    assert legal[item, query, block.targets[item, query]].all()
    for i, p in itertools.islice(zip(item.tolist(), query.tolist(), strict=True), 500):
        may_open = block.latents["depth"][i, p] < 3
        assert legal[i, p, 1:5].all() == may_open or block.latents["remaining"][i, p] <= 3
