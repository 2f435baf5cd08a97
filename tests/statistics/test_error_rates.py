"""The error rates that the README quotes, measured again on fewer simulated studies."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from mechproc.statistics import error_rates
from mechproc.statistics.comparisons import Family

NULLS = ("plateau, half cross", "plateau, one in five crosses", "stairs of nine digits")
SIMULATIONS = {8: 2000, 10: 1500, 20: 1500}
DONE = {8: 2000, 10: 1500, 20: 300}


@functools.cache
def rates(n: int) -> dict[tuple[str, str], float]:
    rows = error_rates.simulate(SIMULATIONS[n], seed=1, n_seeds=(n,))
    return {(row["scenario"], row["quantity"]): row["rate"] for row in rows}


def at_most(rate: float, n: int) -> float:
    """The largest rate that chance gives to a true ``rate`` (three standard errors)."""
    return rate + 3 * (rate * (1 - rate) / DONE[n]) ** 0.5


SEEDS = [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (10, 20))]


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("scenario", NULLS)
def test_sign_flip_keeps_its_level_on_stairs(n, scenario):
    rate = rates(n)[scenario, "false positive, sign-flip"]
    assert rate <= at_most(0.05, n)
    assert rate > 0.02, "a test that never rejects keeps every level"


@pytest.mark.parametrize("n", [8, 10])
@pytest.mark.parametrize("scenario", NULLS)
def test_percentile_bootstrap_does_not(n, scenario):
    assert rates(n)[scenario, "false positive, percentile bootstrap"] > at_most(0.05, n)


@pytest.mark.parametrize("n", SEEDS)
def test_intervals_cover_an_effect_that_moves_seeds_over_the_plateau(n):
    # not a shift, so neither promises 0.95; both come close
    for method in ("sign-flip", "t"):
        assert 0.91 <= rates(n)["plateau, 20 % to 70 % cross", f"coverage, {method}"] <= 0.99


def test_equal_means_of_different_shape_are_not_the_null():
    """What no method can promise with eight seeds: one in five crossing, against a control that never varies."""
    assert rates(8)["equal means, one in five against none", "coverage, sign-flip"] < 0.88
    assert rates(8)["equal means, one in five against none", "coverage, t"] < 0.88


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("m", [4, 5])
def test_holm_keeps_the_level_of_a_family_with_one_control(n, m):
    rate = rates(n)[f"stairs, {m} arms against one control", "any false positive after Holm"]
    assert 0.005 < rate <= at_most(0.05, n)


@pytest.mark.parametrize("n", [8, 10])
def test_logrank_is_an_approximation(n):
    assert 0.02 < rates(n)["exponential crossing times, censored", "false positive, log-rank"] < 0.09


def test_verdict_words_keep_the_level_of_a_family():
    """The whole way from scores to words: four arms without an effect, eight seeds, one control."""
    arms = [f"arm{i}" for i in range(4)]
    family = Family("stairs", tuple((arm, "control") for arm in arms))
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(400):
        scores = error_rates.plateau(0.5)(rng, (5, 8))
        named = dict(zip([*arms, "control"], ({i: float(s) for i, s in enumerate(row)} for row in scores), strict=True))
        false += any(verdict.word != "undecided" for verdict in family.judge(named))
    assert 2 <= false <= 400 * 0.05 + 3 * (400 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize(("draw", "mean"), [(error_rates.plateau(0.2), 0.294), (error_rates.constant(0.4), 0.4)])
def test_scenarios_have_the_means_they_claim(draw, mean):
    assert draw(np.random.default_rng(3), (100_000,)).mean() == pytest.approx(mean, abs=0.004)


def test_stairs_reach_from_the_floor_to_all_nine_digits():
    scores = error_rates.stairs(0.7)(np.random.default_rng(4), (10_000,))
    digits = np.round((scores - 0.267) / 0.0815).astype(int)
    shares = np.bincount(digits, minlength=10) / len(digits)
    # solved digits one after another: 0.3 stop at once, 0.7^9 solve all
    assert shares[0] == pytest.approx(0.3, abs=0.02) and shares[9] == pytest.approx(0.7**9, abs=0.02)
    assert len(shares) == 10 and scores.max() < 1.05


def test_the_command_writes_every_rate_and_the_same_ones_again(tmp_path):
    for name in ("one", "two"):
        assert error_rates.main(["--out", str(tmp_path / "new" / name), "--simulations", "20", "--seed", "3"]) == 0
    written = (tmp_path / "new" / "one").read_text()
    assert written == (tmp_path / "new" / "two").read_text()
    table = json.loads(written)
    assert {row["n_seeds"] for row in table["rates"]} == {8, 10, 20}
    assert {row["scenario"] for row in table["rates"]} >= {s.name for s in error_rates.SCENARIOS}
    assert all(
        0 <= row["rate"] <= 1 and row["n_simulations"] == (4 if row["n_seeds"] == 20 else 20) for row in table["rates"]
    )
