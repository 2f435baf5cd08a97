"""What executors share: order, failures, waiting for other processes, events, and the time that is left."""

import dataclasses
import sys

import pytest

from mechproc.errors import MechprocError, TrainingError
from mechproc.files import write_json
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import Event, RunsFailedError, run_all
from mechproc.runs.executors.queue import Outcome, Queue
from mechproc.runs.executors.remaining import Remaining
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor, transfer

SERIAL = sys.modules["mechproc.runs.executors.serial"]


def failing(name: str, error: BaseException):
    """An ``execute`` that fails for one run, once its folder has been claimed."""
    execute = SERIAL.execute

    def run_or_fail(run, store, *args, **settings):
        if run.name != name:
            return execute(run, store, *args, **settings)
        with store.writing(run):
            raise error

    return run_or_fail


def test_a_failed_run_is_recorded_while_the_others_go_on(tiny, store: Store, monkeypatch):
    runs, events = [transfer("attention", seed, tiny) for seed in (0, 1, 2)], []
    diverged, broken = runs[0], runs[1].donors["set"]
    for name, error in ((diverged.name, TrainingError("loss is nan at step 3")), (broken.name, ZeroDivisionError("x"))):
        monkeypatch.setattr(SERIAL, "execute", failing(name, error))
    with pytest.raises(RunsFailedError) as raised:
        run_all(runs, store, workers=1, report=events.append)
    failures = {
        diverged.name: "loss is nan at step 3",
        broken.name: "ZeroDivisionError: x",
        runs[1].name: f"its donor {broken.name} failed",
    }
    assert str(raised.value).splitlines()[1:] == [f"  {name}: {error}" for name, error in failures.items()]
    assert isinstance(raised.value, MechprocError)
    assert [store.has_weights(run) for run in runs] == [False, False, True]
    assert store.failure(diverged) == "loss is nan at step 3" and store.failure(runs[1]) is None
    assert "ZeroDivisionError" in store.folder(broken).error.read_text()
    assert (events[-1].n_done, events[-1].n_failed, events[-1].n_total) == (3, 3, 6)
    monkeypatch.undo()
    run_all(runs, store, workers=1)
    assert all(store.has_weights(run) and store.failure(run) is None for run in (*runs, broken))


def test_nothing_new_is_begun_after_a_failure_when_that_is_asked_for(tiny, store: Store, monkeypatch):
    runs = [transfer("random", seed, tiny) for seed in (0, 1, 2)]
    monkeypatch.setattr(SERIAL, "execute", failing(runs[1].name, TrainingError("no")))
    with pytest.raises(RunsFailedError, match=f"1 of 3 runs failed(.|\n)*{runs[1].name}"):
        run_all(runs, store, workers=1, on_failure="stop")
    assert [store.has_weights(run) for run in runs] == [True, False, False]


def test_the_folder_of_another_run_gets_no_error(tiny, store: Store):
    run = donor(0, tiny)
    store.folder(run).path.mkdir(parents=True)
    store.folder(run).config.write_text("no JSON")
    with pytest.raises(RunsFailedError, match=r"config\.json cannot be read"):
        run_all([run], store, workers=1)
    assert "config.json" in (store.failure(run) or "")
    other = donor(1, tiny)
    write_json(store.folder(run).config, {"identity": other.identity, "config": other.to_dict()})
    store.folder(run).error.unlink()
    with pytest.raises(RunsFailedError, match="holds another run"):
        run_all([run], store, workers=1)
    assert store.failure(run) is None


def test_damaged_scores_fail_their_run_alone(tiny, store: Store):
    runs = [transfer("random", seed, tiny) for seed in (0, 1)]
    run_all(runs, store, workers=1)
    store.folder(runs[0]).test.write_text("{}")
    store.folder(runs[1]).model.unlink()
    with pytest.raises(RunsFailedError, match=rf"1 of 2 (.|\n)* accuracy in {store.folder(runs[0]).test}"):
        run_all(runs, store, workers=1)
    assert store.has_weights(runs[1])


