"""Two numbers and the symbols of an operation's result: what addition and multiplication have in common.

An item is ``a + b =``, the answer in digit symbols of its own, and a stop symbol: ``1 7 + 2 5 = c4 c2 .``. Both numbers
of an item have the same number of digits, and any number of digits works. The operations themselves are in ``addition``
and ``multiplication``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import Procedure, Role
from mechproc.procedures.digits import Solved, draw_numbers
from mechproc.procedures.guessing import Guesser, accuracies, fit_all
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import Fixed, LengthDistribution

DIGIT_0, OPERATOR, EQUALS, ANSWER_0, STOP = 1, 11, 12, 13, 23
"""Tokens; digits follow the zero of their kind in order."""


@dataclasses.dataclass(frozen=True)
class Arithmetic(Procedure):
    """What the operations share. Lengths count the digits of each operand; the leading digit is not zero."""

    version: ClassVar[str] = "2.0.0"
    role: ClassVar[Role] = "task"
    operator: ClassVar[str]
    """The name of the token between the operands."""
    least_first: ClassVar[bool]
    """Whether all three numbers are written least significant digit first."""
    uncarried_name: ClassVar[str]
    """The name of the baseline that ``_uncarried`` is."""
    length_unit: ClassVar[str] = "digits of each operand"
    latent_names: ClassVar[dict[str, str]] = {
        "digit": "the digit that stands here; at digits",
        "number": "0 first operand, 1 second operand, 2 answer; at digits",
        "operand_place": "place value of the digit that stands here, 0 for the ones; at the operands' digits",
        "n_digits": "digits of each operand; at every token",
        "slot": "which symbol of the answer is predicted, from 0, stop and the padding after it included; from '=' on",
        "place": "place value of the digit predicted; also at a stop that stands where a carry could have stood",
        "carry": "carry into the predicted place",
        "carry_out": "carry out of the predicted place; where the operands, and not a carry alone, make the digit",
        "overflow": "1 if the answer has one digit more than without the carry out of the last; where slot is defined",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("digit", "operand_place", "n_digits", "slot", "place")
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(3)}

    lengths: LengthDistribution = Fixed(5)
    protocol: Literal["correct", "paper"] = "correct"
    """Where the loss is. ``correct``: on every symbol of the answer, the stop included. ``paper``: at the positions
    whose *input* is an answer symbol, as in arXiv 2505.22308: the first digit of the answer is neither trained nor
    scored, and the padding after the stop is, where the block has a position for it."""

    def __post_init__(self) -> None:
        require(self.protocol in ("correct", "paper"), "protocol", self.protocol, "one of 'correct', 'paper'")

    # ---- what an operation defines ---------------------------------------------------------------------------------

    @abstractmethod
    def _solve(self, n_digits: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solved:
        """The operation on digit arrays with one place more than the longest operand has digits."""

    @abstractmethod
    def _columns(self, n_digits: np.ndarray) -> np.ndarray:
        """Digits of the answer that the operands, and not a carry alone, make; of the shape of ``n_digits``."""

    @abstractmethod
    def _operation_latents(self, solved: Solved, place: np.ndarray) -> dict[str, np.ndarray]:
        """The operation's own latents, given the place predicted at each position, ``UNDEFINED`` where none is."""

    @abstractmethod
    def _uncarried(self, block: Items) -> np.ndarray:
        """Where the baseline that does not carry predicts right, bool [item, pos], among the scored positions."""

    @property
    def token_names(self) -> tuple[str, ...]:
        return ("_", *"0123456789", self.operator, "=", *(f"c{digit}" for digit in range(10)), ".")

    # ---- from numbers to tokens and back ---------------------------------------------------------------------------

    def _grid(self, solved: Solved) -> tuple[np.ndarray, np.ndarray]:
        """Which number (0 a, 1 b, 2 answer) and which place of it stands at each position, both int64 [item, pos]."""
        n = solved.n_digits[:, None]
        offset = np.arange(self.n_ctx) - np.stack([0 * n, n + 1, 2 * n + 2])
        length = np.stack([n, n, self._columns(n) + solved.overflow[:, None]])
        inside = (offset >= 0) & (offset < length)
        place = offset if self.least_first else length - 1 - offset
        number = np.select(list(inside), [0, 1, 2], UNDEFINED)
        return number, np.select(list(inside), list(place), UNDEFINED)

    def _write(self, solved: Solved) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and n_tokens of these items, written shape by shape: those of one shape have their digits in the same
        columns."""
        n = solved.n_digits
        n_answer = self._columns(n) + solved.overflow
        shape = n * 2 + solved.overflow
        order = np.argsort(shape, kind="stable")
        first = np.flatnonzero(np.diff(shape[order], prepend=-1))
        written = np.full((len(n), self.n_ctx), self.pad, dtype=np.int64)
        digits = [(DIGIT_0 + solved.a)[order], (DIGIT_0 + solved.b)[order], (ANSWER_0 + solved.answer)[order]]
        for start, stop in itertools.pairwise([*first.tolist(), len(n)]):
            n_here, n_answer_here = int(n[order[start]]), int(n_answer[order[start]])
            rows, column = written[start:stop], 0
            for values, count, after in zip(
                digits, (n_here, n_here, n_answer_here), (OPERATOR, EQUALS, STOP), strict=True
            ):
                number = values[start:stop, :count]
                rows[:, column : column + count] = number if self.least_first else number[:, ::-1]
                rows[:, column + count] = after
                column += count + 1
        tokens = np.empty_like(written)
        tokens[order] = written
        return tokens, 2 * n + 3 + n_answer

    def _read(self, tokens: np.ndarray) -> tuple[Solved, np.ndarray]:
        """What these tokens ask for, solved, and which items (bool [item]) do ask for it as the rule has it."""
        n, a, b = self._operands(tokens)
        rows = np.arange(len(tokens))
        sound = (tokens[rows, n] == OPERATOR) & (tokens[rows, 2 * n + 1] == EQUALS)
        sound &= ((a >= 0) & (a <= 9) & (b >= 0) & (b <= 9)).all(axis=1) & (a[rows, n - 1] > 0) & (b[rows, n - 1] > 0)
        return self._solve(n, np.where(sound[:, None], a, 0), np.where(sound[:, None], b, 0)), sound

    def _operands(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Digits of each operand, int64 [item], and both operands by place, int64 [item, place]."""
        width = self.lengths.max + 1
        n = np.clip((tokens == OPERATOR).argmax(axis=1), 1, width - 1)
        place = np.arange(width)
        exists = place < n[:, None]
        first = np.where(exists, place if self.least_first else n[:, None] - 1 - place, 0)
        a = np.where(exists, np.take_along_axis(tokens, first, axis=1) - DIGIT_0, 0)
        b = np.where(exists, np.take_along_axis(tokens, first + n[:, None] + 1, axis=1) - DIGIT_0, 0)
        return n, a, b

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = (draw_numbers(rng, lengths, self.lengths.max + 1) for _ in range(2))
        return self._write(self._solve(lengths, a, b))

    def equivalence_class(self, tokens: np.ndarray) -> np.ndarray:
        """The two operands in either order, as both orders have one answer; each order alone under ``paper``."""
        if self.protocol == "paper":
            return tokens
        n, a, b = self._operands(tokens)
        differs = a != b
        highest = np.where(differs.any(axis=1), a.shape[1] - 1 - differs[:, ::-1].argmax(axis=1), 0)[:, None]
        in_order = np.take_along_axis(a, highest, axis=1) <= np.take_along_axis(b, highest, axis=1)
        return np.concatenate([n[:, None], np.where(in_order, a, b), np.where(in_order, b, a)], axis=1)

    # ---- what is known about an item -------------------------------------------------------------------------------

    def answer_start(self, block: Items) -> np.ndarray:
        return (block.tokens == EQUALS).argmax(axis=1) + 1

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        pos = np.arange(self.n_ctx)
        is_equals = tokens == EQUALS
        equals = np.where(is_equals.any(axis=1), is_equals.argmax(axis=1), self.n_ctx)[:, None]
        has_next = pos < n_tokens[:, None] - 1
        if self.protocol == "correct":
            return (pos >= equals) & has_next
        return (pos > equals) & (has_next | ((tokens == STOP) & (pos < self.n_ctx - 1)))

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        solved, sound = self._read(tokens)
        number, place_here = self._grid(solved)
        pos = np.arange(self.n_ctx)
        n, overflow = solved.n_digits[:, None], solved.overflow[:, None]
        columns = self._columns(n)
        real = sound[:, None] & (pos < n_tokens[:, None])
        slot = pos - (2 * n + 1)
        has_slot = real & (slot >= 0)
        place = slot if self.least_first else columns + overflow - 1 - slot
        has_place = has_slot & (place >= 0) & (place <= columns)
        place = np.where(has_place, place, UNDEFINED)
        carry_out = np.where(has_place & (place < columns), at(solved.carry, place + 1), UNDEFINED)
        is_digit = real & (number != UNDEFINED)
        return {
            "digit": np.where(is_digit, tokens - np.where(number == 2, ANSWER_0, DIGIT_0), UNDEFINED),
            "number": np.where(real, number, UNDEFINED),
            "operand_place": np.where(real & (number < 2), place_here, UNDEFINED),
            "n_digits": np.where(real, n, UNDEFINED),
            "slot": np.where(has_slot, slot, UNDEFINED),
            "place": place,
            "carry": np.where(has_place, at(solved.carry, place), UNDEFINED),
            "carry_out": carry_out,
            "overflow": np.where(has_slot, overflow, UNDEFINED),
            **self._operation_latents(solved, place),
        }

    def next_probabilities(self, block: Items) -> np.ndarray:
        solved, sound = self._read(block.tokens)
        truth, _ = self._write(solved)
        probabilities = np.zeros((*truth.shape, self.d_vocab))
        np.put_along_axis(probabilities[:, :-1], truth[:, 1:, None], sound[:, None, None].astype(float), axis=2)
        return probabilities

    # ---- predictors that do not know the rule ----------------------------------------------------------------------

    def baselines(self, block: Items) -> dict[str, float]:
        """Token accuracy of predictors that do not calculate, or not well.

        The first three or four know the number of digits and are the best of their kind: each guesses what is most
        frequent, among items of the rule, given what it knows.

        - ``the most frequent symbol``: knows nothing more;
        - ``knows the slot``: which symbol of the answer it predicts;
        - ``ignores the numbers``: knows the slot and the symbol before it, so also when the answer has ended. At the
          default sizes under the ``paper`` protocol 30.9 % (addition), 24.6 % (reversed addition) and 26.9 %
          (multiplication);
        - ``ignores the numbers, knows the first symbol``: the first of the answer too. Most significant digit first,
          that tells something of the answer's length; the other way round it tells nothing;
        - the last one calculates without carrying, as ``_uncarried`` of the operation says.
        """
        fitted = accuracies(self._guessers, self._contexts, block)
        return {**fitted, self.uncarried_name: float(self._uncarried(block)[block.scored].mean())}

    def _contexts(self, block: Items) -> dict[str, np.ndarray]:
        """What each fitted baseline knows where a symbol is predicted, as one number: int64 [item, pos]."""
        tokens = block.tokens
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
    def _guessers(self) -> dict[str, Guesser]:
        return fit_all(self, self._contexts)


def at(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """``values`` [item, place] at ``place`` [item, pos]; places out of range give an arbitrary value."""
    return np.take_along_axis(values, place.clip(0, values.shape[1] - 1), axis=1)
