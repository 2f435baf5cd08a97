from __future__ import annotations

import json
import re

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.result import Result
from mechproc.statistics.comparisons import MIN_SEEDS, Family
from mechproc.statistics.paired import holm, interval, sign_flip_test

PAIRS = (("attention", "random"), ("full", "random"), ("mlp", "random"), ("permuted", "random"))
RANDOM = [0.11, 0.12, 0.13, 0.14, 0.12, 0.11, 0.95, 0.13]
ATTENTION = [0.91, 0.92, 0.93, 0.94, 0.92, 0.91, 0.96, 0.94]


def by_seed(scores) -> dict[int, float]:
    return dict(enumerate(scores))


SCORES = {
    "random": by_seed(RANDOM),
    "attention": by_seed(ATTENTION),
    "full": by_seed(RANDOM[::-1]),
    "mlp": by_seed([s - 0.01 for s in RANDOM]),
    "permuted": by_seed(RANDOM),
}


def result(scores, axes, provenance=(), unit="fraction", **coordinates) -> Result:
    return Result(
        "accuracy", np.array(scores), axes, coordinates, unit, "positive: better", "why", provenance=provenance
    )


def test_verdicts_carry_test_interval_and_correction():
    verdicts = Family("haystack", PAIRS).judge(SCORES)
    assert [(v.comparison.treatment, v.comparison.control) for v in verdicts] == list(PAIRS)
    differences = np.array(ATTENTION) - np.array(RANDOM)
    first = verdicts[0]
    assert first.comparison.mean == pytest.approx(differences.mean())
    assert first.p == sign_flip_test(differences) == 2 / 256
    found = interval(differences, 0.95)
    assert (first.interval.low, first.interval.high) == (found.low, found.high)
    np.testing.assert_array_equal([v.adjusted_p for v in verdicts], holm(np.array([v.p for v in verdicts])))
    assert [v.word for v in verdicts] == ["helps", "undecided", "hurts", "undecided"]
    assert first.adjusted_p == 4 * 2 / 256


def test_sentences_say_no_more_than_the_interval():
    helps, undecided, hurts, _ = Family("haystack", PAIRS).judge(SCORES)
    low, high = helps.interval.low, helps.interval.high
    assert helps.sentence() == (
        f"attention helps haystack: +70.2 points against random (95 % interval +{100 * low:.1f} to +{100 * high:.1f}, "
        "8 paired seeds, exact sign-flip p = 0.031 after Holm over 4)"
    )
    assert undecided.sentence().startswith(
        "undecided whether full helps or hurts haystack: +0.0 points against random (95 %"
    )
    assert hurts.sentence().startswith("mlp hurts haystack: -1.0 points against random")


def test_direction_and_unit_of_steps():
    family = Family("steps to 90 %", (("attention", "random"),), unit="steps", higher_is_better=False)
    scores = {"random": by_seed(np.arange(8) * 100.0 + 5000), "attention": by_seed(np.arange(8) * 10.0 + 900)}
    (verdict,) = family.judge(scores)
    assert verdict.word == "helps"
    assert "attention helps steps to 90 %: -4,415 steps against random" in verdict.sentence()
    assert verdict.sentence().endswith("8 paired seeds, exact sign-flip p = 0.0078)")
    assert verdict.row()["mean_difference"] == -4415.0


def test_no_word_before_all_planned_seeds_are_there():
    five = {arm: {seed: scores[seed] for seed in range(5)} for arm, scores in SCORES.items()}
    verdict = Family("haystack", PAIRS).judge(five)[0]
    assert verdict.word == "too few seeds (5 of 8)"
    sentence = verdict.sentence()
    assert sentence.startswith(
        "attention on haystack: too few seeds (5 of 8) for a verdict: +80.0 points against random"
    )
    assert "95 % interval unbounded" in sentence
    assert "helps" not in sentence
    row = json.loads(json.dumps(verdict.row(), allow_nan=False))
    assert (row["low"], row["high"], row["n_seeds"]) == (None, None, 5)
    assert Family("haystack", PAIRS, n_seeds=10).judge(SCORES)[0].word == "too few seeds (8 of 10)"


