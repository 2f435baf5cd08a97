"""How often the statistics are wrong, measured on scores like ours: a few seeds, and scores that come in stairs.

    python -m mechproc.statistics.error_rates --out results/statistics.json

Each scenario draws a score for each seed and arm many times, with the truth known because it was put there: how often
is an effect called where there is none (two-sided, at 0.05), how often does a 95 % interval cover the true mean
difference, how often is a true effect found. The bootstrap is here to show why it is not used.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, stats

from mechproc.files import atomic_write
from mechproc.statistics import claim_error_rates as claims
from mechproc.statistics.claims import CLAIM_SEEDS
from mechproc.statistics.paired import EXACT_SEEDS, holm, sign_flip_bounds, sign_flip_p, t_bounds
from mechproc.statistics.survival import Crossing, logrank

ALPHA = 0.05
N_SEEDS = (8, 10, 20)
BOOTSTRAP_RESAMPLES = 999
STAIR = 0.82
"""Mean gain of a seed that crosses the plateau."""
DIGIT = 0.0815
"""Gain of a digit of reversed addition."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def plateau(share: float) -> Draw:
    """Scores of a task with one plateau: the given share of seeds crossed it (0.90 to 1.00), the rest did not (0.11 to
    0.15)."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        crossed = rng.random(shape) < share
        return np.where(crossed, rng.uniform(0.90, 1.00, shape), rng.uniform(0.11, 0.15, shape))

    return draw


def stairs(share: float, more: float = 0.0) -> Draw:
    """Scores of reversed addition: 0.267, and 0.0815 more for each of nine digits, solved one after another, each with
    probability ``share`` once those before it are; about one point of noise. ``more``: a higher share instead, with
    which the mean is this much higher."""

    def mean(share: float) -> float:
        return DIGIT * sum(share**k for k in range(1, 10))

    if more:
        share = float(optimize.brentq(lambda higher: mean(higher) - mean(share) - more, share, 1.0))  # type: ignore[arg-type]

    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        digits = np.minimum(rng.geometric(1 - share, shape) - 1, 9)
        return 0.267 + DIGIT * digits + rng.normal(0.0, 0.01, shape)

    return draw


def constant(score: float) -> Draw:
    """The same score in every seed, but for a tenth of a point."""
    return lambda rng, shape: rng.normal(score, 0.001, shape)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Two arms whose true mean difference is known."""

    name: str
    treatment: Draw
    control: Draw
    effect: float
    """True mean of treatment minus control."""
    exchangeable: bool
    """The arms have the same distribution, which is the null of the sign-flip test. Equal means are not enough."""


SCENARIOS = (
    Scenario("plateau, half cross", plateau(0.5), plateau(0.5), 0.0, True),
    Scenario("plateau, one in five crosses", plateau(0.2), plateau(0.2), 0.0, True),
    Scenario("stairs of nine digits", stairs(0.7), stairs(0.7), 0.0, True),
    Scenario("plateau, 20 % to 70 % cross", plateau(0.7), plateau(0.2), 0.5 * (0.95 - 0.13), False),
    Scenario("equal means, one in five against none", plateau(0.2), constant(0.13 + 0.2 * 0.82), 0.0, False),
)

CLAIM_SCORES = (
    ("plateau, none crosses", plateau(0.0), plateau(0.15 / STAIR), 0.15, STAIR),
    ("plateau, one in five crosses", plateau(0.2), plateau(0.2 + 0.15 / STAIR), 0.15, STAIR),
    ("plateau, half cross", plateau(0.5), plateau(0.5 + 0.15 / STAIR), 0.15, STAIR),
    ("stairs of nine digits", stairs(0.7), stairs(0.7, 0.15), 0.15, DIGIT),
)
"""Scores of claims: name, control, an arm with a higher mean, by how much, and the stair that the claim declares."""


def simulate(n_simulations: int, seed: int = 0, n_seeds: tuple[int, ...] = N_SEEDS) -> list[dict[str, Any]]:
    """The measured rates, one row for each scenario, number of seeds and quantity.

    Each row: ``scenario``, ``n_seeds``, ``quantity``, ``rate`` (0 to 1), ``standard_error`` (binomial) and
    ``n_simulations``: a fifth of those asked for where there are more than ``EXACT_SEEDS`` seeds, because every test
    then counts 99,999 flips.
    """
    rows: list[dict[str, Any]] = []
    for n in n_seeds:
        repeats = n_simulations if n <= EXACT_SEEDS else n_simulations // 5
        for number, scenario in enumerate(SCENARIOS):
            rng = np.random.default_rng([seed, n, number])
            shape = (repeats, n)
            differences = scenario.treatment(rng, shape) - scenario.control(rng, shape)
            for quantity, happened in _paired_outcomes(differences, scenario, rng).items():
                rows.append(_row(scenario.name, n, quantity, happened))
        for m in (4, 5):
            wrong = family_false_positives(np.random.default_rng([seed, n, m, 1]), repeats, n, m)
            rows.append(_row(f"stairs, {m} arms against one control", n, "any false positive after Holm", wrong))
        if CLAIM_SEEDS <= n <= EXACT_SEEDS:  # with more, every decision counts 99,999 flips three times
            rows += _claim_rows(n, repeats, seed)
        wrong = _logrank_false_positives(np.random.default_rng([seed, n, 2]), min(repeats, 2000), n)
        rows.append(_row("exponential crossing times, censored", n, "false positive, log-rank", wrong))
    return rows


