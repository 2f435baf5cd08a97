"""Ours beside the paper's: the words, and the page that is held to the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechproc.pages import between
from mechproc.runs.store import Store
from mechproc.studies import paper_page
from mechproc.studies.compare_paper import Compared, compare
from mechproc.studies.paper_table import CELLS, TASKS, Cell
from mechproc.studies.registry import load

ROOT = Path(__file__).parents[2]
SEEDS = tuple(range(10, 20))


def cell(task: str = "haystack", initialisation: str = "set, attention") -> Cell:
    return next(c for c in CELLS if (c.task, c.initialisation) == (task, initialisation))


def word(accuracies, gains, of: Cell, seeds=SEEDS) -> str:
    return Compared(of, of.arms[0], tuple(seeds), tuple(accuracies), tuple(gains)).word


def spread(mean: float, half: float) -> list[float]:
    return [mean + half * x for x in (-1, -0.8, -0.6, -0.4, -0.2, 0.2, 0.4, 0.6, 0.8, 1)]


@pytest.mark.parametrize(
    ("mean", "half", "gain", "expected"),
    [
        (0.85, 0.05, 0.74, "reproduced"),  # reported: 0.889, random 0.113
        (0.80, 0.45, 0.69, "compatible"),  # the interval is 0.3 to each side
        (0.40, 0.05, 0.29, "direction only"),
        (0.12, 0.05, 0.01, "contradicted"),
        (0.05, 0.02, -0.06, "contradicted"),
    ],
)
def test_each_word(mean, half, gain, expected):
    assert word(spread(mean, half), spread(gain, half), cell()) == expected


def test_near_in_the_mean_and_too_wide_is_compatible_and_not_reproduced():
    assert word(spread(0.85, 0.05), spread(0.7, 0.05), cell()) == "reproduced"
    assert word(spread(0.85, 0.5), spread(0.7, 0.5), cell()) == "compatible"


def test_fewer_than_eight_seeds_are_not_run():
    values = [0.889] * 7
    assert word(values, values, cell(), SEEDS[:7]) == "not run"
    assert word([*values, 0.9], [*values, 0.9], cell(), SEEDS[:8]) == "reproduced"
    assert word([], [], cell(), ()) == "not run"


def test_of_sorting_the_direction_alone_counts():
    sorting = cell("sorting")  # reported: above random
    exactly = [sorting.accuracy + 0.001 * i for i in range(10)]
    assert word(exactly, spread(0.1, 0.05), sorting) == "direction only"
    assert word(exactly, spread(-0.1, 0.05), sorting) == "contradicted"
    assert word(exactly, spread(0.0, 0.05), sorting) == "undecided"
    assert word(exactly, [0.0] * 10, cell("sorting", "random")) == "fitted"


def test_a_small_reported_difference_has_no_direction():
    eca = cell("haystack", "eca 110, full")  # 10.5 beside 11.3
    assert word(spread(0.3, 0.02), spread(-0.19, 0.02), eca) == "contradicted"


class Fake:
    """A store that has an accuracy for some runs."""

    def __init__(self, accuracies: dict[str, float]) -> None:
        self.accuracies = accuracies

    def has_scores(self, run) -> bool:
        return run.identity in self.accuracies

    def test(self, run) -> dict[str, float]:
        return {"accuracy": self.accuracies[run.identity]}


def test_ours_are_read_by_seed_and_the_best_of_several_arms_is_taken():
    study = load("rules-by-task", "paper")
    known = {"random": 0.1, "k-dyck, full": 0.5, "k-dyck, attention": 0.7, "k-dyck, MLPs": 0.2}
    runs = {
        study.run_of(f"haystack: {arm}", seed).identity: value + seed / 1000
        for arm, value in known.items()
        for seed in SEEDS
        if (arm, seed) != ("random", 19)
    }
    (found,) = compare(Fake(runs), [cell("haystack", "k-dyck, best")])  # type: ignore[arg-type]
    assert found.arm == "k-dyck, attention" and found.seeds == SEEDS
    assert found.accuracies == pytest.approx([0.7 + seed / 1000 for seed in SEEDS])
    assert found.gains == pytest.approx([0.6] * 9)
    text = paper_page.markdown([found])
    assert "10 to 19: 71.0, 71.1" in text and "+60.0 [+60.0, +60.0]" in text and "1. The best of full" in text
    rows = paper_page.table([found])
    assert len(rows) == 10 and set(rows["word"]) == {found.word}


def test_a_best_of_several_arms_has_no_word_before_each_has_seeds_enough():
    study = load("rules-by-task", "paper")

    def word_with(*arms: str) -> str:
        runs = {study.run_of(f"haystack: {arm}", seed).identity: 0.1 + seed / 1e4 for arm in arms for seed in SEEDS}
        (found,) = compare(Fake(runs), [cell("haystack", "k-dyck, best")])  # type: ignore[arg-type]
        assert found.seeds == SEEDS
        return found.word

    assert word_with("random", "k-dyck, full") == word_with("random", "k-dyck, full", "k-dyck, MLPs") == "not run"
    assert word_with("random", "k-dyck, full", "k-dyck, attention", "k-dyck, MLPs") == "contradicted"


def test_every_cell_has_an_arm_in_its_study_and_a_random_start():
    studies = {name: load(name, "paper") for name in {each.study for each in CELLS}}
    for each in CELLS:
        study = studies[each.study]
        assert {f"{each.task}: {arm}" for arm in (*each.arms, "random")} <= set(study.arms)
        assert each.task in TASKS and 0 < each.accuracy < 1
    assert len({(each.initialisation, each.task) for each in CELLS}) == len(CELLS)


def test_the_page_says_what_the_records_say():
    """Run `mechproc study compare-paper --store none --write docs/paper-table.md` when records were added."""
    store = Store(ROOT / "no-runs", ROOT / "results" / "records")
    assert between(ROOT / "docs" / "paper-table.md", paper_page.NAME) == paper_page.markdown(compare(store))


def test_the_command(capsys, tmp_path):
    from mechproc.cli import main

    page, csv = tmp_path / "page.md", tmp_path / "table.csv"
    page.write_text("<!-- compare-paper:begin -->\n\n<!-- compare-paper:end -->\n")
    empty = ["--store", str(tmp_path), "--records", str(tmp_path / "none")]
    assert main(["study", "compare-paper", *empty, "--write", str(page), "--csv", str(csv)]) == 0
    assert f"{len(CELLS)} reported accuracies: {len(CELLS)} not run" in capsys.readouterr().out
    assert "| set, attention | haystack | 88.9 |" in page.read_text() and len(csv.read_text().splitlines()) == 24
    assert main(["study", "compare-paper", *empty, "--write", str(tmp_path / "none.md")]) == 1
