"""``multiplication`` against Python's integers, and the floor derived for the paper's protocol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures.digits import multiply
from mechproc.procedures.items import UNDEFINED
from mechproc.procedures.lengths import Curriculum, Fixed, Uniform
from mechproc.procedures.multiplication import Multiplication

LONG = 40
"""Digits of the longest numbers here: their products are far beyond what 64 bits hold."""


@st.composite
def operands(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, LONG))
    number = st.integers(10 ** (n - 1), 10**n - 1) | st.sampled_from([10 ** (n - 1), 10**n - 1])
    return draw(number), draw(number)


def written(a: int, b: int) -> list[str]:
    return [*str(a), "*", *str(b), "=", *(f"c{digit}" for digit in str(a * b)), "."]


def digits_of(number: int) -> list[int]:
    return [int(digit) for digit in str(number)[::-1]]


# ---- items and latents ----------------------------------------------------------------------------------------------


def test_the_widths_of_both_protocols():
    assert Multiplication().n_ctx == 23 == len(written(99_999, 99_999))
    assert Multiplication(protocol="paper").n_ctx == 29


@given(operands())
@settings(deadline=None, max_examples=150)
def test_latents_as_plain_python_has_them(numbers):
    (a, b), procedure = numbers, Multiplication(Uniform(1, LONG))
    names, n, product = written(a, b), len(str(a)), a * b
    a_digits, b_digits = digits_of(a), digits_of(b)
    overflow = int(len(str(product)) == 2 * n)
    columns = [
        [a_digits[i] * b_digits[place - i] for i in range(n) if 0 <= place - i < n] for place in range(2 * n - 1)
    ]
    expected = {name: [UNDEFINED] * procedure.n_ctx for name in procedure.latent_names}
    for p, name in enumerate(names):
        expected["n_digits"][p] = n
        if name.lstrip("c").isdigit():
            expected["digit"][p] = int(name[-1])
            expected["number"][p] = 0 if p < n else 1 if p < 2 * n + 1 else 2
        if name.isdigit():
            expected["operand_place"][p] = n - 1 - p % (n + 1)
    equals = names.index("=")
    for p in range(equals, len(names)):
        expected["slot"][p], expected["overflow"][p] = p - equals, overflow
        place = len(str(product)) - 1 - (p - equals)
        if place < 0:
            continue
        below = sum(sum(column) * 10**k for k, column in enumerate(columns[:place]))
        expected["place"][p], expected["carry"][p] = place, below // 10**place
        if place == 2 * n - 1:
            continue
        column_sum = sum(columns[place])
        total = column_sum + below // 10**place
        expected["column_sum"][p], expected["n_products"][p] = column_sum, len(columns[place])
        expected["total"][p], expected["carry_out"][p] = total, total // 10
    block = procedure.encode([" ".join(names)])
    for name, values in block.latents.items():
        assert values[0].tolist() == expected[name], name
    assert np.flatnonzero(block.scored[0]).tolist() == list(range(equals, len(names) - 1))
    assert procedure.oracle(names[: equals + 1]) == names[equals + 1 :]


def test_many_digits_are_exact():
    numbers = [10**499 + 7, 10**500 - 1]
    a, b = (np.array([digits_of(number)]) for number in numbers)
    answer = multiply(np.array([500]), a, b).answer[0].tolist()
    assert answer == digits_of(numbers[0] * numbers[1]) + [0] * (1000 - len(str(numbers[0] * numbers[1])))


def test_a_curriculum_starts_with_the_fewest_digits():
    procedure = Multiplication(Curriculum(2, 4, increment=1))
    digits = [set(procedure.block(0, "train", 0, stage).latents["n_digits"][:, 0].tolist()) for stage in (0, 1, 2)]
    assert digits == [{2}, {2, 3}, {2, 3, 4}]


# ---- protocols and floors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "correct", "paper"), [(12, 34, "5 6 7 8", "6 7 8 9"), (56, 78, "5 6 7 8 9", "6 7 8 9 10")]
)
def test_scored_positions_worked_out_by_hand(a, b, correct, paper):
    """12 * 34 = 408, 56 * 78 = 4368; the block of the paper's protocol always has room after the stop."""
    for protocol, positions in (("correct", correct), ("paper", paper)):
        block = Multiplication(Fixed(2)).replace(protocol=protocol).encode([" ".join(written(a, b))])
        assert " ".join(map(str, np.flatnonzero(block.scored[0]).tolist())) == positions