def _claim_rows(n_seeds: int, n_simulations: int, seed: int) -> list[dict[str, Any]]:
    """How often claims on ``n_seeds`` seeds get a wrong word."""
    rows = []
    for kind, (name, control, better, effect, stair) in enumerate(CLAIM_SCORES):
        for number, scenario in enumerate(claims.scenarios(name, control, better, effect, stair, n_seeds)):
            rng = np.random.default_rng([seed, n_seeds, kind, number, 3])
            wrong = claims.wrong_words(scenario, rng, n_simulations)
            rows.append(_row(scenario.name, n_seeds, f"wrongly {scenario.wrong}", wrong))
    return rows


def bootstrap_bounds(differences: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the percentile bootstrap of the mean of each row of ``differences`` [..., seed]. Not for use."""
    ends = stats.bootstrap(
        (differences,),
        np.mean,
        axis=-1,
        n_resamples=BOOTSTRAP_RESAMPLES,
        batch=20,
        vectorized=True,
        confidence_level=1 - ALPHA,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return ends.low, ends.high


def family_false_positives(rng: np.random.Generator, n_simulations: int, n_seeds: int, m: int) -> np.ndarray:
    """Whether any of ``m`` arms without an effect is called after Holm, against one control they share: bool
    [simulation]."""
    draw = stairs(0.7)
    arms, control = draw(rng, (n_simulations, m, n_seeds)), draw(rng, (n_simulations, 1, n_seeds))
    return np.any(holm(_p(arms - control)) <= ALPHA, axis=-1)


def _paired_outcomes(differences: np.ndarray, scenario: Scenario, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """For each quantity whether it happened, bool [simulation]."""
    intervals = {"t": t_bounds(differences, 1 - ALPHA), "percentile bootstrap": bootstrap_bounds(differences, rng)}
    if scenario.exchangeable:
        wrong = {"false positive, sign-flip": _p(differences) <= ALPHA}
        return wrong | {f"false positive, {name}": (low > 0) | (high < 0) for name, (low, high) in intervals.items()}
    ends = [sign_flip_bounds(chunk, 1 - ALPHA) for chunk in _chunks(differences)]
    low, high = (np.concatenate(side) for side in zip(*ends, strict=True))
    outcomes = {
        f"coverage, {name}": (low <= scenario.effect) & (scenario.effect <= high)
        for name, (low, high) in ({"sign-flip": (low, high)} | intervals).items()
    }
    if scenario.effect > 0:
        outcomes["effect found, sign-flip"] = low > 0
    return outcomes


def _p(differences: np.ndarray) -> np.ndarray:
    return np.concatenate([sign_flip_p(chunk) for chunk in _chunks(differences)])


def _logrank_false_positives(rng: np.random.Generator, n_simulations: int, n_seeds: int) -> np.ndarray:
    """Both arms cross after exponential times; 30 % are censored by the budget."""
    steps = rng.exponential(1.0, (n_simulations, 2, n_seeds))
    budget = -np.log(0.3)
    wrong = []
    for pair in steps:
        first, second = ([Crossing(min(s, budget), s < budget) for s in arm] for arm in pair.tolist())
        wrong.append(logrank(first, second) <= ALPHA)
    return np.array(wrong)


def _chunks(differences: np.ndarray) -> Iterator[np.ndarray]:
    """Rows few enough that their subset sums, up to 99,999 each, stay in memory."""
    size = 20 if differences.shape[-1] > 12 else 500
    return (differences[i : i + size] for i in range(0, len(differences), size))


def _row(scenario: str, n_seeds: int, quantity: str, happened: np.ndarray) -> dict[str, Any]:
    rate, n = float(happened.mean()), len(happened)
    return {
        "scenario": scenario,
        "n_seeds": n_seeds,
        "quantity": quantity,
        "rate": round(rate, 4),
        "standard_error": round((rate * (1 - rate) / n) ** 0.5, 4),
        "n_simulations": n,
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the table of measured rates as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m mechproc.statistics.error_rates", description="measure the error rates of the statistics"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--simulations", type=int, default=20_000, help="simulated studies for each rate")
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    rows = simulate(settings.simulations, settings.seed)
    table = {"alpha": ALPHA, "seed": settings.seed, "bootstrap_resamples": BOOTSTRAP_RESAMPLES, "rates": rows}
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(settings.out, (json.dumps(table, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
