"""What the search has found, from records alone; and the page that is held to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.pages import between
from mechproc.result import Result
from mechproc.runs.config import RunAtStep
from mechproc.runs.store import Store
from mechproc.statistics.prediction import Prediction
from mechproc.studies import transferable_page as page
from mechproc.studies import transferable_reading as reading
from mechproc.studies.pretraining import FROZEN, pretraining
from mechproc.studies.transferable import DONOR_STEPS, cells

ROOT = Path(__file__).parents[2]
KEPT = Store(ROOT / "no-runs", ROOT / "results" / "records")


@pytest.fixture(scope="module")
def found():
    return reading.probes(KEPT, [1000])


def test_one_row_for_each_donor_and_step(found):
    assert len(found) == len(cells()) * len(DONOR_STEPS) and found["donor"].is_unique
    first = found.iloc[0]
    assert first["cell"] == cells()[0].name and first["donor"] == RunAtStep(cells()[0].donor(1000), 500).identity
    assert (first["full"], first["attention"], first["earliest"], first["crossed"]) == (4_000, 1_200, 1_200, True)
    assert first["accuracy"] == pytest.approx(0.16, abs=0.01) and first["above baseline"] < 0


def test_the_outcome_waits_for_both_probes(found):
    half = found[found["full"].notna() & found["attention"].isna() & found["has_full"]]
    assert half["earliest"].isna().all()
    assert found[found["earliest"].notna()]["earliest"].max() <= 4_000


def test_predictors_are_scored_on_whole_donors_of_three_rules(found):
    table, about = reading.predictors(found)
    scored = reading.scored(table, about)
    assert isinstance(scored["accuracy"], Prediction) and scored["accuracy"].n_units >= 4
    two = reading.scored(table[table["rule"].isin(["set", "identity"])], ["accuracy"])
    assert two["accuracy"].endswith("rules: 2, of at least 3 that are needed")  # type: ignore[union-attr]


def test_statistics_of_donors_become_predictors(found):
    known = found["donor"][found["earliest"].notna()].tolist()
    values = np.linspace(0, 1, len(known))[:, None]
    labels = {"donor": known, "statistic": ["induction"]}
    statistics = Result("x", values, ("donor", "statistic"), labels, "fraction", "higher", "nothing")
    table, about = reading.predictors(found, statistics)
    assert about["induction"] == "induction" and table["induction"].notna().sum() == len(known)
    assert "| induction | " in page.markdown(KEPT, statistics, [1000])


def test_what_is_frozen_is_what_the_search_found_best(found):
    """All of it but the settings of set, which pilot runs had chosen."""
    chosen = {row["rule"]: row for row in reading.best(found).to_dict("records")}
    assert chosen.keys() == {*FROZEN, "set"}
    for rule, known in FROZEN.items():
        cell, run = next(c for c in cells() if c.name == chosen[rule]["cell"]), pretraining(rule, 1000)
        donor = cell.donor(1000)
        assert (run.procedure, run.model) == (donor.procedure, donor.model), rule
        assert run.training.steps == chosen[rule]["donor_steps"]
        same = ("batch_size", "learning_rate", "schedule", "warmup_steps", "weight_decay")
        assert [getattr(run.training, f) for f in same] == [getattr(donor.training, f) for f in same], rule
        assert known.tied == cell.tied


def test_best_of_a_rule_is_the_donor_that_crosses_most_often(found):
    rows = found[found["rule"] == "stack"].copy()
    rows["earliest"], rows["crossed"] = 4_000.0, False
    assert len(reading.best(rows)) == 0
    one, other, late = rows["cell"].unique()[:3]
    at = {name: rows["cell"] == name for name in (one, other, late)}
    for name, steps in ((one, {500: 100.0}), (other, {500: 900.0, 2_000: 800.0}), (late, {500: 950.0, 5_000: 950.0})):
        for donor_steps, earliest in steps.items():
            here = at[name] & (rows["donor_steps"] == donor_steps)
            rows.loc[here, "earliest"], rows.loc[here, "crossed"] = earliest, True
    (best,) = reading.best(rows).to_dict("records")
    assert (best["cell"], best["donor_steps"], best["crossed"], best["steps"]) == (other, 2_000, 0.5, 800.0)
    rows.loc[at[other] & (rows["donor_steps"] == 20_000), "earliest"] = np.nan  # not known: left out
    assert reading.best(rows).to_dict("records")[0]["cell"] == late


def test_nothing_run_says_so(tmp_path):
    text = page.markdown(Store(tmp_path), seeds=[1000])
    assert "Run so far: 0 of 288 probes" in text and "none is run" in text and "not known: donors: 0" in text
    with pytest.raises(ConfigError, match="none of the search"):
        reading.crossings(reading.probes(Store(tmp_path), [1000]))


def test_the_page_says_what_the_records_say():
    """Run `mechproc study what-transfers --store none --write docs/transferable.md` when records were added."""
    kept = ROOT / "results" / "transferable_donors.json"
    statistics = Result.load(kept) if kept.exists() else None
    assert between(ROOT / "docs" / "transferable.md", page.NAME) == page.markdown(KEPT, statistics)


def test_the_figure(found):
    from analyses import figures

    crossings = reading.crossings(found)
    figure = figures.transferable(crossings)
    assert len(figure.data) == len(crossings.coordinates["donor"])  # type: ignore[arg-type]
    assert "did not cross" in str(figure.layout.annotations) and "Lower: " in figure.layout.meta["caption"]  # type: ignore[attr-defined]
