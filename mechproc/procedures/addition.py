"""Addition, digit by digit: most significant digit first, or all three numbers reversed."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from mechproc.procedures.arithmetic import ANSWER_0, Arithmetic, at
from mechproc.procedures.base import Example, PairKind
from mechproc.procedures.digits import Solved, add, carry_distance
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import Fixed, LengthDistribution


@dataclasses.dataclass(frozen=True)
class Sum(Arithmetic):
    """What both additions share."""

    operator: ClassVar[str] = "+"
    uncarried_name: ClassVar[str] = "adds without carrying"
    latent_names: ClassVar[dict[str, str]] = {
        **Arithmetic.latent_names,
        "a_digit": "first operand's digit at the predicted place; where it has one",
        "b_digit": "second operand's digit at the predicted place; where it has one",
        "digit_sum": "sum of these two digits, 0 to 18",
        "carry_distance": "how many places below the carry is decided: below a run of digit sums of 9; above the ones",
        "a_position": "position of a_digit",
        "b_position": "position of b_digit",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (
        *Arithmetic.ordinal_latents,
        *("a_digit", "b_digit", "digit_sum", "carry_distance", "a_position", "b_position"),
    )
    attention_target_names: ClassVar[dict[str, str]] = {
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

    @property
    def n_ctx(self) -> int:
        return 3 * self.lengths.max + 4

    def _solve(self, n_digits: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solved:
        return add(n_digits, a, b)

    def _columns(self, n_digits: np.ndarray) -> np.ndarray:
        return n_digits

    def _operation_latents(self, solved: Solved, place: np.ndarray) -> dict[str, np.ndarray]:
        n = solved.n_digits[:, None]
        has_digits = (place >= 0) & (place < n)
        first_position = place if self.least_first else n - 1 - place

        def where(here: np.ndarray, value: np.ndarray) -> np.ndarray:
            return np.where(here, value, UNDEFINED)

        return {
            "a_digit": where(has_digits, at(solved.a, place)),
            "b_digit": where(has_digits, at(solved.b, place)),
            "digit_sum": where(has_digits, at(solved.column, place)),
            "carry_distance": where(place > 0, at(carry_distance(solved), place)),
            "a_position": where(has_digits, first_position),
            "b_position": where(has_digits, first_position + n + 1),
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos, number = np.arange(self.n_ctx), block.latents["number"]
        operand_place, place = block.latents["operand_place"][:, None, :], block.latents["place"][:, :, None]
        from_b, to_a = (number == 1)[:, :, None], (number == 0)[:, None, :]
        return {
            "a digit": block.latents["a_position"][..., None] == pos,
            "b digit": block.latents["b_position"][..., None] == pos,
            "carry source": (place >= 1) & (operand_place == place - 1),
            "aligned": from_b & to_a & (block.latents["operand_place"][:, :, None] == operand_place),
        }

    def _uncarried(self, block: Items) -> np.ndarray:
        """Adds the two digits of each place modulo 10, and writes one digit more when the two leading ones make 10 or
        more by themselves. It knows where the answer ends."""
        latents = block.latents
        leading_sum = np.where(latents["place"] == latents["n_digits"] - 1, latents["digit_sum"], 0).max(axis=1)
        digit_right = latents["digit_sum"] % 10 == block.targets - ANSWER_0
        length_right = (leading_sum[:, None] >= 10) == latents["overflow"]
        slots = [latents["digit_sum"] != UNDEFINED, latents["place"] != UNDEFINED]
        return np.select(slots, [digit_right, length_right], True)

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        solved, _ = self._read(block.tokens)
        n, a, b, rows = solved.n_digits, solved.a, solved.b, np.arange(len(block))
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
        cell = rows, chosen
        digit = low[cell] + np.floor(rng.random(len(block)) * others[cell]).astype(np.int64)
        changed = a.copy()
        changed[cell] = digit + ((kind == "digit") & (digit >= a[cell]))
        partner = add(n, changed, b)
        return *self._write(partner), (choices[cell] >= 0) & (partner.overflow == solved.overflow)

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