def test_a_run_that_another_process_trains_is_waited_for_and_others_go_first(tiny, store: Store, monkeypatch):
    first, second = (transfer("random", seed, tiny) for seed in (0, 1))
    monkeypatch.setattr("mechproc.runs.executors.queue.BUSY_S", 0.01)
    store.folder(first).path.mkdir(parents=True)
    lock, events = store.folder(first).lock(), []
    lock.acquire()

    def note(event: Event) -> None:
        events.append((event.kind, event.run.seed))
        if event.kind == "done" and event.run == second:
            lock.release()

    run_all([first, second], store, workers=1, report=note)
    told = [event for event in events if event[0] != "step"]
    assert told == [("started", 0), ("waiting", 0), ("started", 1), ("done", 1), ("done", 0)]


def test_a_run_that_another_process_trains_fails_without_wait(tiny, store: Store):
    run = donor(0, tiny)
    store.folder(run).path.mkdir(parents=True)
    with store.folder(run).lock(), pytest.raises(RunsFailedError, match="is being written by another process"):
        run_all([run], store, workers=1, wait=False)
    assert store.failure(run) is None


def test_a_run_that_was_completed_meanwhile_is_not_trained_again(tiny, store: Store, monkeypatch):
    run, execute = donor(0, tiny), SERIAL.execute

    def meanwhile(run, store, *args, **settings):
        execute(run, store)
        before = store.folder(run).test.stat().st_mtime_ns
        monkeypatch.setattr(Store, "has_weights", lambda self, run: False)  # as it was when this process looked
        execute(run, store)
        assert store.folder(run).test.stat().st_mtime_ns == before

    monkeypatch.setattr(SERIAL, "execute", meanwhile)
    run_all([run], store, workers=1)


def test_a_run_whose_worker_is_killed_is_tried_once_more(tiny, store: Store):
    run, events = donor(0, tiny), []
    queue = Queue([run], store, events.append)
    for kind, ended in (("retried", False), ("failed", True)):
        assert queue.take() == run
        queue.settle(run, Outcome("killed", "its worker process ended by signal 9"))
        assert events[-1].kind == kind and queue.finished == ended
    assert "signal 9, 2 times" in queue.failures[run.name] == store.failure(run)


@pytest.fixture
def of_100(tiny) -> RunConfig:
    run = transfer("random", 0, tiny)
    return run.replace(training=run.training.replace(steps=100))


def test_seconds_left_follow_the_updates_of_all_workers(of_100: RunConfig):
    now = [0.0]
    runs = [of_100.replace(seed=seed) for seed in range(4)]
    remaining = Remaining(runs, clock=lambda: now[0])
    assert remaining.seconds(2) is None
    for run in runs[:2]:
        remaining.step(run, 1)
    now[0] = 10.0
    for run in runs[:2]:
        remaining.step(run, 51)  # 0.2 s an update: 9.8 s each for two runs, 20 s each for the others
    assert remaining.seconds(2) == pytest.approx((9.8 * 2 + 20 * 2) / 2)
    now[0] = 12.0
    for run in runs[:2]:
        remaining.ended(run)  # they stopped early: 12 s each
    assert remaining.seconds(2) == pytest.approx(12.0)
    assert remaining.seconds(1) == pytest.approx(24.0)
    for run in runs[2:]:
        remaining.ended(run)
    assert remaining.seconds(2) == 0.0


def test_runs_of_another_kind_count_as_the_others_until_they_are_timed(of_100: RunConfig):
    now = [0.0]
    wide = of_100.replace(model=dataclasses.replace(of_100.model, d_model=16, d_head=None, d_mlp=None))
    remaining = Remaining([of_100, wide], clock=lambda: now[0])
    remaining.step(of_100, 0)
    now[0] = 1.0
    remaining.step(of_100, 10)
    assert remaining.seconds(1) == pytest.approx(9.0 + 10.0)
    remaining.step(wide, 0)
    now[0] = 2.0
    remaining.step(wide, 1)
    assert remaining.seconds(2) == pytest.approx(99.0)  # no sooner than the longest


def test_the_time_left_reads_no_identity_again(tiny, monkeypatch):
    """That of a run of a user's own rule reads its source: thirty waiting runs took a second for each report."""
    runs = [transfer("random", seed, tiny) for seed in (0, 1)]
    remaining = Remaining(runs, iter(range(100)).__next__)
    remaining.step(runs[0], 0)
    remaining.step(runs[0], 6)
    monkeypatch.setattr(RunConfig, "identity", property(lambda run: pytest.fail("an identity was read")))
    assert remaining.seconds(1) is not None
