"""``identity`` and ``set`` against answers and counts made by hand or by plain Python."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Fixed, Identity, Procedure, Set, Uniform

LETTERS = "abcdefgh"
inputs = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=9)
WIDE = Uniform(1, 9)


def encoded(procedure: Procedure, symbols: list[str]):
    question = [*symbols, "|"]
    return procedure.encode([" ".join([*question, *procedure.oracle(question)])])


@given(inputs)
@settings(deadline=None, max_examples=200)
def test_latents_of_set_as_plain_python_has_them(symbols):
    block = encoded(Set(WIDE, len(LETTERS)), symbols)
    sources = [p for p, s in enumerate(symbols) if s not in symbols[:p]]
    start, end = len(symbols), len(symbols) + 1 + len(sources)
    assert int(block.n_tokens[0]) == end
    latents = {name: values[0].tolist() for name, values in block.latents.items()}
    for p in range(block.tokens.shape[1]):
        in_input, in_output = p < start, start <= p < end
        done = p - start
        assert latents["written"][p] == (done if in_output else UNDEFINED)
        assert latents["remaining"][p] == (len(sources) - done if in_output else UNDEFINED)
        assert latents["source"][p] == (sources[done] if start <= p < end - 1 else UNDEFINED)
        assert latents["next"][p] == (int(block.tokens[0, p + 1]) if start <= p < end - 1 else UNDEFINED)
        assert latents["match"][p] == (sources[done - 1] if start < p < end else UNDEFINED)
        assert latents["first"][p] == (int(p in sources) if in_input else UNDEFINED)
        assert latents["distinct"][p] == (len(set(symbols[: p + 1])) if in_input else UNDEFINED)
        repeated = in_input and p not in sources
        assert latents["duplicate_of"][p] == (symbols.index(symbols[p]) if repeated else UNDEFINED)
        assert bool(block.scored[0, p]) == (start <= p < end - 1)


@given(inputs)
@settings(deadline=None, max_examples=100)
def test_latents_of_identity_as_plain_python_has_them(symbols):
    block = encoded(Identity(WIDE, len(LETTERS)), symbols)
    n = len(symbols)
    before, after = [UNDEFINED] * n, [UNDEFINED] * (block.tokens.shape[1] - 2 * n - 1)
    latents = {name: values[0].tolist() for name, values in block.latents.items()}
    assert latents["source"] == [*before, *range(n), UNDEFINED, *after]
    assert latents["match"] == [*before, UNDEFINED, *range(n), *after]
    assert latents["written"] == [*before, *range(n + 1), *after]
    assert latents["remaining"] == [*before, *range(n, -1, -1), *after]
    assert latents["next"] == [*before, *block.tokens[0, :n].tolist(), UNDEFINED, *after]


@given(inputs)
@settings(deadline=None, max_examples=100)
def test_masks_of_set_as_plain_python_has_them(symbols):
    procedure = Set(WIDE, len(LETTERS))
    block = encoded(procedure, symbols)
    masks = procedure.attention_targets(block)
    seen = {name: {tuple(i) for i in np.argwhere(mask[0]).tolist()} for name, mask in masks.items()}
    sources = [p for p, s in enumerate(symbols) if s not in symbols[:p]]
    start = len(symbols)
    assert seen["previous"] == {(p, p - 1) for p in range(1, start)}
    assert seen["source"] == {(start + j, p) for j, p in enumerate(sources)}
    assert seen["match"] == {(start + 1 + j, p) for j, p in enumerate(sources)}
    assert seen["duplicate"] == {(q, k) for q in range(start) for k in range(q) if symbols[q] == symbols[k]}


def test_a_question_without_its_answer_has_latents_but_nothing_scored():
    block = Set().encode(["b a b |"])
    assert not block.scored.any()
    assert block.latents["source"][0, :5].tolist() == [-1, -1, -1, 0, -1]
    assert block.latents["remaining"][0, 3] == 2
    assert not Set().encode(["b a b"]).scored.any()


@pytest.mark.parametrize("procedure", [Set(Fixed(3), 4), Identity(Fixed(3), 4)])
def test_every_input_is_drawn_equally_often(procedure):
    n = 64 * 300
    tokens, _ = procedure.draw(np.random.default_rng(0), np.full(n, 3))
    counts = collections.Counter(map(tuple, tokens[:, :3].tolist()))
    assert set(counts) == set(itertools.product(range(2, 6), repeat=3))
    expected = n / 64
    chi_squared = sum((c - expected) ** 2 / expected for c in counts.values())
    assert chi_squared < 63 + 4 * np.sqrt(2 * 63)


def test_token_names_are_letters_first():
    assert Set(n_symbols=28).token_names[-3:] == ("z", "s26", "s27")
    assert Set(n_symbols=3).token_names == ("_", "|", "a", "b", "c")


@pytest.mark.parametrize(
    ("procedure", "width"), [(Identity(), 41), (Set(), 41), (Set(n_symbols=5), 26), (Set(Fixed(3)), 7)]
)
def test_width_of_the_longest_item(procedure, width):
    assert procedure.n_ctx == width


def test_baselines_by_hand():
    # scored: b, a in the first item; c, a, b in the second
    block = Set(Uniform(2, 4), 4).encode(["b b a | b a", "c a c b | c a b"])
    baselines = Set(Uniform(2, 4), 4).baselines(block)
    assert baselines["a symbol at random"] == 1 / 4
    assert baselines["the most frequent symbol"] == pytest.approx(2 / 5)
    assert baselines["a symbol of the input"] == pytest.approx((2 / 3 + 1 / 3 + 2 / 4 + 1 / 4 + 1 / 4) / 5)
    # input position by position: b b / c a c: right, wrong / right, right, wrong
    assert baselines["the input position by position"] == pytest.approx(3 / 5)
    alone = Set().baselines(Set().encode(["b b a | b a"]))
    assert alone["the input position by position"] == pytest.approx(1 / 2)
    # b after |: first symbol; then after the b's: b or a / c; after the c's: a or b; after a: c
    assert baselines["a symbol after a copy of the current one"] == pytest.approx((1 + 1 / 2 + 1 + 1 / 2 + 0) / 5)
    # 3 back is best: b, a / c, b, |: right, right / right, wrong, wrong
    assert baselines["the symbol at the best fixed distance"] == pytest.approx(3 / 5)


def test_at_one_fixed_length_distance_alone_solves_identity():
    name = "the symbol at the best fixed distance"
    fixed, varying = Identity(Fixed(6)), Identity(Uniform(2, 10))
    assert fixed.baselines(fixed.block(0, "test", 0))[name] == 1.0
    assert varying.baselines(varying.block(0, "test", 0))[name] < 0.5


@pytest.mark.parametrize("kind", ["symbol", "swap"])
@pytest.mark.parametrize("procedure", [Set(Uniform(3, 6), 8), Identity(Uniform(3, 6), 8)])
def test_symbol_and_swap_touch_one_and_two_input_positions(procedure, kind):
    clean, corrupt = procedure.minimal_pairs(kind, 100)
    start = (clean.tokens == 1).argmax(axis=1)
    is_input = np.arange(procedure.n_ctx) < start[:, None]
    touched = ((clean.tokens != corrupt.tokens) & is_input).sum(axis=1)
    assert (touched == (1 if kind == "symbol" else 2)).all()
    same_bag = [sorted(a) == sorted(b) for a, b in zip(clean.tokens.tolist(), corrupt.tokens.tolist(), strict=True)]
    assert all(same_bag) if kind == "swap" else not any(same_bag)


def test_a_duplicate_made_new_grows_the_answer_and_another_duplicate_does_not():
    procedure = Set(Uniform(3, 6), 8)
    clean, corrupt = procedure.minimal_pairs("duplicate", 100)
    assert (corrupt.n_tokens == clean.n_tokens + 1).all()
    clean, corrupt = procedure.minimal_pairs("other duplicate", 100)
    after = np.arange(procedure.n_ctx) > (clean.tokens == 1).argmax(axis=1)[:, None]
    assert ((clean.tokens != corrupt.tokens).sum(axis=1) == 1).all()
    assert np.array_equal(clean.tokens[after], corrupt.tokens[after])


@pytest.mark.parametrize("procedure", [Set, Identity])
@pytest.mark.parametrize("n_symbols", [1, 0, -3])
def test_impossible_sizes_are_refused(procedure, n_symbols):
    with pytest.raises(ConfigError, match=f"n_symbols = {n_symbols} is not allowed: at least 2"):
        procedure(n_symbols=n_symbols)