def test_a_word_needs_the_corrected_test_and_the_interval():
    # p = 2/256 in one of seven comparisons of nine seeds is enough alone and not after Holm
    rng = np.random.default_rng(0)
    scores = {f"arm{i}": by_seed(rng.normal(0.5, 0.1, 9)) for i in range(7)} | {"control": by_seed(np.full(9, 0.5))}
    scores["arm0"] = by_seed([0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57, 0.58, 0.488])
    family = Family("x", tuple((f"arm{i}", "control") for i in range(7)), n_seeds=9)
    verdict = family.judge(scores)[0]
    assert verdict.interval.excludes_zero and verdict.p < 0.05 < verdict.adjusted_p
    assert verdict.word == "undecided"
    # three large differences in the same direction as five small ones: the test is sure, Student's interval is not
    lopsided = {"control": by_seed(np.zeros(8)), "arm": by_seed([0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.8])}
    assert Family("x", (("arm", "control"),)).judge(lopsided)[0].word == "helps"
    assert Family("x", (("arm", "control"),), interval="t").judge(lopsided)[0].word == "undecided"


def test_pairing_goes_by_the_label_of_the_seed():
    shuffled = {arm: dict(reversed(scores.items())) for arm, scores in SCORES.items()} | {"random": SCORES["random"]}
    straight, other = Family("haystack", PAIRS).judge(SCORES), Family("haystack", PAIRS).judge(shuffled)
    assert [v.row() for v in straight] == [v.row() for v in other]
    np.testing.assert_array_equal(straight[0].comparison.differences, other[0].comparison.differences)


def test_items_are_averaged_within_a_seed_first():
    scores = np.random.default_rng(1).random((2, 8, 5))
    table = result(scores, ("arm", "seed", "item"), arm=["a", "b"], seed=list(range(8)), item=list("vwxyz"))
    (verdict,) = Family("x", (("a", "b"),)).judge(table)
    np.testing.assert_allclose(verdict.comparison.differences, scores[0].mean(axis=1) - scores[1].mean(axis=1))
    assert verdict.n_seeds == 8


def test_one_result_and_one_result_for_each_arm_are_the_same():
    scores = np.random.default_rng(2).random((2, 8))
    table = result(scores, ("arm", "seed"), arm=["a", "b"], seed=list(range(8)))
    family = Family("x", (("a", "b"),))
    apart = {"a": table.select(arm="a"), "b": table.select(arm="b").select(seed=[7, 6, 5, 4, 3, 2, 1, 0])}
    assert family.judge(table)[0].row() == family.judge(apart)[0].row()


CPU = {"engine": "reference", "device": "cpu", "simd": "AVX512", "threads": "2", "torch": "2.13.0"}


def arms(**provenance) -> dict[str, Result]:
    return {
        arm: result(scores, ("seed",), provenance[arm], seed=list(range(8)))
        for arm, scores in (("attention", ATTENTION), ("random", RANDOM))
    }


def test_mixed_provenance_is_refused_by_field_and_allowed_on_demand():
    family = Family("haystack", PAIRS[:1])
    alike = family.judge(arms(attention=[({}, CPU)], random=[({}, CPU)]))[0]
    assert alike.mixed_provenance == () and "provenance" not in alike.sentence()

    mixed = arms(attention=[({}, CPU)], random=[({}, CPU | {"simd": "AVX2"})])
    with pytest.raises(
        ConfigError, match=re.escape("provenances within a seed: simd: AVX512 / AVX2 (attention / random)")
    ):
        family.judge(mixed)
    verdict = family.judge(mixed, allow_mixed_provenance=True)[0]
    assert verdict.word == "helps"
    assert "; mixed provenance, simd: AVX512 / AVX2" in verdict.sentence()

    late_seeds = [({"seed": s}, CPU | {"torch": "2.14.0" if s > 4 else "2.13.0"}) for s in range(8)]
    with pytest.raises(ConfigError, match=re.escape("torch: 2.13.0 / 2.14.0 (attention / random seed 5)")):
        family.judge(arms(attention=[({}, CPU)], random=late_seeds))

    # a difference is taken within a seed, so that seeds may differ
    assert family.judge(arms(attention=late_seeds, random=late_seeds))[0].mixed_provenance == ()

    with pytest.raises(ConfigError, match="that of random is not known, that of attention is"):
        family.judge(arms(attention=[({}, CPU)], random=()))


def test_a_commit_is_recorded_and_another_kernel_is_refused():
    """Commits of one study may differ, as a commit may change nothing that is run; what the engine runs may not."""
    one, other = ([({}, CPU | {"commit": commit})] for commit in ("a" * 40, "b" * 40))
    assert Family("haystack", PAIRS[:1]).judge(arms(attention=one, random=other))[0].mixed_provenance == ()
    one, other = ([({}, CPU | {"engine": f"cpu {source}"})] for source in ("0123abcd", "4567abcd"))
    with pytest.raises(ConfigError, match=re.escape("engine: cpu 0123abcd / cpu 4567abcd")):
        Family("haystack", PAIRS[:1]).judge(arms(attention=one, random=other))


