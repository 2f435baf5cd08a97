"""``k-dyck`` against enumeration of all its items, a plain-Python stack and numbers worked out by hand."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Curriculum, Fixed, KDyck, Uniform


def enumerated(k: int, p_open: float, length: int) -> dict[tuple[int, ...], float]:
    """Every item of one length with its probability, straight from the description of the generator."""
    items: dict[tuple[int, ...], float] = {}

    def go(prefix: tuple[int, ...], stack: tuple[int, ...], probability: float) -> None:
        remaining = length - len(prefix)
        if remaining == 0:
            items[prefix] = probability
            return
        opening = 1.0 if not stack else 0.0 if len(stack) == remaining else p_open
        if opening > 0:
            for kind in range(k):
                go((*prefix, 1 + kind), (*stack, kind), probability * opening / k)
        if opening < 1:
            go((*prefix, 1 + k + stack[-1]), stack[:-1], probability * (1 - opening))

    go((), (), 1.0)
    return items


@st.composite
def nested(draw, k: int = 3, longest: int = 14) -> str:
    """An item of ``KDyck(k=k)`` in token names."""
    length = 2 * draw(st.integers(1, longest // 2))
    names, stack, item = KDyck(k=k).token_names, [], []
    for remaining in range(length, 0, -1):
        if not stack or (len(stack) < remaining and draw(st.booleans())):
            stack.append(draw(st.integers(0, k - 1)))
            item.append(names[1 + stack[-1]])
        else:
            item.append(names[1 + k + stack.pop()])
    return " ".join(item)


@given(nested())
@settings(deadline=None, max_examples=200)
def test_latents_and_masks_as_a_plain_stack_has_them(text):
    procedure = KDyck(Uniform(2, 14, 2), k=3)
    block = procedure.encode([text])
    latents = {name: values[0].tolist() for name, values in block.latents.items()}
    seen = {
        name: {tuple(i) for i in np.argwhere(m[0]).tolist()} for name, m in procedure.attention_targets(block).items()
    }
    stack: list[int] = []
    match, innermost = set(), set()
    tokens = text.split()
    for p, name in enumerate(tokens):
        if name in "([{":
            stack.append(p)
            assert latents["match"][p] == UNDEFINED
        else:
            match.add((p, stack[-1]))
            assert latents["match"][p] == stack.pop()
        assert latents["depth"][p] == len(stack)
        assert latents["remaining"][p] == len(tokens) - 1 - p
        assert latents["innermost"][p] == (stack[-1] if stack else UNDEFINED)
        assert latents["top"][p] == ("([{".index(tokens[stack[-1]]) if stack else UNDEFINED)
        assert latents["distance"][p] == (p - stack[-1] if stack else UNDEFINED)
        if stack:
            innermost.add((p, stack[-1]))
    assert seen == {"previous": {(p, p - 1) for p in range(1, len(tokens))}, "match": match, "innermost": innermost}
    assert block.scored[0].tolist() == [p < len(tokens) - 1 for p in range(14)]


@given(nested(), st.integers(0, 13))
@settings(deadline=None, max_examples=100)
def test_what_the_oracle_appends_closes_everything(text, cut):
    procedure = KDyck(Uniform(2, 28, 2), k=3)
    prefix = text.split()[: cut + 1]
    whole = procedure.encode([" ".join([*prefix, *procedure.oracle(prefix)])])
    assert whole.latents["depth"][0, int(whole.n_tokens[0]) - 1] == 0
    assert len(procedure.oracle(prefix)) == procedure.encode([" ".join(prefix)]).latents["depth"][0, len(prefix) - 1]


@pytest.mark.parametrize(
    ("lengths", "k", "p_open"),
    [(Uniform(2, 8, 2), 2, 0.49), (Uniform(4, 8, 4), 1, 0.8), (Fixed(8), 2, 0.2), (Curriculum(2, 6), 2, 0.5)],
)
def test_next_probabilities_are_those_of_the_enumerated_rule(lengths, k, p_open):
    procedure = KDyck(lengths, k, p_open)
    support = lengths.support().tolist()
    goes_on: dict[tuple[int, ...], float] = collections.defaultdict(float)
    followed: dict[tuple[int, ...], np.ndarray] = collections.defaultdict(lambda: np.zeros(procedure.d_vocab))
    items = [(item, p / len(support)) for n in support for item, p in enumerated(k, p_open, n).items()]
    for item, probability in items:
        for cut in range(1, len(item)):
            goes_on[item[:cut]] += probability
            followed[item[:cut]][item[cut]] += probability
    rows = [list(item) + [0] * (procedure.n_ctx - len(item)) for item, _ in items]
    block = procedure.annotate(np.array(rows), np.array([len(item) for item, _ in items]))
    probabilities, legal = procedure.next_probabilities(block), procedure.legal_next(block)
    for i, (item, _) in enumerate(items):
        for cut in range(1, len(item)):
            expected = followed[item[:cut]] / goes_on[item[:cut]]
            assert np.allclose(probabilities[i, cut - 1], expected, rtol=0, atol=1e-12)
            assert np.array_equal(legal[i, cut - 1], expected > 0)


@pytest.mark.parametrize(("length", "k", "p_open"), [(6, 2, 0.49), (8, 1, 0.7)])
def test_items_are_drawn_as_often_as_the_enumerated_rule_says(length, k, p_open):
    n = 40_000
    tokens, n_tokens = KDyck(Fixed(length), k, p_open).draw(np.random.default_rng(0), np.full(n, length))
    assert (n_tokens == length).all()
    counts = collections.Counter(map(tuple, tokens.tolist()))
    expected = enumerated(k, p_open, length)
    assert sum(expected.values()) == pytest.approx(1) and set(counts) == set(expected)
    chi_squared = sum((counts[item] - n * p) ** 2 / (n * p) for item, p in expected.items())
    assert chi_squared < len(expected) - 1 + 4 * np.sqrt(2 * len(expected))


def test_items_of_mixed_lengths_drawn_together_are_well_nested():
    lengths = np.array([2, 12, 4, 12, 8, 2])
    procedure = KDyck(Uniform(2, 12, 2), k=3)
    tokens, n_tokens = procedure.draw(np.random.default_rng(0), lengths)
    block = procedure.annotate(tokens, n_tokens)
    assert np.array_equal(n_tokens, lengths)
    assert (block.latents["depth"][np.arange(6), lengths - 1] == 0).all()
    assert ((block.tokens > 3) == (block.latents["match"] != UNDEFINED)).all()


def test_ceiling_and_baselines_by_hand():
    procedure = KDyck(Fixed(4), k=2)
    block = procedure.encode(["( ( ) )", "( ) [ ]"])
    # after "(": it closes with 0.51; after "( (": it must close; after "( )": one of two kinds opens
    assert procedure.ceiling(block) == pytest.approx((0.51 + 1 + 1 + 0.51 + 0.5 + 1) / 6)
    baselines = procedure.baselines(block)
    assert baselines["a bracket at random"] == 1 / 4
    # targets: ( ) ) and ) [ ]
    assert baselines["the most frequent bracket"] == pytest.approx(3 / 6)
    # two kinds open or one closes; one closes; one closes / the same three; two kinds open; one closes
    assert baselines["a legal bracket at random"] == pytest.approx((1 / 3 + 1 + 1 + 1 / 3 + 1 / 2 + 1) / 6)
    # right at all but the two places where a bracket opens
    assert baselines["closing the kind opened last"] == pytest.approx(4 / 6)
    # targets [ ] ) [ ]: wrong at the two that open and at ")", where "[" was opened last
    longer = KDyck(Fixed(6), k=2)
    nested_once = longer.baselines(longer.encode(["( [ ] ) [ ]"]))
    assert nested_once["closing the kind opened last"] == pytest.approx(2 / 5)


def test_an_unknown_length_makes_closing_before_the_shortest_end_no_less_possible():
    # after "( )" of length 4 or 8 nothing has ended yet: a bracket must open
    procedure = KDyck(Uniform(4, 8, 4), k=1)
    block = procedure.encode(["( ) ( ) ( )"])
    assert procedure.open_probability(block)[0, [1, 3]].tolist() == [1, 1]
    # after "( (" the rest of length 4 is forced, that of length 8 is free: both are as likely up to here
    forced_or_free = procedure.open_probability(procedure.encode(["( ( )"]))[0, 1]
    assert forced_or_free == pytest.approx(0.49 / 2)
    # and ")" is then 1/0.51 times as likely under length 4, where the fourth token must close
    after = procedure.open_probability(procedure.encode(["( ( ) )"]))[0, 2]
    assert after == pytest.approx(0.49 * 0.51 / (1 + 0.51))


@pytest.mark.parametrize("p_open", [0.01, 0.99, 0.999])
def test_extreme_chances_do_not_overflow(p_open):
    procedure = KDyck(lengths=Uniform(4, 400, 2), k=2, p_open=p_open)
    block = procedure.items(20, split="train")
    assert np.allclose(procedure.next_probabilities(block)[block.scored].sum(axis=-1), 1, rtol=0, atol=1e-9)
    assert 0.4 < procedure.ceiling(block) <= 1
    procedure.encode(procedure.decode(block.take(slice(3))))


def test_an_item_that_begins_by_closing_is_refused():
    with pytest.raises(ConfigError, match=r"breaks the rule of k-dyck: '\)' may not stand at position 0"):
        KDyck.small_version().encode(["( )", ") ("])


def test_long_items_do_not_underflow():
    procedure = KDyck(Fixed(2600), k=1, p_open=0.5)
    block = procedure.annotate(*procedure.draw(np.random.default_rng(0), np.full(2, 2600)))
    assert np.allclose(procedure.next_probabilities(block)[block.scored].sum(axis=-1), 1)


def test_a_bracket_that_closes_nothing_has_no_match_and_nothing_legal_after_it():
    procedure = KDyck(Fixed(4), k=2)
    block = procedure.annotate(np.array([[1, 4, 3, 0], [3, 1, 3, 0]]), np.array([3, 3]))
    assert block.latents["match"].tolist() == [[-1, -1, 0, -1], [-1, -1, 1, -1]]
    assert block.latents["depth"].tolist() == [[1, 1, 0, -1], [0, 1, 0, -1]]
    assert not procedure.legal_next(block)[0, 1:].any() and not procedure.legal_next(block)[1].any()
    for text in ["( ] )", ") ( )", "( ) )"]:
        with pytest.raises(ConfigError, match="breaks the rule of k-dyck"):
            procedure.encode([text])


def test_kind_pairs_differ_in_one_matched_pair_and_nesting_pairs_in_order():
    procedure = KDyck(Uniform(6, 12, 2), k=4)
    clean, corrupt = procedure.minimal_pairs("kind", 200)
    assert ((clean.tokens != corrupt.tokens).sum(axis=1) == 2).all()
    clean, corrupt = procedure.minimal_pairs("nesting", 200)
    assert np.array_equal(np.sort(clean.tokens, axis=1), np.sort(corrupt.tokens, axis=1))
    assert ((clean.tokens != corrupt.tokens).sum(axis=1) == 3).all()
    assert (np.abs(clean.latents["depth"] - corrupt.latents["depth"]).sum(axis=1) == 2).all()


def test_with_one_kind_there_are_no_pairs_of_kinds():
    with pytest.raises(ConfigError, match="cannot be drawn from k-dyck"):
        KDyck(Uniform(10, 14, 2), k=1).minimal_pairs("kind", 1)


def test_token_names_pair_up():
    names = KDyck(k=6).token_names
    assert list(zip(names[1:7], names[7:], strict=True)) == [
        *zip("([{<", ")]}>", strict=True),
        ("(5", ")5"),
        ("(6", ")6"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k = 0 is not allowed: at least 1"),
        ({"p_open": 0.0}, "p_open = 0.0 is not allowed"),
        ({"p_open": 1.0}, "p_open = 1.0 is not allowed"),
        ({"lengths": Fixed(5)}, "lengths = .*even lengths only"),
        ({"lengths": Uniform(2, 6)}, "lengths = .*even lengths only"),
        ({"lengths": Curriculum(2, 8, increment=3, cumulative=False)}, "lengths = .*even lengths only"),
    ],
)
def test_impossible_sizes_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        KDyck(**change)
