"""The reading of the transfer map from scores that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyses.transfer_map import EVERYTHING, MAPS, run
from mechproc.errors import ConfigError
from mechproc.statistics.intervals import over_seeds
from mechproc.studies import transfer_map
from mechproc.studies.study import Study
from mechproc.studies.transfer_map import PLAYERS, arm

WORTH = {"L0.attn": 0.1, "L0.mlp": 0.0, "L1.attn": 0.5, "L1.mlp": -0.1, "ln": 0.0, "embed + pos": -0.2}


class Fake:
    """A store in which a part lowers the loss by its worth, and L0.attn with L1.attn by 0.3 more."""

    root = "fake"

    def __init__(self, study, missing=()) -> None:
        self.arms = {run.identity: (name, run) for name, run in study.runs if name not in missing}

    def has_scores(self, run) -> bool:
        return run.identity in self.arms

    def provenance(self, run) -> dict[str, str]:
        return {}

    def metrics(self, run) -> pd.DataFrame:
        name, run = self.arms[run.identity]
        players = name.removeprefix("haystack: ").removesuffix(", permuted").split(", ")[1:]
        gain = sum(WORTH.get(player, 0.0) for player in players) + 0.01 * run.seed * len(players)
        gain += 0.3 * ({"L0.attn", "L1.attn"} <= set(players))
        gain *= 0 if name.endswith("permuted") or "eca" in name else 1
        return pd.DataFrame({"step": [0, 10], "loss": [2 - gain, 2 - gain], "token_accuracy": [0.5, 0.5]})


@pytest.fixture(scope="module")
def study():
    return transfer_map.study("laptop", range(10))


def test_maps_are_what_they_say(study):
    found = run(study, Fake(study))  # type: ignore[arg-type]
    assert found.axes == ("map", "part", "seed") and found.coordinates["map"] == MAPS
    values = {name: found.select(map=name, seed=3).values for name in MAPS}
    worth = np.array(list(WORTH.values())) + 0.03
    assert values["alone"] == pytest.approx(worth)
    pair = np.array([0.3, 0, 0.3, 0, 0, 0])
    assert values["removed"] == pytest.approx(worth + pair)
    assert values["shapley"] == pytest.approx(worth + pair / 2)
    assert found.metadata["gain"]["3"] == pytest.approx(values["shapley"].sum())
    assert np.nan_to_num(values["alone, permuted"]) == pytest.approx(0)
    assert values["alone, wrong"] == pytest.approx(0) and not found.warnings
    assert found.is_undefined.sum() == 10  # the embeddings have no permuted control
    ends = over_seeds(found.select(map="shapley"))
    assert ends.select(part="L1.attn", estimate="low").values > 0.6


def test_what_is_not_run_is_missing(study):
    found = run(study, Fake(study, missing=[arm("set", ["L1.mlp", "ln"])]))  # type: ignore[arg-type]
    assert found.select(map="shapley").is_missing.all() and not found.select(map="alone").is_missing.any()
    assert found.metadata["n_runs"] == 75 and found.metadata["complete"]["3"] == 74
    assert found.warnings[0].startswith("0 of 10 seeds are complete; seed 0 has 74 of 75 runs;")


def test_at_the_papers_scale_there_are_no_shapley_values():
    study = transfer_map.study("paper", [10])
    found = run(study, Fake(study))  # type: ignore[arg-type]
    assert found.select(map="shapley").is_undefined.all() and np.isfinite(found.select(map="removed").values).all()


def test_a_rule_that_the_study_has_no_donors_of(study):
    with pytest.raises(ConfigError, match="rule = 'stack'"):
        run(study, Fake(study), rule="stack")  # type: ignore[arg-type]
    assert set(WORTH) == set(PLAYERS)
    with pytest.raises(ConfigError, match=r"of which the study moves all parts: k-dyck, set$"):
        run(study, Fake(study), rule="eca")  # type: ignore[arg-type]
    other = Study("other", [("random", study.run_of(arm("", ()), 0))])
    with pytest.raises(ConfigError, match="study = 'other' is not allowed: a transfer map"):
        run(other, Fake(other))  # type: ignore[arg-type]


def test_donors_that_do_not_know_their_rule_are_said_first(study, monkeypatch):
    monkeypatch.setattr(type(study), "notes", lambda self, store, name: (f"no donor of {name}",))
    found = run(study, Fake(study))  # type: ignore[arg-type]
    assert found.warnings == [f"no donor of {arm('set', EVERYTHING)}"]
