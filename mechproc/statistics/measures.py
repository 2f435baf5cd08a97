"""What is compared between trainings: the measures, by name, and how each is computed from what a run records.

    accuracy         token accuracy on the test items
    loss             cross-entropy on the test items, in nats for each scored token
    digits           answer digits that are predicted, of arithmetic tasks
    loss area        mean validation loss along the training
    steps to 0.5     first validation at which token accuracy was at least 0.5, restricted to the budget

The last two look along the training, and do not depend on where the last step falls. ``steps to X`` is the
restricted crossing time: a run that did not cross within its budget counts with the budget, so that differences are
paired differences of restricted mean times (Royston and Parmar 2013).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.statistics.survival import crossing_steps, restricted_steps

STEPS_TO = "steps to "
SOLVED = 0.9
"""Accuracy from which a digit of the answer counts as predicted."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number for each run."""

    name: str
    unit: str
    higher_is_better: bool
    direction: str
    what_it_does_not_show: str
    threshold: float | None = None
    """The accuracy to cross, of ``steps to``."""


_MEASURES = {
    "accuracy": Measure(
        "accuracy",
        "fraction",
        True,
        "higher: more of the scored tokens are predicted",
        "whether more training would have closed the gap: it is a speed at a fixed budget",
    ),
    "loss": Measure(
        "loss",
        "nats",
        False,
        "lower: the scored tokens are given a higher probability",
        "how many of the tokens are predicted: a few sure mistakes can cost more than many doubtful hits gain",
    ),
    "digits": Measure(
        "digits",
        "digits",
        True,
        "higher: more digits of the answer are predicted",
        "digits that are predicted in part of the items only: below an accuracy of 0.9 a digit counts as not predicted",
    ),
    "loss area": Measure(
        "loss area",
        "nats",
        False,
        "lower: the loss fell sooner or further",
        "whether the runs differ early or late: the whole training counts alike",
    ),
}


def measure(name: str) -> Measure:
    """The measure of this name; ``"steps to 0.5"`` for any accuracy above 0 and up to 1. Errors: ``ConfigError``."""
    if name in _MEASURES:
        return _MEASURES[name]
    if name.startswith(STEPS_TO):
        try:
            threshold = float(name.removeprefix(STEPS_TO))
        except ValueError:
            threshold = float("nan")
        require(0 < threshold <= 1, "measure", name, "'steps to' and an accuracy above 0, at most 1")
        return Measure(
            name,
            "steps",
            False,
            "lower: learned sooner",
            "anything finer than the distance between two validations, or later than the budget",
            threshold,
        )
    raise ConfigError(f"measure = {name!r} is not allowed: one of {', '.join(_MEASURES)}, steps to X")


def steps_to(steps: np.ndarray, accuracy: np.ndarray, threshold: float, budget: float) -> float:
    """min(first validation at or above ``threshold``, ``budget``), in steps.

    Errors: ``ConfigError`` for a run that did not cross and was watched for less than ``budget`` steps.
    """
    return float(restricted_steps([crossing_steps(steps, accuracy, threshold)], budget)[0])


def mean_over_steps(steps: np.ndarray, values: np.ndarray) -> float:
    """The area under ``values`` [evaluation] over the rising ``steps`` (trapezoidal rule), divided by the steps: a mean
    in the unit of ``values``.

    Errors: ``ConfigError`` for fewer than two evaluations or values that are not finite.
    """
    at, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    require(at.ndim == 1 and at.size > 1 and bool((np.diff(at) > 0).all()), "steps", steps, "rising, at least two")
    require(y.shape == at.shape and bool(np.isfinite(y).all()), "values", values, "one finite number for each step")
    return float(np.trapezoid(y, at) / (at[-1] - at[0]))


def digits_by_position(correct: np.ndarray, scored: np.ndarray, n_digits: int) -> int:
    """Digits that are predicted: of the first ``n_digits`` scored positions of the answer, those whose accuracy over
    the test items is at least ``SOLVED``.

    ``correct`` and ``scored``: int64 [position], counts of correctly predicted and of scored tokens.
    """
    correct, scored = np.asarray(correct), np.asarray(scored)
    require(len(scored) >= n_digits, "positions", len(scored), f"at least the {n_digits} digits of the answer")
    digits = slice(n_digits)
    return int((correct[digits] >= SOLVED * np.maximum(scored[digits], 1)).sum())


def digits_by_stairs(accuracy: float, n_digits: int, n_scored: float, chance: float = 0.1) -> int:
    """Digits that are predicted, from the accuracy alone, rounded to whole stairs.

    A digit that goes from guessing to predicted adds a stair of (1 - chance) / n_scored to the accuracy, and all are
    predicted at an accuracy of 1: digits = n_digits - (1 - accuracy) / stair. It supposes that the other scored tokens
    of an item (``n_scored`` in all) are predicted, and that digits are learned one after the other; where several are
    predicted in part of the items, their stairs add up to digits that no position has.
    """
    stair = (1 - chance) / n_scored
    return int(np.clip(round(n_digits - (1 - accuracy) / stair), 0, n_digits))
