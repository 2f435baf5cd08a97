"""``addition`` and ``reversed-addition`` against Python's integers, and the floors derived for the paper's protocol."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures.addition import Addition, ReversedAddition, Sum
from mechproc.procedures.arithmetic import ANSWER_0
from mechproc.procedures.items import UNDEFINED
from mechproc.procedures.lengths import Fixed, Uniform

BOTH = pytest.mark.parametrize("cls", [Addition, ReversedAddition])
LONG = 24
"""Digits of the longest numbers here: beyond what 64 bits hold."""


@st.composite
def operands(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, LONG))
    digits = st.sampled_from([0, 4, 5, 9]) if draw(st.booleans()) else st.integers(0, 9)  # the first: long carries
    numbers = []
    for _ in range(2):
        lower = draw(st.lists(digits, min_size=n - 1, max_size=n - 1))
        numbers.append(int("".join(map(str, [draw(st.integers(1, 9)), *lower]))))
    return numbers[0], numbers[1]


def written(cls: type[Sum], a: int, b: int) -> list[str]:
    order = slice(None, None, -1 if cls.least_first else 1)
    answer = [f"c{digit}" for digit in str(a + b)[order]]
    return [*str(a)[order], "+", *str(b)[order], "=", *answer, "."]


# ---- items and latents ----------------------------------------------------------------------------------------------


def test_the_default_widths_are_those_of_the_paper():
    assert (Addition().n_ctx, ReversedAddition().n_ctx) == (19, 34)
    assert Addition().d_vocab == ReversedAddition().d_vocab == 24 <= 31


@BOTH
@given(operands())
@settings(deadline=None, max_examples=150)
def test_latents_as_plain_python_has_them(cls, numbers):
    (a, b), procedure = numbers, cls(Uniform(1, LONG))
    names, n = written(cls, a, b), len(str(a))
    total, overflow = a + b, int(len(str(a + b)) > n)
    expected = {name: [UNDEFINED] * procedure.n_ctx for name in procedure.latent_names}
    for p, name in enumerate(names):
        expected["n_digits"][p] = n
        if name.lstrip("c").isdigit():
            expected["digit"][p] = int(name[-1])
            expected["number"][p] = 0 if p < n else 1 if p < 2 * n + 1 else 2
        if name.isdigit():
            offset = p % (n + 1)
            expected["operand_place"][p] = offset if cls.least_first else n - 1 - offset
    equals = names.index("=")
    for p in range(equals, len(names)):
        slot = p - equals
        expected["slot"][p], expected["overflow"][p] = slot, overflow
        place = slot if cls.least_first else len(str(total)) - 1 - slot
        if not 0 <= place <= n:
            continue
        expected["place"][p] = place
        expected["carry"][p] = int(a % 10**place + b % 10**place >= 10**place)
        if place > 0:
            sums = [a // 10**i % 10 + b // 10**i % 10 for i in range(place)]
            expected["carry_distance"][p] = next((d for d in range(1, place) if sums[-d] != 9), place)
        if place == n:
            continue
        a_digit, b_digit = a // 10**place % 10, b // 10**place % 10
        expected["a_digit"][p], expected["b_digit"][p], expected["digit_sum"][p] = a_digit, b_digit, a_digit + b_digit
        expected["carry_out"][p] = int(a % 10 ** (place + 1) + b % 10 ** (place + 1) >= 10 ** (place + 1))
        expected["a_position"][p] = place if cls.least_first else n - 1 - place
        expected["b_position"][p] = expected["a_position"][p] + n + 1
    block = procedure.encode([" ".join(names)])
    for name, values in block.latents.items():
        assert values[0].tolist() == expected[name], name
    assert np.flatnonzero(block.scored[0]).tolist() == list(range(equals, len(names) - 1))
    assert procedure.oracle(names[: equals + 1]) == names[equals + 1 :]


@BOTH
def test_a_prompt_has_the_latents_of_its_first_answer_digit(cls):
    prompt = " ".join(written(cls, 47, 85)[:6])
    procedure = cls(Fixed(2))
    at_equals = {name: int(values[0, 5]) for name, values in procedure.encode([prompt]).latents.items()}
    first = {"place": 0, "carry": 0, "digit_sum": 12} if cls.least_first else {"place": 2, "carry": 1, "digit_sum": -1}
    assert at_equals | first == at_equals
    assert not procedure.encode([prompt]).scored.any()


@BOTH
def test_numbers_are_uniform_among_those_of_their_length(cls):
    procedure = cls(Uniform(1, 3))
    lengths = np.repeat([1, 2, 3], 6_000)
    latents = procedure.annotate(*procedure.draw(np.random.default_rng(0), lengths)).latents
    assert np.array_equal(latents["n_digits"][:, 0], lengths)
    for n in (1, 2, 3):
        for number, place in np.ndindex(2, n):
            here = (latents["n_digits"] == n) & (latents["number"] == number) & (latents["operand_place"] == place)
            share = np.bincount(latents["digit"][here], minlength=10) / 6_000
            leading = place == n - 1
            assert here.sum() == 6_000 and (share[0] == 0) == leading
            assert np.allclose(share[leading:], 1 / (10 - leading), rtol=0, atol=0.02)


# ---- protocols and floors -------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("a", "b", "correct", "paper"),
    [(123, 456, "7 8 9 10", "8 9 10 11"), (623, 456, "7 8 9 10 11", "8 9 10 11")],
)
def test_scored_positions_worked_out_by_hand(cls, a, b, correct, paper):
    item = " ".join(written(cls, a, b))
    for protocol, positions in (("correct", correct), ("paper", paper)):
        block = cls(Fixed(3), protocol).encode([item])
        assert " ".join(map(str, np.flatnonzero(block.scored[0]).tolist())) == positions


def test_the_paper_protocol_scores_the_padding_after_the_stop_of_a_shorter_item():
    procedure = Addition(Uniform(1, 3), "paper")
    block = procedure.encode(["1 + 2 = c3 ."])
    scored = np.flatnonzero(block.scored[0]).tolist()
    assert [procedure.token_names[t] for t in block.targets[0, scored]] == [".", "_"]
    assert procedure.next_probabilities(block)[0, scored].argmax(axis=-1).tolist() == block.targets[0, scored].tolist()


FLOORS = {
    # scored tokens of an item; in percent the published floor, the floor itself, and what a solved answer digit adds
    Addition: (6, 31.0, 30.86, 15.0),
    ReversedAddition: (11, 24.9, 24.64, 8.15),
}


@BOTH
def test_floors_and_steps_of_the_paper_protocol_are_reproduced(cls):
    """The published floor is that of the most frequent symbol given slot and previous symbol, counted on the 200,000
    items that it is scored on. Counting there flatters a guess at ten equal digits by up to 0.3 %."""
    procedure, (n_scored, published, floor, step) = cls(protocol="paper"), FLOORS[cls]
    tokens, _ = procedure.draw(np.random.default_rng(0), np.full(200_000, procedure.lengths.max))
    start = 2 * procedure.lengths.max + 2
    given, symbols = tokens[:, start : start + n_scored], tokens[:, start + 1 : start + 1 + n_scored]
    by_slot = []
    for slot in range(n_scored):
        counts = np.bincount(24 * given[:, slot] + symbols[:, slot], minlength=24 * 24).reshape(24, 24)
        by_slot.append(counts.max(axis=1).sum() / len(tokens))
    assert 100 * np.mean(by_slot) == pytest.approx(published, abs=0.1)
    n_digits = n_scored - 2  # the last two scored slots: "one or stop", or digit or stop; and stop or padding
    gains = [100 * (1 - accuracy) / n_scored for accuracy in by_slot]
    assert np.mean(gains[:n_digits]) == pytest.approx(step, abs=0.6 if cls is Addition else 0.05)
    assert gains[-1] == 0
    if cls is ReversedAddition:
        assert gains[-2] == pytest.approx(1.8, abs=0.05)
        assert by_slot[-2] == pytest.approx(65 / 81, abs=0.005)

    block = procedure.items(20_480, split="train")
    assert (block.scored.sum(axis=1) == n_scored).all()
    assert 100 * procedure.baselines(block)["ignores the numbers"] == pytest.approx(floor, abs=0.3)


def test_the_floor_of_reversed_addition_worked_out_by_hand():
    """Eight digits at 1/10; the leading one, given the digit before, at (8 + P(carry guessed right)) / 81 with
    0.75 for the latter; "one or stop" at 65/81; the symbol after it known."""
    procedure = ReversedAddition(protocol="paper")
    by_hand = (8 / 10 + 8.75 / 81 + 65 / 81 + 1) / 11
    assert procedure.baselines(procedure.items(40_960, split="train"))["ignores the numbers"] == pytest.approx(
        by_hand, abs=0.001
    )


@BOTH
def test_knowing_more_never_scores_less(cls):
    procedure = cls(Uniform(2, 4))
    fitted = list(procedure.baselines(procedure.items(8_192, split="train")).values())[:-1]
    assert np.diff(fitted).min() > -0.003 and fitted[0] < fitted[-1] - 0.1


@BOTH
def test_adding_without_carrying_as_plain_python_does_it(cls):
    procedure = cls(Uniform(1, 3))
    block = procedure.items(300)
    right = scored = 0
    for item in procedure.decode(block):
        question, answer = item.split(" = ")
        a, b = ([int(digit) for digit in number.split()] for number in question.split(" + "))
        n, symbols = len(a), answer.split()
        guess = [f"c{(x + y) % 10}" for x, y in zip(a, b, strict=True)]
        makes_ten = a[-1 if cls.least_first else 0] + b[-1 if cls.least_first else 0] >= 10
        if cls.least_first:
            guess += ["c1", "."] if makes_ten else [".", "."]
        elif len(symbols) == n + 2:
            guess = ["c1" if makes_ten else guess[0], *guess, "."]
        else:
            guess += ["."]
        right += sum(x == y for x, y in zip(guess, symbols, strict=False))
        scored += len(symbols)
    assert scored == block.scored.sum()
    assert procedure.baselines(block)["adds without carrying"] == pytest.approx(right / scored)


@BOTH
def test_accuracy_falls_apart_by_place(cls):
    """The latent ``place`` says which digits a model has solved: without carries the ones are right, no other place is
    right more often than there is no carry."""
    block = cls(Fixed(4)).items(4_096, split="train")
    latents = block.latents
    guess = ANSWER_0 + latents["digit_sum"] % 10
    right = [float((guess == block.targets)[latents["place"] == place].mean()) for place in range(4)]
    carries = [float((latents["carry"] == 1)[latents["place"] == place].mean()) for place in range(4)]
    assert right[0] == 1.0 and right[1:] == pytest.approx([1 - carry for carry in carries[1:]])
    assert 0.5 < right[1] < 0.6


# ---- masks and pairs ------------------------------------------------------------------------------------------------


def test_masks_worked_out_by_hand():
    cells = {}
    for cls, text in ((Addition, "1 7 + 2 5 = c4 c2 ."), (ReversedAddition, "7 1 + 5 2 = c2 c4 .")):
        masks = cls(Fixed(2)).attention_targets(cls(Fixed(2)).encode([text]))
        cells[cls] = {name: np.argwhere(mask[0]).tolist() for name, mask in masks.items()}
    aligned = [[3, 0], [4, 1]]
    assert cells[Addition] == {
        "a digit": [[5, 0], [6, 1]],
        "b digit": [[5, 3], [6, 4]],
        "carry source": [[5, 1], [5, 4]],
        "aligned": aligned,
    }
    assert cells[ReversedAddition] == {
        "a digit": [[5, 0], [6, 1]],
        "b digit": [[5, 3], [6, 4]],
        "carry source": [[6, 0], [6, 3], [7, 1], [7, 4]],  # the last: "one or stop"
        "aligned": aligned,
    }


def pairs_in_numbers(cls: type[Sum], kind: str) -> list[tuple[int, int, int, int]]:
    procedure = cls(Uniform(2, 5))
    step = -1 if cls.least_first else 1
    numbers = []
    for block in procedure.minimal_pairs(kind, 300):
        questions = [item.split(" = ")[0].replace(" ", "").split("+") for item in procedure.decode(block)]
        numbers.append([(int(a[::step]), int(b[::step])) for a, b in questions])
    return [(a, b, new_a, new_b) for (a, b), (new_a, new_b) in zip(*numbers, strict=True)]


def changed_places(x: int, y: int) -> list[int]:
    return [i for i in range(8) if x // 10**i % 10 != y // 10**i % 10]


@BOTH
def test_a_carry_pair_changes_one_digit_and_the_next_place_of_the_answer(cls):
    places = set()
    for a, b, new_a, new_b in pairs_in_numbers(cls, "carry"):
        (place,) = changed_places(a, new_a)
        carries = [(x % 10 ** (place + 1) + b % 10 ** (place + 1)) // 10 ** (place + 1) for x in (a, new_a)]
        assert b == new_b and sorted(carries) == [0, 1]
        assert changed_places(a + b, new_a + b)[:2] == [place, place + 1]
        places.add(place)
    assert places == {0, 1, 2, 3}


@BOTH
def test_a_digit_pair_changes_one_digit_of_the_answer(cls):
    places = set()
    for a, b, new_a, new_b in pairs_in_numbers(cls, "digit"):
        assert b == new_b and len(changed_places(a, new_a)) == 1
        assert changed_places(a + b, new_a + b) == changed_places(a, new_a)
        places.update(changed_places(a, new_a))
    assert places == {0, 1, 2, 3, 4}


@BOTH
def test_a_swap_pair_exchanges_the_operands(cls):
    assert all((a, b) == (new_b, new_a) and a != b for a, b, new_a, new_b in pairs_in_numbers(cls, "swap"))


def test_one_digit_has_no_place_to_carry_into():
    procedure = Addition(Fixed(1))
    *_, exists = procedure.perturbed("carry", np.random.default_rng(0), procedure.items(500))
    assert not exists.any()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "1 2 + 3 = c1 c5 .",  # numbers of different lengths
        "0 2 + 3 1 = c3 c3 .",  # a leading zero
        "1 2 + 3 4 = c4 c7 .",  # a wrong digit
        "1 2 + 3 4 = c4 + .",  # no digit at all
        "1 2 + 3 4 = c4 c6 c1",  # no stop
        "1 2 3 4 = c4 c6 .",  # no plus
        "1 c0 3 = c4 .",  # something else in the place of the plus
        "1 c2 + 3 4 = c5 c8 .",  # an answer's digit in an operand, which would be 14
    ],
)
def test_items_that_break_the_rule_are_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of addition"):
        Addition(Uniform(1, 3)).encode([text])


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigError, match="protocol = 'papr' is not allowed"):
        Addition(protocol="papr")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        Addition.from_dict({"kind": "addition", "protocol": "papr"})
