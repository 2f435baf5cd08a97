"""A study on a page, from scores that nobody trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from analyses.report import Report
from analyses.report.collect import report
from analyses.report.sections import claims, paper, study
from mechproc.studies import perturbation, rules_by_task, transfer_map


@pytest.fixture(scope="module")
def rules():
    return rules_by_task.study("laptop")


@pytest.fixture(scope="module")
def noise():
    return perturbation.study("laptop")


def of_arm(planned, arm: str) -> list[str]:
    return [run.identity for run in planned.by_arm[arm].values()]


def text(page: Report) -> str:
    return " ".join(str(getattr(block, "text", "")) for block in page.blocks)


def tables(page: Report) -> list[pd.DataFrame]:
    found = [block.table for block in page.blocks if block.kind == "table"]
    return [pd.DataFrame([[c.text for c in row] for row in t.rows], columns=[c.name for c in t.columns]) for t in found]


class TestGains:
    def test_each_cell_is_the_paired_difference_from_the_random_start(self, rules, generated):
        store = generated()
        found, scores = study.gains(rules, store), rules.scores(store)
        ours = found.select(start="set, attention", task="haystack").values
        arms = [scores.select(arm=f"haystack: {start}").values for start in ("set, attention", "random")]
        np.testing.assert_allclose(ours, arms[0] - arms[1])
        assert "random" not in found.coordinates["start"]
        assert found.metadata["arms"]["haystack"]["set, full"] == "haystack: set, full"

    def test_lower_is_better_turns_the_sign(self, noise, generated):
        store = generated()
        better, loss = study.gains(noise, store, "loss area"), noise.scores(store, "loss area")
        arms = [loss.select(arm=f"haystack: {start}").values for start in ("random", "permuted")]
        np.testing.assert_allclose(better.select(start="permuted", task="haystack").values, arms[0] - arms[1])

    def test_what_was_not_run_is_missing_and_what_does_not_exist_is_undefined(self, rules, generated):
        store = generated(absent=of_arm(rules, "haystack: set, full"))
        found = study.gains(rules, store).select(start="set, full", task="haystack")
        assert found.is_missing.all()
        paper_size = rules_by_task.study("paper", [10])
        lists = study.gains(paper_size, generated()).select(start="union, attention", task="sorting")
        assert lists.is_undefined.all()


class TestPage:
    def test_not_run_yet(self, rules, generated):
        page = Report("T")
        everything = [run.identity for _, run in rules.runs]
        study.add(page, rules, generated(absent=everything))
        assert "0 of 140 trainings are complete" in text(page) and "Not run yet" in text(page)
        assert not [block for block in page.blocks if block.kind == "figure"]

    def test_every_arm_is_in_a_matrix_in_curves_and_has_evidence(self, noise, generated):
        page = Report("T")
        study.add(page, noise, generated(points=5))
        html = page.html()
        matrix, curves = [block for block in page.blocks if block.kind == "figure"]
        assert "10 seeds. Each cell is a mean over seeds, in points, before its 95 % interval" in matrix.caption
        drawn = {str(t.name) for figure in curves.figures for t in figure.data}
        for arm in noise.arms:
            assert f'aria-label="Evidence on {arm}"' in html
            assert arm.removeprefix("haystack: ") in drawn
        (table, *_) = tables(page)
        assert list(table.columns) == ["comparison", "points", "interval", "seeds", "p"]  # this family describes alone
        assert table.loc[0, "comparison"].endswith(" against random")
        spoken = text(page.known.on("haystack: permuted"))
        assert "attn of set" in spoken and "permute" in spoken and "seed 10: haystack-" in spoken

    def test_a_seed_that_is_missing_is_counted(self, noise, generated):
        absent = of_arm(noise, "haystack: attention")[:2]
        page = Report("T")
        study.add(page, noise, generated(absent=absent, points=5))
        (matrix, _) = [block for block in page.blocks if block.kind == "figure"]
        cells = np.array(matrix.figures[0].data[0].customdata)
        assert sum("8 of 10 seeds" in cell for cell in cells.ravel()) == 1


class TestClaims:
    def test_word_effect_interval_and_seeds(self, rules, generated):
        page, store = Report("T"), generated()
        claims.add(page, rules, store)
        stated, rows, *_ = tables(page)
        verdicts = rules.judge_claims(store)
        assert list(stated["claim"]) == [verdict.claim.name for verdict in verdicts]
        first = verdicts[0].contrasts[0]
        assert rows.loc[0, "effect"] == f"{100 * first.mean:+.1f}" and rows.loc[0, "seeds"] == "10"
        assert rows.loc[0, "p after Holm"] == f"{first.adjusted_p:.3g}"
        assert list(stated["verdict"]) == [verdict.word for verdict in verdicts]
        assert list(stated["what is missing"]) == [claims.missing(rules, store, verdict) for verdict in verdicts]

    def test_comparisons_with_controls_that_were_not_run_are_counted_and_not_listed(self, noise, generated):
        page = Report("T")
        claims.add(page, noise, generated(absent=of_arm(noise, "haystack: permuted")))
        *_, controls = tables(page)
        assert "haystack: permuted" not in list(controls["control"]) and len(controls)
        assert "comparisons of a claim's arm with a control fewer than two seeds are complete" in text(page)

    def test_controls_are_those_of_the_task_and_say_whether_the_difference_lies_beyond_zero(self, noise, generated):
        store = generated()
        scores = noise.scores(store)
        found = claims.survived(noise, store, noise.claims[0], scores)
        assert {row["arm"] for row in found} == {"haystack: attention"}
        assert [row["control"] for row in found] == [arm for arm in noise.arms if arm != "haystack: attention"]
        for row in found:
            low = float(row["interval"].split(" to ")[0])
            assert (row["survived"] == "yes") == (low > 0)

    def test_the_price_of_what_is_missing(self, noise, generated):
        absent = of_arm(noise, "haystack: permuted")[3:]
        store = generated(absent=absent)
        store.missing = lambda runs: [run for run in runs if run.identity in set(absent)]
        (verdict, *_) = noise.judge_claims(store)
        assert claims.missing(noise, store, verdict).startswith("7 of 10 seeds: 7 trainings, ")


def test_the_paper_stands_beside_a_study_of_its_scale_alone(rules, generated):
    page = Report("T")
    paper.add(page, "rules-by-task", rules, generated())
    assert page.blocks == []
    paper.add(page, "rules-by-task", rules_by_task.study("paper", [10, 11]), generated())
    (table,) = tables(page)
    assert {"set", "random"} & set(table["start"].str.split().str[0]) and set(table["word"]) == {"not run"}


def test_a_whole_page_has_methods_from_the_configs_and_the_commands(generated, tmp_path):
    page = report(["perturbation"], generated(points=5), kept=tmp_path, command="mechproc report perturbation")
    run = perturbation.study().run_of("haystack: attention", 10)
    spoken = text(page)
    assert f"A training has at most {run.training.last_step:,} updates of {run.training.batch_size} items" in spoken
    assert "mechproc study run perturbation\nmechproc report perturbation" in spoken
    changed = dataclasses.replace(run.training, batch_size=7)
    from analyses.report.sections.methods import of_runs

    assert "updates of 7 items" in of_runs([run.replace(training=changed)], 1)


def test_the_maps_of_a_transfer_come_before_its_scores_for_the_seeds_that_have_them(generated, tmp_path):
    planned = transfer_map.study("laptop")
    first = [run.identity for arm, run in planned.runs if run.seed == 10 and arm.count(",") < 2]
    absent = {run.identity for _, run in planned.runs} - set(first)
    page = report(["transfer-map"], generated(absent=absent, points=3), kept=tmp_path)
    headings = [block.text for block in page.blocks if block.kind == "heading"]
    assert headings[:3] == ["Maps beside each other", "Gain of parts of set", "Gain of parts of k-dyck"]
    assert headings.index("What each start gains") == 3 and text(page).count("trainings are complete") == 1
    (beside, *_) = [block for block in page.blocks if block.kind == "figure"]
    assert set(beside.figures[0].layout.xaxis.ticktext) == {"10"}
