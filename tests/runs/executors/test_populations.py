"""Runs that are trained as populations have the files of single runs, fail alone, and go on after an interruption."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from mechproc.errors import ConfigError, TrainingError
from mechproc.runs.executors import RunsFailedError, run_all
from mechproc.runs.executors.populations import LABEL, Populations
from mechproc.runs.store import Store
from mechproc.runs.verify import verify
from mechproc.training.engines.population import Population
from mechproc.training.stacked_optimizer import StackedAdamW

from ..conftest import DONOR_TRAINING, TRAINING, planned


@pytest.fixture
def sizes_of_populations(monkeypatch) -> list[int]:
    """How many members each update had."""
    seen: list[int] = []
    step = Population.step

    def counted(self, members, *rest):
        seen.append(len(members))
        return step(self, members, *rest)

    monkeypatch.setattr(Population, "step", counted)
    return seen


def test_records_and_files_are_those_of_single_runs(tmp_path: Path, sizes_of_populations: list[int]):
    runs = planned()
    together, single = (Store(tmp_path / name, records=tmp_path / f"{name} records") for name in ("together", "single"))
    events = []
    run_all(runs, together, report=events.append, executor=Populations(4, "cpu"))
    run_all(runs, single, workers=1)
    # two donors, then six receivers, at most four at a time
    assert sizes_of_populations == [2] * DONOR_TRAINING.steps + [4] * TRAINING.steps + [2] * TRAINING.steps
    done = [event.run.name for event in events if event.kind == "done"]
    donors = [run.with_donors()[0] for run in runs[2:4]]
    assert done[:2] == [donor.name for donor in donors]
    for run in donors + runs:
        mine, theirs = together.folder(run), single.folder(run)
        assert [f.relative_to(mine.path) for f in sorted(mine.path.rglob("*"))] == [
            f.relative_to(theirs.path) for f in sorted(theirs.path.rglob("*"))
        ]
        assert mine.config.read_bytes() == theirs.config.read_bytes()
        for row, expected in zip(mine.read_metrics(), theirs.read_metrics(), strict=True):
            assert row.keys() == expected.keys()
            for key, value in expected.items():
                assert row[key] == (value if value is None else pytest.approx(value, rel=1e-3))
        tested, expected = mine.read_test(), theirs.read_test()
        for field in ("n_items", "ceiling", "baselines", "steps", "stopped"):
            assert tested[field] == expected[field]
        assert tested["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        for name, weights in theirs.load_model()[1].items():
            np.testing.assert_allclose(mine.load_model()[1][name], weights, atol=2e-3)
        assert together.provenance(run)["engine"] == LABEL != single.provenance(run)["engine"]
        assert run in together.records
    assert verify([together.folder(run) for run in runs], tmp_path / "together records") == []


def test_who_is_in_the_population_does_not_decide_what_a_run_is(tmp_path: Path):
    """One run by itself, and with others: the same identity and provenance, and numbers that agree."""
    run, *others = planned()[:3]
    few, many = Store(tmp_path / "few"), Store(tmp_path / "many")
    run_all([run], few, executor=Populations(1, "cpu"))
    run_all([*others, run], many, executor=Populations(8, "cpu"))
    assert few.folder(run).name == many.folder(run).name
    apart = {"date", "commit"}
    assert {k: v for k, v in few.provenance(run).items() if k not in apart} == {
        k: v for k, v in many.provenance(run).items() if k not in apart
    }
    assert few.test(run)["loss"] == pytest.approx(many.test(run)["loss"], rel=1e-4)


def test_a_run_that_fails_is_recorded_while_the_others_go_on(store: Store, monkeypatch):
    runs = planned(3)[:3]
    update = Population._update

    def poisoned(self, asked):
        found = update(self, asked)
        bad = [row for row, _, step in asked if self.members[row].seed == 1 and step == 5]
        return found | {row: TrainingError("the loss is nan at step 5") for row in bad}

    monkeypatch.setattr(Population, "_update", poisoned)
    with pytest.raises(RunsFailedError, match=rf"1 of 3 runs failed(.|\n)*{runs[1].name}: the loss is nan at step 5"):
        run_all(runs, store, executor=Populations(3, "cpu"))
    assert [store.has_weights(run) for run in runs] == [True, False, True]
    assert store.failure(runs[1]) == "the loss is nan at step 5"
    monkeypatch.undo()
    run_all(runs, store, executor=Populations(3, "cpu"))
    assert store.has_weights(runs[1]) and store.failure(runs[1]) is None


def test_a_run_that_another_process_trains_is_waited_for(store: Store, monkeypatch):
    monkeypatch.setattr(sys.modules["mechproc.runs.executors.queue"], "BUSY_S", 0.01)
    monkeypatch.setattr(sys.modules["mechproc.runs.executors.populations"], "BUSY_S", 0.01)
    runs = planned()[:2]
    kinds: list[str] = []
    store.folder(runs[0]).path.mkdir(parents=True)
    lock = FileLock(store.folder(runs[0]).lock_file)
    lock.acquire()

    def report(event):
        kinds.append(event.kind)
        if event.kind == "waiting":
            lock.release()

    run_all(runs, store, executor=Populations(2, "cpu"), report=report)
    assert "waiting" in kinds and all(store.has_weights(run) for run in runs)


@pytest.mark.parametrize(("sent", "size_after"), [(signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_an_interruption_leaves_resume_points_that_are_gone_on_from(
    tmp_path: Path, sent: signal.Signals, size_after: int
):
    """To the same bits in a population of the same members, to numbers that agree in another."""
    runs = planned()[:2]
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "interrupted")
    run_all(runs, whole, executor=Populations(2, "cpu"))

    def interrupt(event):
        if event.kind == "step" and event.step == 1:
            signal.raise_signal(sent)

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_all(runs, store, executor=Populations(2, "cpu"), report=interrupt)
    assert all(store.folder(run).resume.exists() and not store.has_weights(run) for run in runs)
    steps = []
    run_all(runs, store, executor=Populations(size_after, "cpu"), report=lambda event: steps.append(event.step))
    assert 1 not in steps  # that update was not made again
    for run in runs:
        if size_after == 2:
            assert store.folder(run).metrics.read_bytes() == whole.folder(run).metrics.read_bytes()
            assert store.folder(run).model.read_bytes() == whole.folder(run).model.read_bytes()
        assert store.test(run)["loss"] == pytest.approx(whole.test(run)["loss"], rel=1e-4)


def full_from(monkeypatch, n_members: int, method: str, late: bool = False) -> None:
    """Let a device have no room for so many members, in a method of ``Population`` or ``StackedAdamW``."""
    owner = StackedAdamW if method in ("update", "append") else Population
    whole = getattr(owner, method)

    def out_of_memory(self, members, *rest):
        n = len(self.flat) + 1 if method == "append" else len(members)
        if late and n >= n_members:
            whole(self, members, *rest)
        if n >= n_members:
            raise torch.OutOfMemoryError("tried to allocate")
        return whole(self, members, *rest)

    monkeypatch.setattr(owner, method, out_of_memory)


@pytest.mark.parametrize(
    ("method", "late"), [("step", False), ("evaluate", False), ("append", False), ("update", False), ("update", True)]
)
def test_what_does_not_fit_the_memory_goes_on_in_smaller_populations(store: Store, monkeypatch, method, late):
    runs, events = planned()[:2], []
    full_from(monkeypatch, 2, method, late)
    run_all(runs, store, executor=Populations(2, "cpu"), report=events.append)
    (said,) = [event for event in events if event.kind == "retried"]
    assert said.message == (
        "2 trainings at one time do not fit into the memory of cpu: all go on from their resume points, 1 at a time"
    )
    alone = Store(store.root.parent / "alone")
    monkeypatch.undo()
    run_all(runs, alone, executor=Populations(1, "cpu"))
    for run in runs:
        assert store.folder(run).model.read_bytes() == alone.folder(run).model.read_bytes()
        assert store.folder(run).metrics.read_bytes() == alone.folder(run).metrics.read_bytes()


def test_no_update_is_lost_when_the_memory_is_full_and_none_is_made_twice(store: Store, monkeypatch):
    runs, steps = planned(3)[:3], []
    step = Population.step

    def later(self, members, batches, at):
        if len(members) > 1 and 3 in at:
            raise torch.OutOfMemoryError("tried to allocate")
        steps.extend(zip((member.seed for member in members), at, strict=True))
        return step(self, members, batches, at)

    monkeypatch.setattr(Population, "step", later)
    run_all(runs, store, executor=Populations(3, "cpu"))
    assert sorted(steps) == sorted((run.seed, at) for run in runs for at in range(TRAINING.steps))


def test_one_that_does_not_fit_by_itself_is_recorded_as_failed(store: Store, monkeypatch):
    runs = planned()[:2]
    full_from(monkeypatch, 1, "step")
    with pytest.raises(RunsFailedError, match="2 of 2 runs failed"):
        run_all(runs, store, executor=Populations(2, "cpu"))
    assert store.failure(runs[0]) == "one training by itself does not fit into the memory of cpu"


def test_what_cannot_work_is_said_before_it_begins():
    with pytest.raises(ConfigError, match="size = 0 is not allowed: 1 to 10,000"):
        Populations(0, "cpu")
    with pytest.raises(ConfigError, match="device = 'nowhere' is not allowed"):
        Populations(2, "nowhere")
