"""``stack`` against enumeration of its generator, a plain-Python stack and numbers worked out by hand."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import UNDEFINED, Curriculum, Fixed, Stack, Uniform


def enumerated(n_operations: int, n_symbols: int) -> dict[tuple[str, ...], float]:
    """Every input of one length with its probability, straight from the description of the generator."""
    items: dict[tuple[str, ...], float] = {}

    def go(done: tuple[str, ...], stack: tuple[str, ...], probability: float) -> None:
        if len(done) == n_operations:
            items[done] = probability
            return
        free = [str(s) for s in range(1, n_symbols + 1) if str(s) not in stack]
        if len(stack) <= 1:
            push = 1.0
        elif len(done) == n_operations - 1 or not free:
            push = 0.0
        else:
            push = 3 / 4 if len(done) < n_operations * 2 // 3 else 1 / 4
        if push > 0:
            for symbol in free:
                go((*done, symbol), (*stack, symbol), probability * push / len(free))
        if push < 1:
            go((*done, "P"), stack[:-1], probability * (1 - push))

    go((), (), 1.0)
    return items


@st.composite
def operations(draw, n_symbols: int = 5, longest: int = 12) -> list[str]:
    """Operations of any kind that may be done, those that the generator does not make included."""
    done, stack = [], []
    for _ in range(draw(st.integers(1, longest))):
        free = [str(s) for s in range(1, n_symbols + 1) if str(s) not in stack]
        operation = draw(st.sampled_from(free + (["P"] * 4 if stack else [])))
        if operation == "P":
            stack.pop()
        else:
            stack.append(operation)
        done.append(operation)
    return done


@given(operations())
@settings(deadline=None, max_examples=300)
def test_latents_and_masks_as_a_plain_stack_has_them(done):
    procedure, start = Stack(Uniform(2, 16), 5), len(done)
    answer = procedure.oracle([*done, "|"])
    block = procedure.encode([" ".join([*done, "|", *answer])])
    latents = {name: values[0].tolist() for name, values in block.latents.items()}
    stack: list[int] = []
    popped, top = {}, {}
    for p, operation in enumerate(done):
        if operation == "P":
            popped[p] = stack.pop()
        else:
            stack.append(p)
        if stack:
            top[p] = stack[-1]
        assert latents["depth"][p] == len(stack)
    sources, end = stack[::-1], start + 1 + len(stack)
    assert answer == [done[p] for p in sources]
    for p in range(block.tokens.shape[1]):
        written, writes = p - start, start <= p < end - 1
        assert latents["source"][p] == (sources[written] if writes else UNDEFINED)
        assert latents["next"][p] == (1 + int(answer[written]) if writes else UNDEFINED)
        assert latents["match"][p] == (sources[written - 1] if start < p < end else UNDEFINED)
        assert latents["written"][p] == (written if start <= p < end else UNDEFINED)
        assert latents["remaining"][p] == (len(sources) - written if start <= p < end else UNDEFINED)
        assert bool(block.scored[0, p]) == writes
        assert latents["popped"][p] == popped.get(p, UNDEFINED)
        assert latents["top_position"][p] == top.get(p, UNDEFINED)
        assert latents["top"][p] == (1 + int(done[top[p]]) if p in top else UNDEFINED)
        assert latents["survives"][p] == (int(p in stack) if p < start and done[p] != "P" else UNDEFINED)
        assert p < start or latents["depth"][p] == UNDEFINED
    seen = {
        name: {tuple(i) for i in np.argwhere(m[0]).tolist()} for name, m in procedure.attention_targets(block).items()
    }
    assert seen == {
        "previous": {(p, p - 1) for p in range(1, start)},
        "source": {(start + j, p) for j, p in enumerate(sources)},
        "match": {(start + 1 + j, p) for j, p in enumerate(sources)},
        "top": set(top.items()),
        "popped": set(popped.items()),
    }


@pytest.mark.parametrize(
    ("n_operations", "n_symbols"), [(1, 3), (2, 2), (3, 3), (5, 3), (6, 2), (6, 3), (7, 3), (9, 2), (10, 2)]
)
def test_items_are_drawn_as_often_as_the_enumerated_rule_says(n_operations, n_symbols):
    procedure, n = Stack(Fixed(n_operations), n_symbols), 40_000
    tokens, _ = procedure.draw(np.random.default_rng(0), np.full(n, n_operations))
    counts = collections.Counter(
        tuple(procedure.token_names[t] for t in row) for row in tokens[:, :n_operations].tolist()
    )
    expected = enumerated(n_operations, n_symbols)
    assert sum(expected.values()) == pytest.approx(1) and set(counts) <= set(expected)
    likely = {item: n * p for item, p in expected.items() if n * p >= 5}
    rare = n - sum(likely.values()), n - sum(counts[item] for item in likely)
    chi_squared = sum((counts[item] - e) ** 2 / e for item, e in likely.items())
    chi_squared += (rare[1] - rare[0]) ** 2 / rare[0] if rare[0] > 5 else 0
    assert chi_squared < len(likely) + 4 * np.sqrt(2 * len(likely))
    longest = max(len(procedure.oracle([*item, "|"])) for item in expected)
    assert procedure.n_ctx == n_operations + 1 + longest


def test_items_of_mixed_lengths_drawn_together_can_be_drawn():
    procedure, lengths = Stack(Uniform(1, 9), 4), np.array([1, 9, 4, 9, 2, 7, 3] * 20)
    tokens, n_tokens = procedure.draw(np.random.default_rng(0), lengths)
    block = procedure.annotate(tokens, n_tokens)
    possible = {n: enumerated(n, 4) for n in set(lengths.tolist())}
    for text, n in zip(procedure.decode(block), lengths.tolist(), strict=True):
        item = text.split()
        assert tuple(item[:n]) in possible[n] and item[n:] == ["|", *procedure.oracle(item[: n + 1])]


@given(operations(n_symbols=3, longest=7))
@settings(deadline=None, max_examples=300)
def test_what_can_be_drawn_is_what_the_enumerated_rule_has(done):
    procedure = Stack(Uniform(1, 12), 3)
    tokens = procedure.encode([" ".join([*done, "|"])]).tokens
    can = procedure._can_be_drawn(tokens, np.array([len(done)]))
    assert can.tolist() == [tuple(done) in enumerated(len(done), 3)]


@pytest.mark.parametrize(
    "text", ["P 1 | 1", "1 1 | 1 1", "1 2 P | 2", "1 2 | 1 2", "1 P | 1", "1 P P 2 | 2", "1 2 1 | 1"]
)
def test_what_no_stack_does_is_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of stack"):
        Stack().encode([text])


def test_an_empty_stack_leaves_nothing_to_write():
    block = Stack().encode(["1 P |"])
    assert not block.scored.any() and block.latents["remaining"][0, 2] == 0
    assert block.latents["top"][0, :3].tolist() == [2, UNDEFINED, UNDEFINED]


def test_baselines_by_hand():
    # scored: 2, 1 / 3, 1 / 4
    procedure = Stack(Uniform(1, 8), 4)
    baselines = procedure.baselines(procedure.encode(["1 2 3 P | 2 1", "1 2 P 3 | 3 1", "4 | 4"]))
    assert baselines["a symbol at random"] == 1 / 4
    assert baselines["the most frequent symbol"] == pytest.approx(2 / 5)
    assert baselines["a symbol of the input"] == pytest.approx((4 / 3 + 1) / 5)
    # 3 2 1: wrong, wrong / 3 2 1: right, wrong / right
    assert baselines["the pushes backwards"] == pytest.approx(2 / 5)
    # 3, then before 2: 1 / 3, then before 3: P / 4
    assert baselines["a symbol pushed just before a copy of the current one"] == pytest.approx((0 + 1 + 1 + 0 + 1) / 5)
    # the first push: 1, then after 2: 3 / 1, then nothing / 4
    assert baselines["a symbol after a copy of the current one"] == pytest.approx((0 + 0 + 0 + 0 + 1) / 5)


@pytest.mark.parametrize("kind", list(Stack.pair_kinds))
def test_both_items_of_a_pair_can_be_drawn(kind):
    procedure = Stack(Uniform(3, 7), 4)
    possible = {n: enumerated(n, 4) for n in range(3, 8)}
    for block in procedure.minimal_pairs(kind, 100, split="train"):
        for text in procedure.decode(block):
            item = text.split("|")[0].split()
            assert tuple(item) in possible[len(item)]


def test_pairs_touch_what_they_say():
    procedure = Stack(Uniform(3, 10), 8)
    touched, grown = {}, {}
    for kind in procedure.pair_kinds:
        clean, corrupt = procedure.minimal_pairs(kind, 200)
        start = (clean.tokens == 1).argmax(axis=1)
        differs = (clean.tokens != corrupt.tokens) & (np.arange(procedure.n_ctx) < start[:, None])
        touched[kind] = set(differs.sum(axis=1).tolist())
        grown[kind] = set((corrupt.n_tokens - clean.n_tokens).tolist())
        pops = [(b.tokens == procedure.d_vocab - 1).sum(axis=1) for b in (clean, corrupt)]
        assert np.array_equal(pops[0] - pops[1], np.full(200, int(kind == "pop")))
        if kind == "moved pop":
            is_input = np.arange(procedure.n_ctx) < start[:, None]
            bags = [np.sort(np.where(is_input, b.tokens, 0), axis=1) for b in (clean, corrupt)]
            assert np.array_equal(*bags)
    assert [touched[k] for k in ("symbol", "swap", "popped symbol", "pop")] == [{1}, {2}, {1}, {1}]
    assert grown == {"symbol": {0}, "swap": {0}, "popped symbol": {0}, "moved pop": {0}, "pop": {2}}


@pytest.mark.parametrize(
    ("procedure", "width"),
    [
        (Stack(), 39),
        (Stack(Fixed(1)), 3),
        (Stack(Fixed(2)), 5),
        (Stack(Fixed(20), 6), 25),
        (Stack(Fixed(21), 6), 27),
        (Stack(Uniform(21, 22), 6), 27),
        (Stack(Curriculum(2, 10)), 19),
    ],
)
def test_width_of_the_longest_item(procedure, width):
    assert procedure.n_ctx == width


def test_token_names_are_numbers_then_the_pop():
    assert Stack(n_symbols=3).token_names == ("_", "|", "1", "2", "3", "P")


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="n_symbols = 1 is not allowed: at least 2"):
        Stack(n_symbols=1)


def test_pushes_become_rare_after_two_thirds_of_the_operations_rounded_down():
    """As the authors count: of 20 operations the 14th (index 13) is the first of the late ones."""
    tokens, _ = Stack(Fixed(20)).draw(np.random.default_rng(0), np.full(20_000, 20))
    pops = tokens[:, :20] == Stack(Fixed(20)).token_names.index("P")
    depth = np.cumsum(np.where(pops, -1, 1), axis=1)
    free = depth[:, 12] > 1
    assert pops[free, 13].mean() == pytest.approx(0.75, abs=0.02) and depth[:, -1].mean() == pytest.approx(
        4.35, abs=0.05
    )
