from __future__ import annotations

import json
import re

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.statistics import claim_error_rates, error_rates
from mechproc.statistics.claims import Claim, Contrast, against

RANDOM = np.array([0.110, 0.112, 0.111, 0.114, 0.113, 0.116, 0.115, 0.118, 0.117, 0.119])
CROSSED = np.array([0.93, 0.95, 0.92, 0.96, 0.94, 0.91, 0.97, 0.90, 0.12, 0.11])
"""Eight of ten seeds cross."""
ALL = RANDOM + 0.8


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(np.asarray(values).tolist()))


def judged(contrasts, stair=0.85, **scores):
    claim = Claim("x", "A statement.", tuple(contrast.replace(stair=stair) for contrast in contrasts))
    return claim.judge({arm: by_seed(values) for arm, values in scores.items()})


def test_supported_refuted_and_undecided_effects():
    gain = against("a", "b", 0.3)
    assert judged([gain], a=ALL, b=RANDOM).word == "supported"
    assert judged([gain], a=RANDOM + 0.001, b=RANDOM).word == "refuted"
    half = RANDOM.copy()
    half[:4] = 0.9
    assert judged([gain], a=half, b=RANDOM).word == "undecided"
    # what is above zero and below what matters is refuted
    assert judged([gain], stair=0.0, a=RANDOM + 0.01, b=RANDOM).word == "refuted"


def test_eight_of_ten_seeds_are_enough_in_a_claim_of_three():
    contrasts = [against(arm, "control", 0.3) for arm in ("a", "b", "c")]
    verdict = judged(contrasts, a=CROSSED, b=CROSSED[::-1], c=np.roll(CROSSED, 3), control=RANDOM)
    assert verdict.word == "supported"
    seven = np.where(np.arange(10) < 7, 0.93, RANDOM - 0.02)
    verdict = judged(contrasts, a=seven, b=seven[::-1], c=np.roll(seven, 3), control=RANDOM)
    assert verdict.word == "supported"
    six = np.where(np.arange(10) < 6, 0.93, RANDOM - 0.02)
    assert judged(contrasts, a=six, b=six, c=six, control=RANDOM).word == "undecided"


def test_all_contrasts_have_to_hold_and_one_refutes():
    contrasts = [against("a", "control", 0.35), against("b", "control", 0.35)]
    verdict = judged(contrasts, a=ALL, b=RANDOM, control=RANDOM[::-1])
    assert [c.word for c in verdict.contrasts] == ["supported", "refuted"]
    assert verdict.word == "refuted"


def test_equivalence_is_as_wide_as_what_ten_seeds_may_fail_to_show():
    within = [against("a", "b", effect, "equivalence") for effect in (0.2, 0.3)]
    assert judged(within[:1], a=RANDOM[::-1], b=RANDOM).word == "undecided"  # 31 % of 0.85 may go unseen
    assert judged(within[1:], a=RANDOM[::-1], b=RANDOM).word == "supported"
    assert judged(within[:1], stair=0.0, a=RANDOM[::-1], b=RANDOM).word == "supported"
    assert judged(within[1:], a=ALL, b=RANDOM).word == "refuted"


def test_linear_contrasts_are_taken_within_a_seed():
    more_than_half = Contrast("more than half is lost", {"a": 0.5, "p": -1.0, "r": 0.5}, 0.1)
    verdict = judged([more_than_half], a=ALL, p=RANDOM, r=RANDOM)
    np.testing.assert_allclose(verdict.contrasts[0].values, 0.5 * (ALL - RANDOM))
    assert verdict.word == "supported"
    assert judged([more_than_half], a=ALL, p=RANDOM + 0.7, r=RANDOM).word == "refuted"


def test_best_of_all_needs_every_comparison_without_a_correction():
    others = ["b", "c", "d", "e", "f"]
    contrasts = [against("a", other, 0.05, "best of all") for other in others]
    worse = {other: CROSSED - 0.3 - 0.01 * i for i, other in enumerate(others)}
    verdict = judged(contrasts, a=CROSSED, **worse)
    assert verdict.word == "supported"
    assert [c.adjusted_p for c in verdict.contrasts] == [c.p for c in verdict.contrasts]
    almost = worse | {"f": CROSSED[::-1]}
    assert judged(contrasts, a=CROSSED, **almost).word == "undecided"


def test_lower_is_better_where_the_measure_says_so():
    claim = Claim("x", "Sooner.", (against("a", "b", 500.0),), measure="steps to 0.5")
    early, late = by_seed(np.arange(10) * 10.0 + 1000), by_seed(np.arange(10) * 10.0 + 3000)
    units = {arm: steps for arm, steps in (("a", early), ("b", late))}
    verdict = claim.judge(units)
    assert verdict.word == "supported" and verdict.contrasts[0].mean == 2000.0