def test_provenance_of_arms_outside_the_family_does_not_matter():
    scores = arms(attention=[({}, CPU)], random=[({}, CPU)])
    scores["other"] = result(RANDOM, ("seed",), [({}, CPU | {"device": "cuda"})], seed=list(range(8)))
    assert Family("haystack", PAIRS[:1]).judge(scores)[0].word == "helps"


SEEDS = list(range(8))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (SCORES | {"atention": 1} | {"attention": None}, "need the label of each seed"),
        ({k: v for k, v in SCORES.items() if k != "mlp"}, "arm 'mlp' of family 'haystack' has no scores"),
        ({("atention" if k == "attention" else k): v for k, v in SCORES.items()}, "did you mean 'atention'?"),
        (
            SCORES | {"full": {s: 0.5 for s in range(1, 9)}},
            "'attention' and 'full' have different seeds, not in both: 0, 8",
        ),
        (SCORES | {"full": dict.fromkeys(range(7), 0.5)}, "different seeds, not in both: 7"),
        (SCORES | {"full": by_seed([*RANDOM[:7], np.nan])}, "score of arm 'full', seed 7 = nan"),
        (SCORES | {"full": {}}, "at least one seed"),
        (SCORES | {"full": RANDOM}, "need the label of each seed"),
        (SCORES | {"full": np.array(RANDOM)}, "need the label of each seed"),
        ({arm: by_seed(range(9)) for arm in SCORES}, "at most the 8 that family 'haystack' was fixed for"),
        (
            SCORES | {"full": result(RANDOM, ("seed",), unit="nats", seed=SEEDS)},
            "unit of the scores of arm 'full' = 'nats'",
        ),
        (
            SCORES | {"full": result([RANDOM], ("part", "seed"), part=["x"], seed=SEEDS)},
            "axes of the scores of arm 'full'",
        ),
        (
            SCORES | {"full": result(np.zeros((8, 1)), ("seed", "item"), seed=SEEDS, item=[3])},
            "'attention' and 'full' have different items, not in both: 3",
        ),
        (result(RANDOM, ("seed",), seed=SEEDS), "has no axis 'arm'"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(scores, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Family("haystack", PAIRS).judge(scores)


def many(n: int) -> tuple[tuple[str, str], ...]:
    return tuple((f"arm{i}", "control") for i in range(n))


def test_a_family_that_could_never_give_a_verdict_is_refused():
    assert Family("x", many(6)).smallest_p(8) == 6 * 2 / 256
    with pytest.raises(ConfigError, match=re.escape("8 seeds give p = 0.0078 at best, after Holm 0.055")) as error:
        Family("x", many(7))
    assert "take at most 6 comparisons or at least 9 seeds" in str(error.value)
    assert Family("x", many(7), n_seeds=9).smallest_p(9) == 7 * 2 / 512
    with pytest.raises(ConfigError, match="take at least 11 seeds"):
        Family("x", many(1), alpha=0.001)
    assert Family("x", many(200)[:1]).smallest_p(1) == 1.0


def test_largest_family_of_eight_seeds_reaches_a_verdict():
    scores = {arm: by_seed(np.arange(8) / 10 + 0.1) for arm, _ in many(6)} | {"control": by_seed(np.zeros(8))}
    assert {v.word for v in Family("x", many(6)).judge(scores)} == {"helps"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": ()}, "pairs = ()"),
        ({"pairs": (("a", "a"),)}, "two different arms"),
        ({"pairs": (("a", "b"), ("a", "b"))}, "comparisons that occur once"),
        ({"pairs": (("a", "b"), ("b", "a"))}, "comparisons that occur once"),
        ({"n_seeds": MIN_SEEDS - 1}, "n_seeds = 7 is not allowed: at least 8"),
        ({"alpha": 0.0}, "alpha = 0.0"),
        ({"name": ""}, "name = ''"),
    ],
)
def test_families_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Family(**({"name": "x", "pairs": (("a", "b"),)} | settings))


def test_a_family_is_a_config():
    family = Family("haystack", [["attention", "random"]], n_seeds=12, interval="t")  # type: ignore[arg-type]
    assert Family.from_dict(json.loads(json.dumps(family.to_dict()))) == family
    assert hash(family) == hash(Family("haystack", (("attention", "random"),), n_seeds=12, interval="t"))
    with pytest.raises(ConfigError, match="did you mean 'alpha'"):
        Family.from_dict({"name": "x", "pairs": [["a", "b"]], "alfa": 0.1})
