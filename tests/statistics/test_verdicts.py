"""What stands before and beside a verdict's word."""

from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.statistics.comparisons import Family
from mechproc.statistics.verdicts import BELOW_BASELINE, Levels, level_notes

LOW = dict(enumerate([0.110, 0.111, 0.112, 0.113, 0.114, 0.115, 0.116, 0.117]))
HIGHER = {seed: score + 0.01 for seed, score in LOW.items()}
SOLVED = {seed: score + 0.80 for seed, score in LOW.items()}
LEVELS = Levels(0.133, "a value of the context", 1.0)


def judged(treatment, control=LOW, levels=LEVELS, **settings):
    family = Family("haystack", (("arm", "control"),), **settings)
    return family.judge({"arm": treatment, "control": control}, levels=levels)[0]


def test_no_word_where_neither_arm_beats_the_baseline():
    verdict = judged(HIGHER)
    assert verdict.interval.excludes_zero and verdict.adjusted_p <= 0.05
    assert verdict.word == BELOW_BASELINE
    assert verdict.notes == tuple(
        f"0 of 8 runs of {arm} are above the best predictor that does not know the task "
        "(a value of the context, 13.3 %)"
        for arm in ("arm", "control")
    )
    assert "helps" not in str(verdict) and "hurts" not in str(verdict)


def test_one_lucky_run_does_not_bring_a_word():
    assert judged(HIGHER | {7: 0.95}).word == BELOW_BASELINE


def test_an_arm_above_the_baseline_has_a_word_and_the_other_is_noted_first():
    verdict = judged(SOLVED)
    assert verdict.word == "helps"
    first, last = str(verdict).splitlines()
    assert first.startswith("Note: 0 of 8 runs of control") and last.startswith("arm helps haystack")
    assert judged(SOLVED, levels=None).notes == ()


def test_arms_at_the_ceiling_are_noted():
    scores = {"a": np.full(8, 0.999), "b": np.full(8, 0.996)}
    below, notes = level_notes(scores, LEVELS)
    assert not below and "at the ceiling (100.0 %)" in notes[0]
    assert level_notes(scores | {"b": np.full(8, 0.9)}, LEVELS)[1] == ()
    assert level_notes(scores, Levels(0.1, "x", None))[1] == ()


def test_notes_of_an_arm_stand_with_its_verdicts_only():
    family = Family("haystack", (("a", "control"), ("b", "control")))
    scores = {"a": SOLVED, "b": SOLVED, "control": LOW}
    first, second = family.judge(scores, notes={"b": ("the donors of b know nothing",)})
    assert first.notes == () and second.notes == ("the donors of b know nothing",)


def test_described_comparisons_have_an_interval_and_no_word():
    pairs = tuple((f"arm{i}", "control") for i in range(12))
    scores = {arm: SOLVED for arm, _ in pairs} | {"control": LOW}
    verdicts = Family("haystack", pairs, descriptive=True).judge(scores)
    assert {v.word for v in verdicts} == {"no verdict"}
    assert all(v.adjusted_p == v.p and v.interval.bounded for v in verdicts)
    assert "described without a verdict" in str(verdicts[0]) and "Holm" not in str(verdicts[0])
    with pytest.raises(ConfigError, match="12 comparisons"):
        Family("haystack", pairs)


def test_an_interval_without_width_says_so():
    verdict = judged({s: x + 0.5 for s, x in LOW.items()})
    assert verdict.interval.has_no_width
    assert "all 8 differences are equal" in verdict.sentence() and "no width" in verdict.sentence()
    assert str(verdict.interval) == "no 0.95 interval: all 8 differences are +0.5"
    assert "no width" not in judged({s: x + 0.5 + 0.01 * s for s, x in LOW.items()}).sentence()


def test_undecided_by_the_correction_alone_says_so():
    arms = {f"arm{i}": LOW for i in range(5)}
    scores = arms | {"arm0": {s: x + 0.1 for s, x in LOW.items()} | {7: LOW[7] - 0.001}, "control": LOW}
    pairs = tuple((arm, "control") for arm in arms)
    verdict = Family("haystack", pairs).judge(scores)[0]
    assert verdict.word == "undecided" and verdict.interval.excludes_zero
    assert "the correction for 5 comparisons raises p above 0.05" in verdict.sentence()
    alone = Family("haystack", pairs[:1]).judge(scores)[0]
    assert alone.word == "helps" and "correction" not in alone.sentence()


def test_undecided_by_the_interval_alone_says_so():
    lopsided = {s: 0.01 + LOW[s] for s in range(7)} | {7: LOW[7] + 0.8}
    verdict = judged(lopsided, levels=None, interval="t")
    assert verdict.word == "undecided" and verdict.adjusted_p <= 0.05
    assert "the interval includes zero" in verdict.sentence()


def test_verdicts_print_as_sentences_and_each_note_once():
    family = Family("haystack", (("a", "control"), ("b", "control")))
    verdicts = family.judge({"a": SOLVED, "b": SOLVED, "control": LOW}, levels=LEVELS)
    text = str(verdicts)
    assert text.count("Note: 0 of 8 runs of control") == 1
    assert [line.split(":")[0] for line in text.splitlines()] == ["Note", "a helps haystack", "b helps haystack"]
    assert "Verdict(" not in text and "Verdict(" not in str(verdicts[0])
    html = verdicts._repr_html_()
    assert html.count("<li>") == 2 and "&" not in html.replace("&gt;", "").replace("&lt;", "")
    assert "a helps haystack" in verdicts[0]._repr_html_()
    assert list(verdicts.table()["word"]) == ["helps", "helps"]
    shown = repr(verdicts).splitlines()
    assert shown == [repr(verdict) for verdict in verdicts] and repr(type(verdicts)()) == "<Verdicts: none>"
    assert shown[0].startswith("<Verdict: a helps haystack: +") and shown[0].endswith("after Holm over 2)>")


def test_unit_and_direction_follow_the_measure():
    steps = Family("steps", (("a", "b"),), measure="steps to 0.5")
    assert (steps.unit, steps.higher_is_better) == ("steps", False)
    assert Family.from_dict(steps.to_dict()) == steps
    assert Family("x", (("a", "b"),), measure="loss area").higher_is_better is False
    with pytest.raises(ConfigError, match="measure = 'acuracy'"):
        Family("x", (("a", "b"),), measure="acuracy")
    with pytest.raises(ConfigError, match="smallest_effect = 0"):
        Family("x", (("a", "b"),), smallest_effect=0.0)