def test_few_seeds_and_no_runs_have_no_word():
    claim = Claim("x", "A statement.", (against("a", "b", 0.1),))
    nothing = claim.judge({})
    assert nothing.word == "not run" and nothing.rows()[0]["word"] == "not run" and nothing.price() == ""
    nine = {arm: by_seed(values[:9]) for arm, values in (("a", ALL), ("b", RANDOM))}
    verdict = claim.judge(nine)
    assert verdict.word == "too few seeds (9 of 10)" and verdict.contrasts[0].word == "undecided"
    assert claim.judge({arm: by_seed([0.5]) for arm in "ab"}).contrasts == ()
    with pytest.raises(ConfigError, match="number of seeds = 11"):
        claim.judge({arm: by_seed(np.arange(11.0)) for arm in "ab"})


def test_price_of_a_decision():
    half = RANDOM.copy()
    half[:4] = 0.9
    verdict = judged([against("a", "b", 0.3)], a=half, b=RANDOM)
    more = (verdict.seeds_for_decision() or 0) - 10
    assert more > 0
    assert (
        verdict.price(7.0) == f"a decision would probably take {more} more seeds, {7 * more:,.0f} minutes of one core"
    )
    # an equivalence that ten seeds cannot show needs those that would show a crossing
    verdict = judged([against("a", "b", 0.15, "equivalence")], a=RANDOM[::-1], b=RANDOM)
    n = verdict.seeds_for_decision()
    assert n is not None and (1 - 0.15 / 0.85) ** n <= 0.025
    assert judged([against("a", "b", 0.3)], a=ALL, b=RANDOM).price(7.0) == ""


def test_text_and_rows():
    verdict = judged([against("a", "b", 0.3)], a=CROSSED, b=RANDOM)
    head, line = str(verdict).splitlines()
    assert head == "Claim x: supported. A statement."
    assert line.startswith("  a against b: +65.") and "smallest effect 30" in line and line.endswith(": supported")
    assert "Claim x" in verdict._repr_html_() and "ClaimVerdict(" not in str(verdict)
    assert repr(verdict) == "<ClaimVerdict x: supported. A statement.>"
    assert re.fullmatch(
        r"<ContrastVerdict a against b: supported, mean \+0.65\d*, 10 seeds, p = \S+>", repr(verdict.contrasts[0])
    )
    (row,) = json.loads(json.dumps(verdict.rows()))
    assert row["contrast_word"] == "supported" and row["n_seeds"] == 10


def test_a_claim_is_a_config():
    claim = Claim("x", "A statement.", (against("a", "b", 0.1, stair=0.85),))
    assert Claim.from_dict(json.loads(json.dumps(claim.to_dict()))) == claim


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"contrasts": ()}, "contrasts"),
        ({"contrasts": tuple(against(a, "z", 0.1) for a in "abcd")}, "contrasts"),
        ({"contrasts": (against("a", "b", 0.1), against("a", "c", 0.1, "best of all"))}, "contrasts"),
        ({"n_seeds": 8}, "n_seeds"),
        ({"statement": " "}, "statement"),
        ({"measure": "speed"}, "measure"),
    ],
)
def test_claims_that_mean_nothing_are_refused(settings, field):
    with pytest.raises(ConfigError, match=f"{field} = "):
        Claim(**({"name": "x", "statement": "s", "contrasts": (against("a", "b", 0.1),)} | settings))


@pytest.mark.parametrize(
    ("weights", "effect", "stair"),
    [
        ({"a": 1.0, "b": -0.5}, 0.1, 0.0),
        ({"a": 1.0}, 0.1, 0.0),
        ({"a": 1.0, "b": 0.0, "c": -1.0}, 0.1, 0.0),
        ({"a": 1.0, "b": -1.0}, 0.0, 0.0),
        ({"a": 1.0, "b": -1.0}, 0.1, -1.0),
    ],
)
def test_contrasts_that_mean_nothing_are_refused(weights, effect, stair):
    with pytest.raises(ConfigError):
        Contrast("x", weights, effect, stair=stair)


@pytest.mark.slow
@pytest.mark.parametrize("kind", range(len(error_rates.CLAIM_SCORES)))
def test_a_wrong_word_is_said_of_one_claim_in_twenty_at_most(kind):
    name, control, better, effect, stair = error_rates.CLAIM_SCORES[kind]
    n = 2000
    for number, scenario in enumerate(claim_error_rates.scenarios(name, control, better, effect, stair, 10)):
        rate = claim_error_rates.wrong_words(scenario, np.random.default_rng([kind, number]), n).mean()
        assert rate <= 0.05 + 3 * (0.05 * 0.95 / n) ** 0.5, scenario.name


@pytest.mark.slow
def test_true_words_are_found():
    """A control on the test above: claims that are true get their word."""
    rng = np.random.default_rng(0)
    never, always = error_rates.plateau(0.0), error_rates.plateau(1.0)
    scenarios = list(claim_error_rates.scenarios("plateau", never, always, 0.3, 0.82, 10))
    effect = claim_error_rates.ClaimScenario("x", scenarios[0].claim, scenarios[1].arms, "supported")
    assert claim_error_rates.wrong_words(effect, rng, 200).mean() == 1.0
    alike = claim_error_rates.ClaimScenario("x", scenarios[2].claim, scenarios[0].arms, "supported")
    assert claim_error_rates.wrong_words(alike, rng, 200).mean() == 0.0  # three contrasts at 0.3: 38 % may go unseen
