"""When something appears: measures by step, change points, and what checkpoints are worth to another training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analyses import figures, over_training
from analyses.checkpoint_gains import gains
from analyses.kept import analyse
from analyses.sources import checkpoints
from mechproc import load_pretrained
from mechproc.errors import ConfigError
from mechproc.pretrained import kept_steps
from mechproc.procedures import get
from mechproc.result import Result
from mechproc.runs.config import RunAtStep, RunConfig

STEPS = (0, 10, 100, 1000, 10000)
RECORDS = Path(__file__).parents[2] / "results" / "records"


def made(*curves) -> Result:
    """One measure for each group of seeds' curves."""
    values = np.array(curves, dtype=float).transpose(0, 2, 1)
    axes = {"measure": [f"accuracy: {n}" for n in range(len(curves))], "step": STEPS, "seed": range(values.shape[2])}
    return Result("over training", values, tuple(axes), axes, "fraction", "higher: more", "why")


class TestChangePoints:
    def test_two_levels_change_where_the_second_begins(self):
        assert over_training.change_point(np.array([0.1, 0.1, 0.9, 0.9])) == (2, pytest.approx(0.1), pytest.approx(0.9))
        assert over_training.change_point(np.array([0.9, 0.1, 0.1]))[0] == 1
        found = over_training.changes(made([[0.1, 0.1, 0.1, 0.8, 0.9], [0.1, 0.2, 0.9, 0.9, 0.9]]))
        assert found.values.tolist() == [[1000, 100]]

    def test_it_is_the_least_sum_of_squares(self):
        rng = np.random.default_rng(0)
        for _ in range(20):
            values = rng.random(7)
            costs = {
                at: sum(((part - part.mean()) ** 2).sum() for part in (values[:at], values[at:])) for at in range(1, 7)
            }
            assert over_training.change_point(values)[0] == min(costs, key=lambda at: costs[at])

    def test_noise_is_no_change_and_missing_checkpoints_are_passed_over(self):
        nan = float("nan")
        found = over_training.changes(
            made([[0.5, 0.52, 0.49, 0.5, 0.51]], [[0.0, nan, 0.0, nan, 1.0]], [[0.0, nan, nan, nan, 1.0]])
        )
        assert found.values[1].tolist() == [10000]
        reasons = [reason for _, reason in found.undefined]
        assert reasons == ["no change of 0.1 or more", "fewer than three checkpoints are known"]


@pytest.fixture(scope="module")
def sort() -> Result:
    (training,) = checkpoints(["sort:0..1"])
    models = {group.step: group.models for group in training}
    return over_training.run(models, get("sort")(), probe=False, n_items=40, records="nowhere")


class TestRun:
    def test_what_is_learned_shows(self, sort):
        accuracy = sort.select(measure="accuracy").values
        last = [column[np.isfinite(column)][-1] for column in accuracy.T]
        assert (accuracy[0] < 0.3).all() and min(last) > 0.8
        assert {"rank: QK", "rank: OV"} <= set(sort.coordinates["measure"])
        assert any(str(name).startswith("head: ") for name in sort.coordinates["measure"])

    def test_it_says_what_it_is_held_against_and_models_that_did_not_learn(self, sort):
        levels = sort.metadata["baselines"]
        assert levels["accuracy"]["best attainable"] == 1 and len(levels["accuracy"]) == 2 and not sort.warnings
        assert levels["head: source"]["uniform attention"] == pytest.approx(0.1, abs=0.1)
        early = {step: [load_pretrained("sort", 0, step)] for step in (0, 10)}
        found = over_training.run(early, get("sort")(), probe=False, n_items=20, records="nowhere")
        assert found.warnings[0].startswith("Intact, 1 of 1 models are not above the best baseline")

    def test_accuracy_by_latent_adds_up_to_the_whole(self):
        rule = get("k-dyck")()
        models = {step: [load_pretrained("k-dyck", 0, step)] for step in kept_steps("k-dyck", 0)}
        found = over_training.run(models, rule, latents=["depth"], probe=False, n_items=60, records="nowhere")
        items = rule.items(60, seed=0, split="test")
        of_depth = {
            str(m): found.select(measure=m).values[-1, 0] for m in found.coordinates["measure"] if "depth" in str(m)
        }
        if of_depth:
            labels = items.latents["depth"][items.scored]
            counts = {name: (labels == int(name.rpartition(" ")[2])).sum() for name in of_depth}
            whole = sum(of_depth[name] * counts[name] for name in of_depth) / sum(counts.values())
            assert whole == pytest.approx(found.select(measure="accuracy").values[-1, 0])

    def test_the_head_is_the_best_of_the_last_step(self, sort):
        from analyses import attention

        rule = get("sort")()
        items = rule.items(40, seed=0, split="test")
        name = next(str(m) for m in sort.coordinates["measure"] if str(m).startswith("head: "))
        mask = name.removeprefix("head: ")
        last = attention.scores([load_pretrained("sort", 0)], items, rule.attention_targets(items))
        followed = sort.select(measure=name, seed=0).values
        assert followed[np.isfinite(followed)][-1] == pytest.approx(last.select(mask=mask).values.max())

    def test_what_it_refuses(self):
        models = {0: [load_pretrained("sort", 0, 0)]}
        with pytest.raises(ConfigError, match="at least two checkpoints"):
            over_training.run(models, get("sort")())
        both = {0: {0: load_pretrained("sort", 0, 0)}, 1: {1: load_pretrained("sort", 1)}}
        with pytest.raises(ConfigError, match="steps of seed 0"):
            over_training.run(both, get("sort")())


