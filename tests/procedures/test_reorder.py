"""``reverse`` and ``sort`` against answers and counts made by hand or by plain Python."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Curriculum, Fixed, Reverse, Sort, Uniform

LETTERS = "abcdefgh"
inputs = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=9)
WIDE = Uniform(1, 9)


def check_order_of_writing(procedure, symbols: list[str], sources: list[int]):
    """The item of ``symbols`` is what writing from ``sources`` makes, and its latents say so; the block."""
    block = procedure.encode([" ".join([*symbols, "|", *(symbols[p] for p in sources)])])
    assert procedure.oracle([*symbols, "|"]) == [symbols[p] for p in sources]
    start, end = len(symbols), len(symbols) + 1 + len(sources)
    latents = {name: values[0].tolist() for name, values in block.latents.items()}
    for p in range(block.tokens.shape[1]):
        done, writes = p - start, start <= p < end - 1
        assert latents["source"][p] == (sources[done] if writes else UNDEFINED)
        assert latents["next"][p] == (int(block.tokens[0, sources[done]]) if writes else UNDEFINED)
        assert latents["match"][p] == (sources[done - 1] if start < p < end else UNDEFINED)
        assert latents["written"][p] == (done if start <= p < end else UNDEFINED)
        assert latents["remaining"][p] == (len(sources) - done if start <= p < end else UNDEFINED)
        assert bool(block.scored[0, p]) == writes
    seen = {
        name: {tuple(i) for i in np.argwhere(m[0]).tolist()} for name, m in procedure.attention_targets(block).items()
    }
    assert seen["previous"] == {(p, p - 1) for p in range(1, start)}
    assert seen["source"] == {(start + j, p) for j, p in enumerate(sources)}
    assert seen["match"] == {(start + 1 + j, p) for j, p in enumerate(sources)}
    return block, seen


@given(inputs)
@settings(deadline=None, max_examples=100)
def test_reverse_writes_from_the_last_position_to_the_first(symbols):
    check_order_of_writing(Reverse(WIDE, len(LETTERS)), symbols, list(range(len(symbols)))[::-1])


@given(inputs)
@settings(deadline=None, max_examples=200)
def test_sort_writes_copies_from_left_to_right(symbols):
    sources = sorted(range(len(symbols)), key=lambda p: (symbols[p], p))
    block, seen = check_order_of_writing(Sort(WIDE, len(LETTERS)), symbols, sources)
    n = len(symbols)
    nothing = [UNDEFINED] * (block.tokens.shape[1] - n)
    assert block.latents["rank"][0].tolist() == [*(sources.index(p) for p in range(n)), *nothing]
    assert block.latents["copies"][0].tolist() == [*(symbols.count(s) for s in symbols), *nothing]
    answer = [symbols[p] for p in sources]
    assert seen["copies"] == {
        (n + 1 + j, p) for (j, a), (p, s) in itertools.product(enumerate(answer), enumerate(symbols)) if a == s
    }


@given(st.lists(st.integers(0, 29), min_size=1, max_size=9))
@settings(deadline=None, max_examples=50)
def test_symbols_after_the_letters_are_sorted_after_them(numbers):
    procedure = Sort(WIDE, 30)
    symbols = [procedure.token_names[2 + i] for i in numbers]
    expected = [procedure.token_names[2 + i] for i in sorted(numbers)]
    assert procedure.oracle([*symbols, "|"]) == expected
    procedure.encode([" ".join([*symbols, "|", *expected])])


@pytest.mark.parametrize(("procedure", "wrong"), [(Sort(), "c a b | a c b"), (Reverse(), "c a b | c a b")])
def test_another_order_is_refused(procedure, wrong):
    with pytest.raises(ConfigError, match=f"breaks the rule of {procedure.kind}"):
        procedure.encode([wrong])


@pytest.mark.parametrize("procedure", [Reverse(Fixed(3), 4), Sort(Fixed(3), 4)])
def test_every_input_is_drawn_equally_often(procedure):
    n = 64 * 300
    tokens, _ = procedure.draw(np.random.default_rng(0), np.full(n, 3))
    counts = collections.Counter(map(tuple, tokens[:, :3].tolist()))
    assert set(counts) == set(itertools.product(range(2, 6), repeat=3))
    chi_squared = sum((c - n / 64) ** 2 / (n / 64) for c in counts.values())
    assert chi_squared < 63 + 4 * np.sqrt(2 * 63)


@pytest.mark.parametrize("rule", [Reverse, Sort])
@pytest.mark.parametrize("lengths", [Fixed(7), Uniform(1, 9), Curriculum(2, 6)])
def test_all_lengths_have_their_answers(rule, lengths):
    procedure = rule(lengths, 5)
    assert procedure.n_ctx == 2 * lengths.max + 1
    block = procedure.items(100)
    for text in procedure.decode(block):
        item = text.split()
        cut = item.index("|") + 1
        assert item[cut:] == procedure.oracle(item[:cut]) and cut - 1 in lengths.support()


def test_baselines_of_reverse_by_hand():
    # scored: a, b, a / c, b: after the separator, then after each symbol of the answer but the last
    procedure = Reverse(Uniform(2, 4), 4)
    baselines = procedure.baselines(procedure.encode(["a b a | a b a", "b c | c b"]))
    assert baselines["a symbol at random"] == 1 / 4
    assert baselines["a symbol of the input"] == pytest.approx((2 / 3 + 1 / 3 + 2 / 3 + 1 / 2 + 1 / 2) / 5)
    # the last symbol; before the a's: b or nothing; before b: a / the last symbol; before c: b
    assert baselines["a symbol before a copy of the current one"] == pytest.approx((1 + 1 / 2 + 1 + 1 + 1) / 5)
    # the first symbol: a; after the a's: b or nothing; after b: a / the first: b; after c: nothing
    assert baselines["a symbol after a copy of the current one"] == pytest.approx((1 + 1 / 2 + 1 + 0 + 0) / 5)
    assert baselines["the input position by position"] == pytest.approx(3 / 5)


def test_baselines_of_sort_by_hand():
    # scored: a, a, c / b, d
    procedure = Sort(Uniform(2, 4), 4)
    baselines = procedure.baselines(procedure.encode(["a c a | a a c", "d b | b d"]))
    assert baselines["the most frequent symbol"] == pytest.approx(2 / 5)
    # a c a: right, wrong, wrong / d b: wrong, wrong
    assert baselines["the input position by position"] == pytest.approx(1 / 5)
    # a, b, b / a, c
    assert baselines["the next larger symbol"] == pytest.approx(1 / 5)
    # a, c, c / b, d
    assert baselines["the next larger symbol of the input"] == pytest.approx(4 / 5)


@pytest.mark.parametrize(("n", "n_symbols"), [(1, 3), (2, 4), (4, 3), (5, 4)])
def test_the_likeliest_symbol_at_a_place_is_that_of_all_inputs(n, n_symbols):
    answers = np.array([sorted(symbols) for symbols in itertools.product(range(n_symbols), repeat=n)])
    counts = np.array([np.bincount(column, minlength=n_symbols) for column in answers.T])
    guess = Sort(Fixed(n), n_symbols)._likeliest(n)
    assert np.array_equal(counts[np.arange(n), guess - 2], counts.max(axis=1))
    procedure = Sort(Fixed(n), n_symbols)
    rows = np.concatenate([answers + 2, np.ones((len(answers), 1), dtype=np.int64), answers + 2], axis=1)
    accuracy = procedure.baselines(procedure.annotate(rows, np.full(len(rows), 2 * n + 1)))
    assert accuracy["the likeliest symbol at this place"] == pytest.approx((answers + 2 == guess).mean())


def test_long_inputs_have_a_likeliest_answer():
    """Of 3,000 symbols of three kinds, a third of each: the binomial coefficients are beyond any float."""
    likeliest = Sort(lengths=Fixed(3_000), n_symbols=3)._likeliest(3_000)
    assert (np.diff(likeliest) >= 0).all() and np.bincount(likeliest)[2:] == pytest.approx(1_000, abs=2)


def test_at_one_fixed_length_distance_alone_does_not_solve_reverse():
    procedure = Reverse(Fixed(6))
    assert procedure.baselines(procedure.block(0, "test", 0))["the symbol at the best fixed distance"] < 0.4


@pytest.mark.parametrize(("procedure", "kind", "n_touched"), [
    (Reverse(Uniform(3, 6), 8), "symbol", 1),
    (Reverse(Uniform(3, 6), 8), "swap", 2),
    (Sort(Uniform(3, 6), 8), "symbol", 1),
    (Sort(Uniform(3, 6), 8), "rank", 1),
    (Sort(Uniform(3, 6), 8), "swap", 2),
])  # fmt: skip
def test_pairs_touch_as_little_of_the_input_as_they_say(procedure, kind, n_touched):
    clean, corrupt = procedure.minimal_pairs(kind, 100)
    start = (clean.tokens == 1).argmax(axis=1)
    touched = clean.tokens != corrupt.tokens
    assert (touched & (np.arange(procedure.n_ctx) < start[:, None])).sum(axis=1).tolist() == [n_touched] * 100
    in_answer = (touched & (np.arange(procedure.n_ctx) > start[:, None])).sum(axis=1)
    if (procedure.kind, kind) == ("sort", "swap"):
        assert (in_answer == 0).all()
    elif kind == "rank":
        assert (in_answer >= 2).all()
    else:
        assert (in_answer == n_touched).all()


@pytest.mark.parametrize("rule", [Reverse, Sort])
def test_impossible_sizes_are_refused(rule):
    with pytest.raises(ConfigError, match="n_symbols = 1 is not allowed: at least 2"):
        rule(n_symbols=1)