def test_floor_and_step_of_the_paper_protocol_are_reproduced():
    """The derived floor, 27.2 %, is that of the most frequent symbol given slot and previous symbol, counted on the
    items that it is scored on. Nine-digit products have 10 scored symbols, the others 11; a digit that is right only
    one time in ten adds 0.9 / 10.83, or 8.3 points."""
    procedure = Multiplication(protocol="paper")
    tokens, n_tokens = procedure.draw(np.random.default_rng(0), np.full(200_000, 5))
    scored = procedure.scored(tokens, n_tokens)
    n_scored = scored.sum(axis=1)
    assert set(n_scored.tolist()) == {10, 11}
    right = 0
    for p in np.flatnonzero(scored.any(axis=0)):
        here = scored[:, p]
        counts = np.bincount(24 * tokens[here, p] + tokens[here, p + 1], minlength=24 * 24).reshape(24, 24)
        right += counts.max(axis=1).sum()
    assert 100 * right / n_scored.sum() == pytest.approx(27.2, abs=0.15)
    assert 100 * 0.9 / n_scored.mean() == pytest.approx(8.3, abs=0.05)

    block = procedure.items(20_480, split="train")
    baselines = procedure.baselines(block)
    assert 100 * baselines["ignores the numbers"] == pytest.approx(27.0, abs=0.3)
    gained = baselines["ignores the numbers, knows the last digit"] - baselines["ignores the numbers"]
    # the last digit is 0 in 27 % of the products, so that knowing it adds less than knowing another
    assert 100 * gained == pytest.approx(100 * 0.73 / n_scored.mean(), abs=0.5)


@pytest.mark.parametrize(("n", "protocol"), [(1, "paper"), (2, "paper"), (3, "paper"), (4, "paper"), (3, "correct")])
def test_baselines_that_know_half_as_plain_python_has_them(n, protocol):
    procedure = Multiplication(Fixed(n)).replace(protocol=protocol)
    block = procedure.annotate(*procedure.draw(np.random.default_rng(0), np.full(300, n)))
    right = {"the leading half of the digits": 0, "the last half of the digits": 0, "multiplies without carrying": 0}
    for item in procedure.decode(block):
        question, answer = item.split(" = ")
        a, b = question.split(" * ")
        a, b = a.replace(" ", ""), b.replace(" ", "")
        kept = n // 2
        upper = [int(x[:kept] + "5" + "0" * (n - kept - 1)) for x in (a, b)]
        lower = [int(x[n - kept :] or "0") for x in (a, b)]
        symbols = answer.split()[:-1]
        uncarried = [
            sum(int(a[-1 - i]) * int(b[-1 - place + i]) for i in range(n) if 0 <= place - i < n) % 10
            for place in range(2 * n - 1)
        ]
        guesses = {
            "the leading half of the digits": digits_of(upper[0] * upper[1]),
            "the last half of the digits": digits_of(lower[0] * lower[1]),
            "multiplies without carrying": [*uncarried, int(a[0]) * int(b[0]) // 10],
        }
        for name, guess in guesses.items():
            guess = (guess + [0] * (2 * n))[: len(symbols)][::-1]
            digits = [x == int(y[1:]) for x, y in zip(guess, symbols, strict=True)]
            # the stop, and under the paper's protocol the padding after it in place of the first digit
            right[name] += sum(digits[1:]) + 2 if protocol == "paper" else sum(digits) + 1
    baselines = procedure.baselines(block)
    for name, count in right.items():
        assert baselines[name] == pytest.approx(count / block.scored.sum()), name


# ---- masks and pairs ------------------------------------------------------------------------------------------------


def test_masks_worked_out_by_hand():
    procedure = Multiplication(Fixed(2))
    masks = procedure.attention_targets(procedure.encode(["5 6 * 7 8 = c4 c3 c6 c8 ."]))
    cells = {name: np.argwhere(mask[0]).tolist() for name, mask in masks.items()}
    assert cells == {
        "a column": [[6, 0], [7, 0], [7, 1], [8, 1]],
        "b column": [[6, 3], [7, 3], [7, 4], [8, 4]],
        "carry source": [[5, 0], [5, 3], [6, 0], [6, 1], [6, 3], [6, 4], [7, 1], [7, 4]],
        "ones": [[8, 1], [8, 4]],
    }


@pytest.mark.parametrize("kind", ["carry", "digit", "swap"])
def test_pairs_as_plain_python_has_them(kind):
    procedure = Multiplication(Uniform(2, 4))
    numbers = []
    for block in procedure.minimal_pairs(kind, 200):
        questions = [item.split(" = ")[0].replace(" ", "").split("*") for item in procedure.decode(block)]
        numbers.append([(int(a), int(b)) for a, b in questions])
    for (a, b), (new_a, new_b) in zip(*numbers, strict=True):
        assert len(str(a * b)) == len(str(new_a * new_b))
        if kind == "swap":
            assert (a, b) == (new_b, new_a) and a != b
            continue
        assert b == new_b and sum(x != y for x, y in zip(str(a), str(new_a), strict=True)) == 1


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1 2 * 3 = c3 c6 .",  # numbers of different lengths
        "0 2 * 3 1 = c6 c2 .",  # a leading zero
        "1 2 * 3 4 = c4 c0 c9 .",  # a wrong digit
        "1 2 * 3 4 = c4 c0 c8 c0",  # no stop
        "1 2 3 4 = c4 c0 c8 .",  # no operator
    ],
)
def test_items_that_break_the_rule_are_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of multiplication"):
        Multiplication(Uniform(1, 3)).encode([text])


def test_the_operators_are_not_mixed():
    with pytest.raises(ConfigError, match=r"token '\+' is not a token of multiplication"):
        Multiplication(Fixed(2)).encode(["1 2 + 3 4 = c4 c6 ."])


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match="protocol = 'papr' is not allowed"):
        Multiplication(protocol="papr")  # pyright: ignore[reportArgumentType]
