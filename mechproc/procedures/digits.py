"""Numbers as digit arrays, so that any number of digits works.

They are int64 [item, place]; place 0 holds the ones, and zeros stand above a number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Sums(NamedTuple):
    """Solved additions of two numbers with equally many digits."""

    n_digits: np.ndarray
    """int64 [item]: digits of each operand."""
    a: np.ndarray
    b: np.ndarray
    answer: np.ndarray
    carry: np.ndarray
    """The carry *into* each place."""
    overflow: np.ndarray
    """int64 [item]: 1 where the answer has one digit more than the operands."""


def draw_numbers(rng: np.random.Generator, n_digits: np.ndarray, width: int) -> np.ndarray:
    """One natural number of each of these many digits, all equally likely, in ``width`` places."""
    shape, leading = (len(n_digits), width), n_digits[:, None] - 1
    place = np.arange(width)
    digits = np.where(place == leading, rng.integers(1, 10, size=shape), rng.integers(0, 10, size=shape))
    return np.where(place <= leading, digits, 0)


def add(n_digits: np.ndarray, a: np.ndarray, b: np.ndarray) -> Sums:
    """``a + b``; the arrays have at least one place above the operands' leading digits."""
    total = a + b
    carry = np.zeros_like(total)
    for place in range(total.shape[1] - 1):
        carry[:, place + 1] = total[:, place] + carry[:, place] >= 10
    return Sums(n_digits, a, b, (total + carry) % 10, carry, carry[np.arange(len(a)), n_digits])


def carry_distance(sums: Sums) -> np.ndarray:
    """How many places below each the carry into it is decided, int64 [item, place]; 0 at place 0.

    A digit sum of 9 hands on the carry from below, any other decides by itself: 1 where the next lower sum is not 9.
    """
    place = np.arange(sums.a.shape[1])
    decides = np.where(sums.a + sums.b != 9, place, 0)
    highest = np.maximum.accumulate(decides, axis=1)
    return place - np.pad(highest, ((0, 0), (1, 0)))[:, :-1]
