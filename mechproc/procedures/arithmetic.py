"""Addition, digit by digit: most significant digit first, or all three numbers reversed.

An item is ``a + b =``, the answer in digit symbols of its own, and a stop symbol: ``1 7 + 2 5 = c4 c2 .``. Both numbers
of an item have the same number of digits.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, Literal

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import Example, PairKind, Procedure
from mechproc.procedures.block import UNDEFINED, Block
from mechproc.procedures.digits import Sums, add, carry_distance, draw_numbers
from mechproc.procedures.lengths import Fixed, LengthDistribution

DIGIT_0, PLUS, EQUALS, ANSWER_0, STOP = 1, 11, 12, 13, 23
"""Tokens; digits follow the zero of their kind in order."""
TOKEN_NAMES = ("_", *"0123456789", "+", "=", *(f"c{digit}" for digit in range(10)), ".")
REFERENCE_ITEMS = 32_768
"""Items that the baselines which ignore the numbers are fitted to."""


@dataclasses.dataclass(frozen=True)
class Sum(Procedure):
    """What both additions share. Lengths count the digits of each operand; the leading digit is not zero."""

    least_first: ClassVar[bool]
    """Whether all three numbers are written least significant digit first."""
    length_unit: ClassVar[str] = "digits of each operand"
    latent_names: ClassVar[dict[str, str]] = {
        "digit": "the digit that stands here; at digits",
        "number": "0 first operand, 1 second operand, 2 answer; at digits",
        "operand_place": "place value of the digit that stands here, 0 for the ones; at the operands' digits",
        "n_digits": "digits of each operand; at every token",
        "slot": "which symbol of the answer is predicted, from 0, stop and the padding after it included; from '=' on",
        "place": "place value of the digit predicted; also at a stop that stands where a carry could have stood",
        "a_digit": "first operand's digit at the predicted place; where it has one",
        "b_digit": "second operand's digit at the predicted place; where it has one",
        "digit_sum": "sum of these two digits, 0 to 18",
        "carry": "carry into the predicted place",
        "carry_out": "carry out of the predicted place; where the operands have a digit",
        "carry_distance": "how many places below the carry is decided: below a run of digit sums of 9; above the ones",
        "overflow": "1 if the answer has one digit more than the operands; where slot is defined",
        "a_position": "position of a_digit",
        "b_position": "position of b_digit",
    }
    mask_names: ClassVar[dict[str, str]] = {
        "a digit": "from where a digit is predicted to the first operand's digit of the same place",
        "b digit": "from where a digit is predicted to the second operand's digit of the same place",
        "carry source": "from where a digit is predicted to both operands' digits of the next lower place",
        "aligned": "from each digit of the second operand to the first operand's digit of the same place",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "carry": PairKind(
            "a digit of the first operand changes so that the carry into the next place does; the digits there stay",
            changes=("digit", "a_digit", "digit_sum", "carry", "carry_out"),
            holds=(
                *("number", "operand_place", "n_digits", "slot", "place", "b_digit"),
                *("carry_distance", "overflow", "a_position", "b_position"),
            ),
        ),
        "digit": PairKind(
            "a digit of the first operand changes, and no carry",
            changes=("digit", "a_digit", "digit_sum"),
            holds=(
                *("number", "operand_place", "n_digits", "slot", "place", "b_digit", "carry", "carry_out"),
                *("carry_distance", "overflow", "a_position", "b_position"),
            ),
        ),
        "swap": PairKind(
            "the operands, which differ, have changed places; the answer stays",
            changes=("digit", "a_digit", "b_digit"),
            holds=(
                *("number", "operand_place", "n_digits", "slot", "place", "digit_sum", "carry", "carry_out"),
                *("carry_distance", "overflow", "a_position", "b_position"),
            ),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(3)}

    lengths: LengthDistribution = Fixed(5)
    protocol: Literal["correct", "paper"] = "correct"
    """Where the loss is. ``correct``: on every symbol of the answer, the stop included. ``paper``: at the positions
    whose *input* is an answer symbol, as in arXiv 2505.22308: the first digit of the answer is neither trained nor
    scored, and the padding after the stop is, where the block has a position for it."""

    def __post_init__(self) -> None:
        require(self.protocol in ("correct", "paper"), "protocol", self.protocol, "one of 'correct', 'paper'")

    @property
    def token_names(self) -> tuple[str, ...]:
        return TOKEN_NAMES

    @property
    def n_ctx(self) -> int:
        return 3 * self.lengths.max + 4

    # ---- from numbers to tokens and back ---------------------------------------------------------------------------

    def _grid(self, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        """Which number (0 a, 1 b, 2 answer) and which place of it stands at each position, both int64 [item, pos]."""
        n = sums.n_digits[:, None]
        offset = np.arange(self.n_ctx) - np.stack([0 * n, n + 1, 2 * n + 2])
        length = np.stack([n, n, n + sums.overflow[:, None]])
        inside = (offset >= 0) & (offset < length)
        place = offset if self.least_first else length - 1 - offset
        number = np.select(list(inside), [0, 1, 2], UNDEFINED)
        return number, np.select(list(inside), list(place), UNDEFINED)

    def _write(self, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and n_tokens of these additions."""
        number, place = self._grid(sums)
        digits = [DIGIT_0 + sums.a, DIGIT_0 + sums.b, ANSWER_0 + sums.answer]
        tokens = np.select([number == i for i in range(3)], [_at(values, place) for values in digits], self.pad)
        rows, n = np.arange(len(tokens)), sums.n_digits
        stop = 3 * n + 2 + sums.overflow
        tokens[rows, n], tokens[rows, 2 * n + 1], tokens[rows, stop] = PLUS, EQUALS, STOP
        return tokens, stop + 1

    def _read(self, tokens: np.ndarray) -> tuple[Sums, np.ndarray]:
        """The additions that these tokens ask for, and which items (bool [item]) do ask for one as the rule has it."""
        rows, width = np.arange(len(tokens)), self.lengths.max + 1
        n = np.clip((tokens == PLUS).argmax(axis=1), 1, width - 1)
        place = np.arange(width)
        exists = place < n[:, None]
        first = np.where(exists, place if self.least_first else n[:, None] - 1 - place, 0)
        a = np.where(exists, np.take_along_axis(tokens, first, axis=1) - DIGIT_0, 0)
        b = np.where(exists, np.take_along_axis(tokens, first + n[:, None] + 1, axis=1) - DIGIT_0, 0)
        sound = (tokens[rows, n] == PLUS) & (tokens[rows, 2 * n + 1] == EQUALS)
        sound &= ((a >= 0) & (a <= 9) & (b >= 0) & (b <= 9)).all(axis=1) & (a[rows, n - 1] > 0) & (b[rows, n - 1] > 0)
        return add(n, np.where(sound[:, None], a, 0), np.where(sound[:, None], b, 0)), sound

    def _draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = (draw_numbers(rng, lengths, self.lengths.max + 1) for _ in range(2))
        return self._write(add(lengths, a, b))

    # ---- what is known about an item -------------------------------------------------------------------------------

    def answer_start(self, block: Block) -> np.ndarray:
        return (block.tokens == EQUALS).argmax(axis=1) + 1

    def _scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        pos = np.arange(self.n_ctx)
        is_equals = tokens == EQUALS
        equals = np.where(is_equals.any(axis=1), is_equals.argmax(axis=1), self.n_ctx)[:, None]
        has_next = pos < n_tokens[:, None] - 1
        if self.protocol == "correct":
            return (pos >= equals) & has_next
        return (pos > equals) & (has_next | ((tokens == STOP) & (pos < self.n_ctx - 1)))

    def _latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        sums, sound = self._read(tokens)
        number, place_here = self._grid(sums)
        pos = np.arange(self.n_ctx)
        n, overflow = sums.n_digits[:, None], sums.overflow[:, None]
        real = sound[:, None] & (pos < n_tokens[:, None])
        slot = pos - (2 * n + 1)
        has_slot = real & (slot >= 0)
        place = slot if self.least_first else n + overflow - 1 - slot
        has_place = has_slot & (place >= 0) & (place <= n)
        has_digits = has_place & (place < n)
        first_position = place if self.least_first else n - 1 - place

        def where(here: np.ndarray, value: np.ndarray) -> np.ndarray:
            return np.where(here, value, UNDEFINED)

        return {
            "digit": where(real & (number != UNDEFINED), tokens - np.where(number == 2, ANSWER_0, DIGIT_0)),
            "number": where(real, number),
            "operand_place": where(real & (number < 2), place_here),
            "n_digits": where(real, n),
            "slot": where(has_slot, slot),
            "place": where(has_place, place),
            "a_digit": where(has_digits, _at(sums.a, place)),
            "b_digit": where(has_digits, _at(sums.b, place)),
            "digit_sum": where(has_digits, _at(sums.a + sums.b, place)),
            "carry": where(has_place, _at(sums.carry, place)),
            "carry_out": where(has_digits, _at(sums.carry, place + 1)),
            "carry_distance": where(has_place & (place > 0), _at(carry_distance(sums), place)),
            "overflow": where(has_slot, overflow),
            "a_position": where(has_digits, first_position),
            "b_position": where(has_digits, first_position + n + 1),
        }

    def next_probabilities(self, block: Block) -> np.ndarray:
        sums, sound = self._read(block.tokens)
        truth, _ = self._write(sums)
        probabilities = np.zeros((*truth.shape, self.d_vocab))
        np.put_along_axis(probabilities[:, :-1], truth[:, 1:, None], sound[:, None, None].astype(float), axis=2)
        return probabilities

    def target_masks(self, block: Block) -> dict[str, np.ndarray]:
        pos, number = np.arange(self.n_ctx), block.latents["number"]
        operand_place, place = block.latents["operand_place"][:, None, :], block.latents["place"][:, :, None]
        from_b, to_a = (number == 1)[:, :, None], (number == 0)[:, None, :]
        return {
            "a digit": block.latents["a_position"][..., None] == pos,
            "b digit": block.latents["b_position"][..., None] == pos,
            "carry source": (place >= 1) & (operand_place == place - 1),
            "aligned": from_b & to_a & (block.latents["operand_place"][:, :, None] == operand_place),
        }

    # ---- predictors that do not know the rule ----------------------------------------------------------------------

    def baselines(self, block: Block) -> dict[str, float]:
        """Token accuracy of predictors that do not add, or not well.

        The first three or four know the number of digits and are the best of their kind: each guesses what is most
        frequent, among items of the rule, given what it knows.

        - ``the most frequent symbol``: knows nothing more;
        - ``knows the slot``: which symbol of the answer it predicts;
        - ``ignores the numbers``: knows the slot and the symbol before it, so also when the answer has ended. At the
          default sizes under the ``paper`` protocol 30.9 % (addition) and 24.6 % (reversed addition);
        - ``ignores the numbers, knows the first symbol``: the first of the answer too. Most significant digit first,
          that tells whether the answer has one digit more than the operands; the other way round it tells nothing;
        - ``adds without carrying``: adds the two digits of each place modulo 10, and writes one digit more when the two
          leading ones make 10 or more by themselves. It knows where the answer ends.
        """
        accuracy, scored = {}, block.scored
        targets = block.targets[scored]
        for name, context in self._contexts(block.tokens).items():
            known, guesses = self._guesses[name]
            index = np.searchsorted(known, context[scored]).clip(max=len(known) - 1)
            accuracy[name] = float((guesses[index] == targets).mean())
        return {**accuracy, "adds without carrying": self._without_carrying(block)}

    def _without_carrying(self, block: Block) -> float:
        latents, scored = block.latents, block.scored
        leading_sum = np.where(latents["place"] == latents["n_digits"] - 1, latents["digit_sum"], 0).max(axis=1)
        digit_right = latents["digit_sum"] % 10 == block.targets - ANSWER_0
        length_right = (leading_sum[:, None] >= 10) == latents["overflow"]
        slots = [latents["digit_sum"] != UNDEFINED, latents["place"] != UNDEFINED]
        return float(np.select(slots, [digit_right, length_right], True)[scored].mean())

    def _contexts(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """What each fitted baseline knows where a symbol is predicted, as one number: int64 [item, pos]."""
        equals = (tokens == EQUALS).argmax(axis=1)[:, None]
        slot = np.arange(self.n_ctx) - equals
        in_slot = (equals * self.n_ctx + slot) * self.d_vocab**2
        before = np.where(slot > 0, tokens, self.pad)
        contexts = {
            "the most frequent symbol": equals + 0 * slot,
            "knows the slot": in_slot,
            "ignores the numbers": in_slot + before,
        }
        if not self.least_first:
            first = np.take_along_axis(tokens, np.minimum(equals + 1, self.n_ctx - 1), axis=1)
            first = np.where(slot > 0, first, self.pad)
            contexts["ignores the numbers, knows the first symbol"] = in_slot + before + first * self.d_vocab
        return contexts

    @functools.cached_property
    def _guesses(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each of ``_contexts`` the values it takes, ascending, and the most frequent next token given each."""
        rng = np.random.default_rng(0)
        tokens, n_tokens = self._draw(rng, self.lengths.draw(rng, REFERENCE_ITEMS))
        scored = self._scored(tokens, n_tokens)
        targets = np.roll(tokens, -1, axis=1)[scored]
        guesses = {}
        for name, context in self._contexts(tokens).items():
            known, index = np.unique(context[scored], return_inverse=True)
            counts = np.bincount(index * self.d_vocab + targets, minlength=len(known) * self.d_vocab)
            guesses[name] = known, counts.reshape(len(known), self.d_vocab).argmax(axis=1)
        return guesses

    # ---- minimal pairs ---------------------------------------------------------------------------------------------

    def _perturbed(
        self, kind: str, rng: np.random.Generator, block: Block
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sums, _ = self._read(block.tokens)
        n, a, b, rows = sums.n_digits, sums.a, sums.b, np.arange(len(block))
        if kind == "swap":
            return *self._write(add(n, b, a)), (a != b).any(axis=1)
        # Digit sums of 9 are left alone and not made: they hand a lower carry on, so that more than one place changes.
        place = np.arange(a.shape[1])
        carries = a + b >= 10
        makes_carry = carries != (kind == "carry")
        low = np.where(makes_carry, 10 - b, (place == n[:, None] - 1).astype(int))
        high = np.where(makes_carry, 9, 8 - b)
        others = high - low + (0 if kind == "digit" else 1)  # digits to choose from: the present one is no change
        choices = np.where((others >= 1) & (a + b != 9) & (place < n[:, None]), rng.random(a.shape), -1.0)
        chosen = choices.argmax(axis=1)
        at = rows, chosen
        digit = low[at] + np.floor(rng.random(len(block)) * others[at]).astype(np.int64)
        changed = a.copy()
        changed[at] = digit + ((kind == "digit") & (digit >= a[at]))
        partner = add(n, changed, b)
        return *self._write(partner), (choices[at] >= 0) & (partner.overflow == sums.overflow)

    def oracle(self, question: list[str]) -> list[str]:
        a, b = " ".join(question).removesuffix(" =").split(" + ")
        step = -1 if self.least_first else 1
        total = int(a.replace(" ", "")[::step]) + int(b.replace(" ", "")[::step])
        return [f"c{digit}" for digit in str(total)[::step]] + ["."]


@dataclasses.dataclass(frozen=True)
class Addition(Sum):
    """``a + b = c .`` with the most significant digit first: the first digit needs every carry."""

    kind: ClassVar[str] = "addition"
    least_first: ClassVar[bool] = False
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "1 4 7 + 2 5 5 = c4 c0 c2 .",
            "c4 c0 c2 .",
            {
                "digit": (1, 4, 7, -1, 2, 5, 5, -1, 4, 0, 2, -1),
                "number": (0, 0, 0, -1, 1, 1, 1, -1, 2, 2, 2, -1),
                "operand_place": (2, 1, 0, -1, 2, 1, 0, -1, -1, -1, -1, -1),
                "slot": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, 3, 4),
                "place": (-1, -1, -1, -1, -1, -1, -1, 2, 1, 0, -1, -1),
                "a_digit": (-1, -1, -1, -1, -1, -1, -1, 1, 4, 7, -1, -1),
                "b_digit": (-1, -1, -1, -1, -1, -1, -1, 2, 5, 5, -1, -1),
                "digit_sum": (-1, -1, -1, -1, -1, -1, -1, 3, 9, 12, -1, -1),
                "carry": (-1, -1, -1, -1, -1, -1, -1, 1, 1, 0, -1, -1),
                "carry_out": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 1, -1, -1),
                "carry_distance": (-1, -1, -1, -1, -1, -1, -1, 2, 1, -1, -1, -1),
            },
        ),
        Example(
            "9 0 1 + 2 0 4 = c1 c1 c0 c5 .",
            "c1 c1 c0 c5 .",
            {
                "place": (-1, -1, -1, -1, -1, -1, -1, 3, 2, 1, 0, -1, -1),
                "carry": (-1, -1, -1, -1, -1, -1, -1, 1, 0, 0, 0, -1, -1),
                "carry_out": (-1, -1, -1, -1, -1, -1, -1, -1, 1, 0, 0, -1, -1),
                "overflow": (-1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1),
                "a_position": (-1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 2, -1, -1),
                "b_position": (-1, -1, -1, -1, -1, -1, -1, -1, 4, 5, 6, -1, -1),
            },
        ),
        Example("1 2 + 3 4 = c4 c6 .", "c4 c6 .", {"n_digits": (2,) * 9}, {"lengths": Fixed(2)}),
    )


@dataclasses.dataclass(frozen=True)
class ReversedAddition(Sum):
    """``a + b = c .`` with all three numbers least significant digit first: each digit needs one carry."""

    kind: ClassVar[str] = "reversed-addition"
    least_first: ClassVar[bool] = True
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "7 4 1 + 5 5 2 = c2 c0 c4 .",
            "c2 c0 c4 .",
            {
                "digit": (7, 4, 1, -1, 5, 5, 2, -1, 2, 0, 4, -1),
                "number": (0, 0, 0, -1, 1, 1, 1, -1, 2, 2, 2, -1),
                "operand_place": (0, 1, 2, -1, 0, 1, 2, -1, -1, -1, -1, -1),
                "slot": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, 3, 4),
                "place": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, 3, -1),
                "a_digit": (-1, -1, -1, -1, -1, -1, -1, 7, 4, 1, -1, -1),
                "b_digit": (-1, -1, -1, -1, -1, -1, -1, 5, 5, 2, -1, -1),
                "digit_sum": (-1, -1, -1, -1, -1, -1, -1, 12, 9, 3, -1, -1),
                "carry": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 1, 0, -1),
                "carry_out": (-1, -1, -1, -1, -1, -1, -1, 1, 1, 0, -1, -1),
                "carry_distance": (-1, -1, -1, -1, -1, -1, -1, -1, 1, 2, 1, -1),
                "a_position": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, -1, -1),
                "b_position": (-1, -1, -1, -1, -1, -1, -1, 4, 5, 6, -1, -1),
            },
        ),
        Example(
            "1 0 9 + 4 0 2 = c5 c0 c1 c1 .",
            "c5 c0 c1 c1 .",
            {
                "place": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, 3, -1, -1),
                "carry": (-1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 1, -1, -1),
                "overflow": (-1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1),
            },
        ),
        Example("2 1 + 4 3 = c6 c4 .", "c6 c4 .", {"n_digits": (2,) * 9}, {"lengths": Fixed(2)}),
    )

    lengths: LengthDistribution = Fixed(10)


def _at(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """``values`` [item, place] at ``place`` [item, pos]; places out of range give an arbitrary value."""
    return np.take_along_axis(values, place.clip(0, values.shape[1] - 1), axis=1)