def test_gains_are_paired_differences_of_runs_that_began_with_a_checkpoint(tmp_path):
    shard = (RECORDS / "reversed-addition.jsonl").read_bytes()
    (tmp_path / "reversed-addition.jsonl").write_bytes(shard)
    records = [json.loads(line) for line in shard.splitlines()]
    runs = [(RunConfig.from_dict(each["run"]), each["test"]["accuracy"]) for each in records]
    run, accuracy = next((run, a) for run, a in runs if any(isinstance(d, RunAtStep) for d in run.donors.values()))
    (donor,) = run.donors.values()
    (random,) = [
        a for other, a in runs if not other.donors and (other.seed, other.training) == (run.seed, run.training)
    ]
    found, _ = gains(tmp_path, donor.run.procedure, donor.model, [donor.step], [donor.seed])
    assert accuracy - random in [rows[donor.step][0] for rows in found.values()]
    assert gains(tmp_path / "nowhere", donor.run.procedure, donor.model, [1], [0]) == ({}, [])


class TestNamed:
    def test_every_step_that_a_seed_kept(self):
        (training,) = checkpoints(["sort:0..1"])
        steps = [set(kept_steps("sort", seed)) for seed in (0, 1)]
        assert [group.step for group in training] == sorted(steps[0] | steps[1])
        assert all(list(group.models) == [s for s in (0, 1) if group.step in steps[s]] for group in training)
        last = load_pretrained("sort", 0).state_dict()
        of_last = next(group for group in training if group.step == max(steps[0])).models[0].state_dict()
        assert all((of_last[name] == tensor).all() for name, tensor in last.items())
        with pytest.raises(ConfigError, match="checkpoints of sort at step"):
            checkpoints([f"sort:0@{kept_steps('sort', 0)[1]}"])

    def test_the_analysis_is_kept_under_its_own_command(self, tmp_path):
        asked = {"folder": tmp_path, "probe": False, "n_items": 10, "records": "nowhere"}
        (found,) = analyse("over-training", ["sort:0"], **asked)
        request = found.result.metadata["request"]
        assert request["command"] == "mechproc analyse over-training sort:0 --no-probe --n-items 10 --records nowhere"
        assert len(request["models"]) == len(kept_steps("sort", 0))
        (again,) = analyse("over-training", ["sort:0"], **asked)
        assert again.seconds is None


def test_the_figure_has_a_panel_for_each_kind_and_diamonds_where_it_changes(sort):
    panels = figures.over_training(sort)
    kinds = {str(m).partition(":")[0] for m in sort.coordinates["measure"]}
    titles = {str(panel.layout.title.text) for panel in panels}
    assert len(titles) == len(kinds)
    jump = made([[0.1, 0.1, 0.1, 0.8, 0.9]] * 8)
    (panel,) = figures.over_training(jump)
    (diamond,) = [t for t in panel.data if t.marker.symbol == "diamond"]
    assert diamond.x[0] == pytest.approx(1000) and "0 8 of 8" in panel.layout.meta["caption"]


def test_there_is_no_mean_where_a_seed_has_stopped():
    """The mean of the one seed that went on would look like a jump."""
    nan = float("nan")
    (panel,) = figures.over_training(made([[0.1, 0.1, 0.2, 0.3, nan]] * 7 + [[0.1, 0.1, 0.2, 0.3, 1.0]]))
    (mean,) = [t for t in panel.data if t.name == "0"]
    assert list(mean.y) == pytest.approx([0.1, 0.1, 0.2, 0.3]) and max(mean.x) == 1000
