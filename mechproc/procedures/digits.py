"""Numbers as digit arrays, so that any number of digits works.

They are int64 [item, place]; place 0 holds the ones, and zeros stand above a number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Solved(NamedTuple):
    """Solved additions or multiplications of two numbers with equally many digits."""

    n_digits: np.ndarray
    """int64 [item]: digits of each operand."""
    a: np.ndarray
    b: np.ndarray
    column: np.ndarray
    """What stands in each place before anything is carried: the sum of two digits, or of products of digits."""
    answer: np.ndarray
    carry: np.ndarray
    """The carry *into* each place."""
    overflow: np.ndarray
    """int64 [item]: 1 where the answer has a digit above the highest column, made by a carry alone."""


def draw_numbers(rng: np.random.Generator, n_digits: np.ndarray, width: int) -> np.ndarray:
    """One natural number of each of these many digits, all equally likely, in ``width`` places."""
    shape, leading = (len(n_digits), width), n_digits[:, None] - 1
    place = np.arange(width)
    digits = np.where(place == leading, rng.integers(1, 10, size=shape), rng.integers(0, 10, size=shape))
    return np.where(place <= leading, digits, 0)


def add(n_digits: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solved:
    """``a + b``; the arrays have at least one place above the operands' leading digits."""
    return _carried(n_digits, a, b, a + b, n_digits)


def multiply(n_digits: np.ndarray, a: np.ndarray, b: np.ndarray) -> Solved:
    """``a * b``; the answer has twice the places."""
    width = a.shape[1]
    column = np.zeros((len(a), 2 * width), dtype=np.int64)
    for place in range(width):
        column[:, place : place + width] += a[:, place : place + 1] * b
    return _carried(n_digits, a, b, column, 2 * n_digits - 1)


def _carried(n_digits: np.ndarray, a: np.ndarray, b: np.ndarray, column: np.ndarray, n_columns: np.ndarray) -> Solved:
    carry = np.zeros_like(column)
    for place in range(column.shape[1] - 1):
        carry[:, place + 1] = (column[:, place] + carry[:, place]) // 10
    overflow = (carry[np.arange(len(a)), n_columns] > 0).astype(np.int64)
    return Solved(n_digits, a, b, column, (column + carry) % 10, carry, overflow)


def carry_distance(sums: Solved) -> np.ndarray:
    """How many places below each the carry into it is decided, int64 [item, place], in additions; 0 at place 0.

    A digit sum of 9 hands on the carry from below, any other decides by itself: 1 where the next lower sum is not 9.
    """
    place = np.arange(sums.a.shape[1])
    decides = np.where(sums.column != 9, place, 0)
    highest = np.maximum.accumulate(decides, axis=1)
    return place - np.pad(highest, ((0, 0), (1, 0)))[:, :-1]
