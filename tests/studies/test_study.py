"""Arms by seeds: planned, completed, compared."""

import dataclasses

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.statistics.comparisons import Family
from mechproc.studies.set_to_haystack import ARMS, FAMILY, SEARCH_SEEDS, SEEDS, donor, study, transfer
from mechproc.studies.study import Study


def test_the_demo_pairs_everything_but_the_recipe():
    for seed in (0, 7):
        runs = [transfer(arm, seed) for arm in ARMS]
        assert len({run.identity for run in runs}) == len(runs)
        for run in runs:
            assert (run.procedure, run.model, run.training, run.seed) == (
                runs[0].procedure,
                runs[0].model,
                runs[0].training,
                seed,
            )
            assert all(d == donor(seed) for d in run.donors.values())


def test_sizes_were_searched_on_other_seeds():
    assert not set(SEEDS) & set(SEARCH_SEEDS)
    assert len(SEEDS) == FAMILY.n_seeds


def test_more_seeds_run_only_what_is_new(tiny, store):
    study((0,), tiny).complete(store, workers=1)
    ran = []
    study((0, 1), tiny).complete(store, workers=1, report=ran.append)
    assert [event.run.seed for event in ran if event.kind == "done"] == [1] * (1 + len(ARMS))


def test_scores_curves_crossings_and_donors(tiny, store):
    planned = study((0, 1), tiny)
    planned.complete(store, workers=1)
    scores = planned.scores(store)
    assert scores.axes == ("arm", "seed") and scores.values.shape == (len(ARMS), 2)
    assert scores.values[1, 0] == store.test(planned.run_of("full", 0))["accuracy"]
    curves = planned.curves(store)
    metrics = store.metrics(planned.run_of("MLPs", 1))
    assert curves.coordinates["step"] == tuple(metrics["step"])
    assert np.array_equal(curves.select(arm="MLPs", seed=1).values, metrics["token_accuracy"])
    never = planned.crossings(store, threshold=1.0)
    assert np.isnan(never.values).all() and never.is_undefined.all()
    always = planned.crossings(store, threshold=0.0)
    assert (always.values == 0).all()
    donors = planned.donors(store)
    assert list(donors["seed"]) == [0, 1]
    assert (donors["ceiling"] == 1).all() and (donors["baseline"] < 1).all()
    assert {v.word for v in planned.judge(store)} == {"too few seeds (2 of 8)"}
    text = str(study((0, 1, 2), tiny).overview(store))
    assert text.count("2 of 3") == len(ARMS) and "attn (set), permuted" in text
    assert text.count("too few seeds (2 of 8)") == len(FAMILY.pairs) and "planned" not in text


def test_arms_with_other_seeds_are_refused(tiny):
    runs = [("random", transfer("random", 0, tiny)), ("full", transfer("full", 1, tiny))]
    with pytest.raises(ConfigError, match="seeds of arm"):
        Study("lopsided", runs, (Family("haystack", (("full", "random"),)),))


def test_a_comparison_of_an_unknown_arm_is_refused(tiny):
    with pytest.raises(ConfigError, match="arm 'full' of family 'haystack' is not an arm"):
        Study("partial", [("random", transfer("random", 0, tiny))], (FAMILY,))
    with pytest.raises(ConfigError, match="families"):
        Study("partial", [("random", transfer("random", 0, tiny))], FAMILY)  # type: ignore[arg-type]


def test_a_study_shows_its_arms_and_what_is_planned(tiny, store):
    planned = dataclasses.replace(study((0, 1), tiny), name="<b>", question="Why <i>?")
    assert repr(planned) == "<Study <b>: 6 arms, 2 seeds, 6 comparisons>"
    assert repr(planned.overview(store)) == "<Overview of <b>: 6 arms, 2 seeds, 6 comparisons>"
    page = planned._repr_html_()
    assert page.startswith("<p><b>&lt;b&gt;: 6 arms, 2 seeds, 6 comparisons.</b> Why &lt;i&gt;?</p><table>")
    assert page.count("<tr>") == page.count("</tr>") == 1 + len(ARMS) and "<td>full (set)</td><td>2</td>" in page
    assert page.count("<li>") == len(FAMILY.pairs)
    assert "<li>attention against random on haystack: planned, 8 seeds.</li>" in page
    assert "<td>0 of 2</td><td>not run</td>" in planned.overview(store)._repr_html_()


def test_an_overview_says_why_there_is_no_verdict(tiny, store, monkeypatch):
    planned = study((0, 1), tiny)
    monkeypatch.setattr(type(planned), "judge", lambda *_: (_ for _ in ()).throw(ConfigError("mixed provenance")))
    assert planned.overview(store).statements() == ["No verdicts: mixed provenance"]
