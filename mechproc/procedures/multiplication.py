"""Multiplication, digit by digit, most significant digit first."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mechproc.procedures.arithmetic import ANSWER_0, Arithmetic, at
from mechproc.procedures.base import Example, PairKind
from mechproc.procedures.copy_rule import pick
from mechproc.procedures.digits import Solved, multiply
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import Fixed

PAPER_PADDING = 6
"""Positions after the longest item in the block of the ``paper`` protocol, of which the first is scored: with five
digits a block has 29 positions, as in arXiv 2505.22308."""


@dataclasses.dataclass(frozen=True)
class Multiplication(Arithmetic):
    """``a * b = c .`` with the most significant digit first: almost every digit needs the sums and carries below it.

    As in long multiplication a place of the answer has a column: the sum of the products of two digits whose places add
    up to it. Under the ``paper`` protocol a block has six more positions than the longest item.
    """

    kind: ClassVar[str] = "multiplication"
    operator: ClassVar[str] = "*"
    least_first: ClassVar[bool] = False
    uncarried_name: ClassVar[str] = "multiplies without carrying"
    latent_names: ClassVar[dict[str, str]] = {
        **Arithmetic.latent_names,
        "column_sum": "sum of the products of digits whose places add up to the predicted one; where there are any",
        "n_products": "how many products these are; there too",
        "total": "column_sum with the carry into it; there too. Its last digit is the one predicted",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (*Arithmetic.ordinal_latents, "column_sum", "n_products", "total")
    attention_target_names: ClassVar[dict[str, str]] = {
        "a column": "from where a digit is predicted to the first operand's digits that its column has",
        "b column": "from where a digit is predicted to the second operand's digits that its column has",
        "carry source": "from where a digit is predicted to both operands' digits of the column below",
        "ones": "from where the last digit is predicted to both operands' ones, the only digits that decide it",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "carry": PairKind(
            "a digit of the first operand changes, and some carry; the answer keeps its length",
            changes=("digit", "column_sum", "carry", "carry_out", "total"),
            holds=("number", "operand_place", "n_digits", "slot", "place", "overflow", "n_products"),
        ),
        "digit": PairKind(
            "a digit of the first operand changes, and no carry",
            changes=("digit", "column_sum", "total"),
            holds=(
                *("number", "operand_place", "n_digits", "slot", "place", "carry", "carry_out", "overflow"),
                *("n_products",),
            ),
        ),
        "swap": PairKind(
            "the operands, which differ, have changed places; the answer stays",
            changes=("digit",),
            holds=(
                *("number", "operand_place", "n_digits", "slot", "place", "carry", "carry_out", "overflow"),
                *("column_sum", "n_products", "total"),
            ),
        ),
    }
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "1 2 3 * 4 5 6 = c5 c6 c0 c8 c8 .",
            "c5 c6 c0 c8 c8 .",
            {
                "digit": (1, 2, 3, -1, 4, 5, 6, -1, 5, 6, 0, 8, 8, -1),
                "number": (0, 0, 0, -1, 1, 1, 1, -1, 2, 2, 2, 2, 2, -1),
                "operand_place": (2, 1, 0, -1, 2, 1, 0, -1, -1, -1, -1, -1, -1, -1),
                "slot": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, 3, 4, 5, 6),
                "place": (-1, -1, -1, -1, -1, -1, -1, 4, 3, 2, 1, 0, -1, -1),
                "column_sum": (-1, -1, -1, -1, -1, -1, -1, 4, 13, 28, 27, 18, -1, -1),
                "n_products": (-1, -1, -1, -1, -1, -1, -1, 1, 2, 3, 2, 1, -1, -1),
                "carry": (-1, -1, -1, -1, -1, -1, -1, 1, 3, 2, 1, 0, -1, -1),
                "total": (-1, -1, -1, -1, -1, -1, -1, 5, 16, 30, 28, 18, -1, -1),
                "carry_out": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 3, 2, 1, -1, -1),
            },
        ),
        Example(
            "9 0 * 2 1 = c1 c8 c9 c0 .",
            "c1 c8 c9 c0 .",
            {
                "n_digits": (2,) * 11,
                "place": (-1, -1, -1, -1, -1, 3, 2, 1, 0, -1, -1),
                "column_sum": (-1, -1, -1, -1, -1, -1, 18, 9, 0, -1, -1),
                "carry": (-1, -1, -1, -1, -1, 1, 0, 0, 0, -1, -1),
                "overflow": (-1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1),
            },
            {"lengths": Fixed(2)},
        ),
        Example("3 * 2 = c6 .", "c6 .", {}, {"lengths": Fixed(1)}),
    )

    @property
    def n_ctx(self) -> int:
        return 4 * self.lengths.max + 3 + (PAPER_PADDING if self.protocol == "paper" else 0)

    def _solve(self, n_digits: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solved:
        return multiply(n_digits, a, b)

    def _columns(self, n_digits: np.ndarray) -> np.ndarray:
        return 2 * n_digits - 1

    def _operation_latents(self, solved: Solved, place: np.ndarray) -> dict[str, np.ndarray]:
        n = solved.n_digits[:, None]
        has_column = (place >= 0) & (place < self._columns(n))
        column, carry = at(solved.column, place), at(solved.carry, place)
        return {
            "column_sum": np.where(has_column, column, UNDEFINED),
            "n_products": np.where(has_column, n - np.abs(place - (n - 1)), UNDEFINED),
            "total": np.where(has_column, column + carry, UNDEFINED),
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        latents = block.latents
        number, operand_place = latents["number"][:, None, :], latents["operand_place"][:, None, :]
        n, place = latents["n_digits"][:, :, None], latents["place"][:, :, None]

        def column(k: np.ndarray) -> np.ndarray:
            """The operands' digits that have a partner in column ``k``."""
            return (operand_place >= 0) & (k >= 0) & (operand_place <= k) & (k - operand_place < n)

        here = column(place) & (latents["column_sum"] != UNDEFINED)[:, :, None]
        return {
            "a column": here & (number == 0),
            "b column": here & (number == 1),
            "carry source": column(place - 1),
            "ones": here & (place == 0),
        }

    def baselines(self, block: Items) -> dict[str, float]:
        """Those of every operation, and three that know half of the numbers:

        - ``ignores the numbers, knows the last digit``: what ignoring the numbers gives, with the last digit right;
        - ``the leading half of the digits``: multiplies the operands with the lower half of their digits (of three
          digits two) unread: a 5 in place of the highest of them and zeros below;
        - ``the last half of the digits``: multiplies the operands with the upper half of their digits (of three digits
          two) unread, as if they were zeros.

        Of the halves, too, the answer's length is known.
        """
        solved, _ = self._read(block.tokens)
        place, n, where = block.latents["place"], solved.n_digits[:, None], np.arange(solved.a.shape[1])
        targets, scored = block.targets, block.scored
        guess = self._guessers["ignores the numbers"].guess(self._contexts(block)["ignores the numbers"])
        kept = n // 2
        lower, upper = where < n - kept, where >= kept
        middle = np.where(where == n - kept - 1, 5, 0)
        leading = multiply(solved.n_digits, *(np.where(lower, middle, x) for x in (solved.a, solved.b)))
        last = multiply(solved.n_digits, *(np.where(upper, 0, x) for x in (solved.a, solved.b)))

        def digits_right(answer: np.ndarray) -> float:
            right = (place == UNDEFINED) | (at(answer, place) == targets - ANSWER_0)
            return float(right[scored].mean())

        return {
            **super().baselines(block),
            "ignores the numbers, knows the last digit": float(((guess == targets) | (place == 0))[scored].mean()),
            "the leading half of the digits": digits_right(leading.answer),
            "the last half of the digits": digits_right(last.answer),
        }

    def _uncarried(self, block: Items) -> np.ndarray:
        """Takes each column's last digit; above the highest column the tens of the product of the leading digits. It
        knows how long the answer is."""
        column, place = block.latents["column_sum"], block.latents["place"]
        solved, _ = self._read(block.tokens)
        tens = at(solved.column, 2 * solved.n_digits[:, None] - 2) // 10
        guess = ANSWER_0 + np.where(column == UNDEFINED, tens, column % 10)
        return (place == UNDEFINED) | (guess == block.targets)

    # ---- minimal pairs ---------------------------------------------------------------------------------------------

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        solved, _ = self._read(block.tokens)
        n, a, b, rows = solved.n_digits, solved.a, solved.b, np.arange(len(block))
        if kind == "swap":
            return *self._write(multiply(n, b, a)), (a != b).any(axis=1)
        # Few changes leave every carry alone: of one place, chosen at random, all digits are tried.
        place = rng.integers(0, n)
        changed = np.repeat(a[:, None], 10, axis=1)
        changed[rows, :, place] = np.arange(10)
        partner = multiply(np.repeat(n, 10), changed.reshape(-1, a.shape[1]), np.repeat(b, 10, axis=0))
        same_carries = (partner.carry.reshape(len(block), 10, -1) == solved.carry[:, None]).all(axis=2)
        allowed = (np.arange(10) != a[rows, place][:, None]) & (changed[rows, :, n - 1] > 0)
        allowed &= partner.overflow.reshape(-1, 10) == solved.overflow[:, None]
        allowed &= same_carries if kind == "digit" else ~same_carries
        chosen = rows * 10 + pick(rng, allowed, 1)[:, 0]
        return *self._write(Solved(*(values[chosen] for values in partner))), allowed.any(axis=1)

    def oracle(self, question: list[str]) -> list[str]:
        a, b = " ".join(question).removesuffix(" =").split(" * ")
        return [f"c{digit}" for digit in str(int(a.replace(" ", "")) * int(b.replace(" ", "")))] + ["."]
