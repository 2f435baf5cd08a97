"""``union`` and ``delete`` against answers and counts made by hand or by plain Python."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Curriculum, Delete, Fixed, Items, Procedure, Uniform, Union

LETTERS = "abcdef"
symbol_lists = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=6)
WIDE = Uniform(2, 12)
SMALL = Uniform(2, 6)


def block_and_latents(procedure: Procedure, question: list[str]) -> tuple[Items, dict[str, list[int]]]:
    block = procedure.encode([" ".join([*question, *procedure.oracle(question)])])
    return block, {name: values[0].tolist() for name, values in block.latents.items()}


def seen_by(procedure: Procedure, block: Items) -> dict[str, set[tuple[int, ...]]]:
    """Each mask of the first item as a set of (query, key)."""
    return {
        name: {tuple(i) for i in np.argwhere(m[0]).tolist()} for name, m in procedure.attention_targets(block).items()
    }


def check_order_of_writing(block: Items, latents: dict[str, list[int]], start: int, sources: list[int]):
    end = start + 1 + len(sources)
    assert int(block.n_tokens[0]) == end
    for p in range(block.tokens.shape[1]):
        done, writes = p - start, start <= p < end - 1
        assert latents["source"][p] == (sources[done] if writes else UNDEFINED)
        assert latents["next"][p] == (int(block.tokens[0, sources[done]]) if writes else UNDEFINED)
        assert latents["match"][p] == (sources[done - 1] if start < p < end else UNDEFINED)
        assert latents["written"][p] == (done if start <= p < end else UNDEFINED)
        assert latents["remaining"][p] == (len(sources) - done if start <= p < end else UNDEFINED)
        assert bool(block.scored[0, p]) == writes


# ---- union ----------------------------------------------------------------------------------------------------------


@given(symbol_lists, symbol_lists)
@settings(deadline=None, max_examples=200)
def test_latents_and_masks_of_union_as_plain_python_has_them(a, b):
    procedure = Union(WIDE, len(LETTERS))
    question = [*a, ",", *b, "|"]
    block, latents = block_and_latents(procedure, question)
    comma, start = len(a), len(a) + 1 + len(b)
    sources = [p for p, s in enumerate(question[:-1]) if s != "," and s not in question[:p]]
    assert procedure.oracle(question) == list(dict.fromkeys(a + b))
    check_order_of_writing(block, latents, start, sources)
    for p in range(block.tokens.shape[1]):
        is_input = p < start and p != comma
        repeated = is_input and p not in sources
        assert latents["first"][p] == (int(p in sources) if is_input else UNDEFINED)
        assert latents["duplicate_of"][p] == (question.index(question[p]) if repeated else UNDEFINED)
        assert latents["distinct"][p] == (len(set(question[: p + 1]) - {","}) if is_input else UNDEFINED)
        assert latents["list"][p] == (int(p > comma) if is_input else UNDEFINED)
        source = latents["source"][p]
        assert latents["next_list"][p] == (int(source > comma) if source != UNDEFINED else UNDEFINED)
    symbols = [p for p in range(start) if p != comma]
    assert seen_by(procedure, block) == {
        "previous": {(p, p - 1) for p in range(1, start) if comma not in (p, p - 1)},
        "source": {(start + j, p) for j, p in enumerate(sources)},
        "match": {(start + 1 + j, p) for j, p in enumerate(sources)},
        "duplicate": {(q, k) for q in symbols for k in symbols if k < q and question[q] == question[k]},
        "across": {(q, k) for q in symbols for k in symbols if k < comma < q and question[q] == question[k]},
    }


def test_each_share_of_the_two_lists_is_equally_likely():
    procedure, n = Union(Fixed(5), 3), 4000
    tokens, _ = procedure.draw(np.random.default_rng(0), np.full(n, 5))
    comma, separator = ((tokens == t).argmax(axis=1) for t in (procedure.d_vocab - 1, 1))
    assert (separator == 6).all()
    assert np.abs(np.bincount(comma, minlength=6)[1:5] - n / 4).max() < 4 * np.sqrt(n * 3 / 16)
    assert set(np.unique(comma).tolist()) == {1, 2, 3, 4}
    drawn = np.bincount(tokens[:, :6].ravel(), minlength=5)[2:5]
    assert np.abs(drawn - drawn.mean()).max() < 4 * np.sqrt(drawn.sum() * 2 / 9)


@pytest.mark.parametrize("text", ["a b | a b", "a , b , c | a b c", "a , b | a , b", "a , b | b a", ", | a"])
def test_what_is_no_union_of_two_lists_is_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of union"):
        Union().encode([text])


def test_baselines_of_union_by_hand():
    # scored: b, a, c / d, a
    procedure = Union(Uniform(2, 5), 4)
    baselines = procedure.baselines(procedure.encode(["b b , a b c | b a c", "d , a d | d a"]))
    assert baselines["a symbol at random"] == 1 / 4
    assert baselines["a symbol of the input"] == pytest.approx((3 / 5 + 1 / 5 + 1 / 5 + 2 / 3 + 1 / 3) / 5)
    # b b a b c: right, wrong, wrong / d a d: right, right
    assert baselines["the input position by position"] == pytest.approx(3 / 5)
    # b a b c: right, right, wrong / d a d: right, right
    assert baselines["each list without duplicates of its own"] == pytest.approx(4 / 5)
    # the first symbol; after the b's: b, the comma or c; after a: b / the first; after the d's: nothing
    assert baselines["a symbol after a copy of the current one"] == pytest.approx((1 + 0 + 0 + 1 + 0) / 5)


def test_a_comma_that_moves_leaves_the_answer_and_both_lists_a_symbol():
    procedure = Union(SMALL, 8)
    clean, corrupt = procedure.minimal_pairs("comma", 200)
    comma, separator = procedure.d_vocab - 1, (clean.tokens == 1).argmax(axis=1)
    moved = (corrupt.tokens == comma).argmax(axis=1) - (clean.tokens == comma).argmax(axis=1)
    assert set(np.unique(moved).tolist()) == {-1, 1}
    assert ((clean.tokens != corrupt.tokens).sum(axis=1) == 2).all()
    for block in (clean, corrupt):
        position = (block.tokens == comma).argmax(axis=1)
        assert (position >= 1).all() and (position <= separator - 2).all()
    answer = np.arange(procedure.n_ctx) > separator[:, None]
    assert np.array_equal(clean.tokens[answer], corrupt.tokens[answer])


# ---- delete ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(LETTERS), min_size=2, max_size=9), st.data())
@settings(deadline=None, max_examples=200)
def test_latents_and_masks_of_delete_as_plain_python_has_them(symbols, data):
    procedure = Delete(WIDE, len(LETTERS))
    named = data.draw(st.sampled_from(symbols))
    question = [*symbols, ",", named, "|"]
    block, latents = block_and_latents(procedure, question)
    n, start, removed = len(symbols), len(symbols) + 2, symbols.index(named)
    sources = [p for p in range(n) if p != removed]
    assert procedure.oracle(question) == [symbols[p] for p in sources]
    check_order_of_writing(block, latents, start, sources)
    end = int(block.n_tokens[0])
    for p in range(block.tokens.shape[1]):
        told = n < p < end
        assert latents["named"][p] == (2 + LETTERS.index(named) if told else UNDEFINED)
        assert latents["removed"][p] == (removed if told else UNDEFINED)
        source = latents["source"][p]
        assert latents["shift"][p] == (source - latents["written"][p] if source != UNDEFINED else UNDEFINED)
    assert seen_by(procedure, block) == {
        "previous": {(p, p - 1) for p in range(1, n)},
        "source": {(start + j, p) for j, p in enumerate(sources)},
        "match": {(start + 1 + j, p) for j, p in enumerate(sources)},
        "named": {(q, n + 1) for q in range(start, end)},
        "removed": {(q, removed) for q in range(n + 1, end)},
    }


def test_the_named_symbol_is_that_of_a_uniform_position():
    procedure, n = Delete(Fixed(3), 3), 27 * 300
    tokens, n_tokens = procedure.draw(np.random.default_rng(0), np.full(n, 3))
    assert (n_tokens == 8).all() and (tokens[:, 3] == procedure.d_vocab - 1).all() and (tokens[:, 5] == 1).all()
    counts = collections.Counter(map(tuple, tokens[:, [0, 1, 2, 4]].tolist()))
    expected: dict[tuple[int, ...], float] = collections.defaultdict(float)
    for a, b, c in np.ndindex(3, 3, 3):
        for named in (a, b, c):
            expected[2 + a, 2 + b, 2 + c, 2 + named] += n / 27 / 3
    assert set(counts) == set(expected)
    chi_squared = sum((counts[item] - e) ** 2 / e for item, e in expected.items())
    assert chi_squared < len(expected) + 4 * np.sqrt(2 * len(expected))


@pytest.mark.parametrize(
    "text",
    ["a b | a b", "a b , c | a b", "a b , | a b", "a b , a b | b", "a b , , | a b", "a b a , a | a b", ", a | a"],
)
def test_what_is_no_deletion_is_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of delete"):
        Delete().encode([text])


def test_a_question_without_its_answer_has_latents_but_nothing_scored():
    block = Delete().encode(["a b a , a |"])
    assert not block.scored.any()
    assert block.latents["removed"][0, :7].tolist() == [-1, -1, -1, -1, 0, 0, -1]
    assert block.latents["source"][0, :7].tolist() == [-1, -1, -1, -1, -1, 1, -1]
    unfinished = Delete().encode(["a b a ,", "a b", "a b a , a"])
    assert not unfinished.scored.any()
    assert (unfinished.latents["named"][:2] == UNDEFINED).all() and unfinished.latents["named"][2, 4] == 2


def test_baselines_of_delete_by_hand():
    # scored: a, b, b / d: the first list without its first b, the second without c
    procedure = Delete(Uniform(2, 4), 4)
    baselines = procedure.baselines(procedure.encode(["a b b b , b | a b b", "c d , c | d"]))
    assert baselines["a symbol of the input"] == pytest.approx((1 / 4 + 3 / 4 + 3 / 4 + 1 / 2) / 4)
    assert baselines["the list position by position"] == pytest.approx(3 / 4)
    # b b b / d: wrong, right, right / right
    assert baselines["the list without its first symbol"] == pytest.approx(3 / 4)
    # a / d: right, nothing, nothing / right
    assert baselines["the list without any named symbol"] == pytest.approx(2 / 4)
    # the first symbol; after a: b; after the b's: b, b or nothing / the first symbol: c
    assert baselines["a symbol after a copy of the current one"] == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)


def test_pairs_of_delete_touch_what_they_say():
    procedure = Delete(SMALL, 8)
    touched = {}
    for kind in procedure.pair_kinds:
        clean, corrupt = procedure.minimal_pairs(kind, 200)
        comma = (clean.tokens == procedure.d_vocab - 1).argmax(axis=1)[:, None]
        differs, pos = clean.tokens != corrupt.tokens, np.arange(procedure.n_ctx)
        parts = (pos < comma, pos == comma + 1, pos > comma + 2)
        touched[kind] = [np.unique((differs & part).sum(axis=1)).tolist() for part in parts]
    assert touched["symbol"] == [[1], [0], [1]]
    assert touched["swap"] == [[2], [0], [2]]
    assert touched["named"][:2] == [[0], [1]] and touched["named"][2][0] >= 1
    assert touched["both"] == [[1], [1], [0]]
    assert touched["earlier copy"][:2] == [[1], [0]] and touched["earlier copy"][2][0] >= 1


# ---- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("procedure", "width"),
    [(Union(), 42), (Union(n_symbols=5), 27), (Union(Fixed(3)), 8), (Delete(), 42), (Delete(Fixed(3)), 8)],
)
def test_width_of_the_longest_item(procedure, width):
    assert procedure.n_ctx == width
    assert procedure.block(0, "train", 0).n_tokens.max() <= width


@pytest.mark.parametrize("rule", [Union, Delete])
def test_the_comma_comes_after_the_symbols(rule):
    assert rule(n_symbols=3).token_names == ("_", "|", "a", "b", "c", ",")


@pytest.mark.parametrize("rule", [Union, Delete])
@pytest.mark.parametrize("lengths", [Fixed(1), Uniform(1, 5), Curriculum(1, 5), Curriculum(1, 5, cumulative=False)])
def test_lengths_without_an_answer_are_refused(rule, lengths):
    with pytest.raises(ConfigError, match=r"lengths = .* is not allowed: lengths of at least 2"):
        rule(lengths)
    with pytest.raises(ConfigError, match="n_symbols = 1 is not allowed: at least 2"):
        rule(n_symbols=1)
    assert len(rule(Curriculum(2, 6)).block(0, "train", 0, 0)) == 1024
