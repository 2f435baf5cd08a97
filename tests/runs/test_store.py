"""Folders of runs: complete or not, never overwritten, the same bits however they came about."""

import errno
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from mechproc.errors import StoreError
from mechproc.model.config import ModelConfig
from mechproc.procedures import KDyck, Uniform
from mechproc.provenance import provenance
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.executors import RunsFailedError, run_all
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor, transfer
from mechproc.threads import one_thread
from mechproc.training import data
from mechproc.training.config import TrainingConfig
from mechproc.training.engines import choose


def equal_bits(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_leaves_a_whole_folder(tiny, store):
    run = donor(0, tiny)
    assert not store.has_weights(run)
    run_all([run], store, workers=1)
    folder = store.folder(run).path
    assert json.loads((folder / "config.json").read_text())["identity"] == run.identity
    assert store.checkpoint_steps(run)[0] == 0
    assert store.metrics(run)["step"].iloc[-1] == tiny.donor_steps
    assert not (folder / "resume.safetensors").exists()
    n_correct, n_scored = store.test_items(run)
    assert n_correct.sum() / n_scored.sum() == pytest.approx(store.test(run)["accuracy"])
    assert set(provenance()) <= set(store.provenance(run))


def test_ceiling_and_scores_are_those_of_the_same_items(store, monkeypatch):
    """Whichever seed test items have: they are drawn once, and the ceiling of this rule differs between items."""
    rule = KDyck(lengths=Uniform(6, 10, step=2), k=2)
    model = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=rule.n_ctx, d_vocab=rule.d_vocab)
    training = TrainingConfig(steps=1, batch_size=4, warmup_steps=0, n_validation=8, n_test=20)
    monkeypatch.setattr(data, "EVALUATION_SEED", 5)
    run = RunConfig(rule, model, training, 0)
    execute(run, store)
    items = rule.items(20, seed=5)
    assert store.test(run)["ceiling"] == rule.ceiling(items) != rule.ceiling(rule.items(20))
    assert store.test_items(run)[1].tolist() == items.scored.sum(1).tolist()


def test_a_complete_run_is_not_run_again(tiny, store):
    run = donor(0, tiny)
    run_all([run], store, workers=1)
    before = (store.folder(run).path / "test.json").stat().st_mtime_ns
    ran = []
    run_all([run], store, workers=1, report=ran.append)
    assert ran == [] and (store.folder(run).path / "test.json").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_not_overwritten(tiny, store):
    run = donor(0, tiny)
    store.folder(run).path.mkdir(parents=True)
    plain = {"identity": "of another run", "config": run.to_dict()}
    (store.folder(run).path / "config.json").write_text(json.dumps(plain))
    with pytest.raises(StoreError, match="holds another run"):
        execute(run, store)


def test_two_processes_do_not_write_one_run(tiny, store):
    run = donor(0, tiny)
    store.folder(run).path.mkdir(parents=True)
    with FileLock(store.folder(run).path / "lock"), pytest.raises(StoreError, match="another process"):
        execute(run, store)


def test_donors_must_be_complete(tiny, store):
    with pytest.raises(StoreError, match="does not exist: there is no such folder of runs"):
        execute(transfer("attention", 0, tiny), store)


def test_an_interrupted_run_goes_on_to_the_same_bits(tiny, store, tmp_path, monkeypatch):
    run = donor(0, tiny)
    whole = Store(tmp_path / "whole")
    run_all([run], whole, workers=1)

    def stop(step, steps, loss, eta_s):
        if step == 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    with one_thread(), pytest.raises(KeyboardInterrupt):
        execute(run, store, progress=stop)
    assert not store.has_weights(run)
    run_all([run], store, workers=1)
    assert equal_bits(store.model(run)[1], whole.model(run)[1])
    assert (store.folder(run).path / "metrics.jsonl").read_text() == (
        whole.folder(run).path / "metrics.jsonl"
    ).read_text()


def test_a_run_is_not_finished_in_another_environment(tiny, store, monkeypatch):
    run = donor(0, tiny)
    folder = store.folder(run).path
    folder.mkdir(parents=True)
    (folder / "resume.safetensors").write_bytes(b"whatever")
    (folder / "environment.json").write_text(
        json.dumps(provenance(choose("auto", run.model).label) | {"simd": "AVX-9000"})
    )
    with one_thread(), pytest.raises(StoreError, match="simd: AVX-9000"):
        execute(run, store)


def test_a_full_disk_is_one_clear_line(tiny, store, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StoreError, match="No space left on device"):
        execute(donor(0, tiny), store)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_fails_stops_no_other_and_is_named(tiny, store, workers):
    runs = [transfer("random", 0, tiny), transfer("attention", 0, tiny), transfer("random", 1, tiny)]
    broken = store.folder(runs[1].with_donors()[0])
    broken.path.mkdir(parents=True)
    broken.config.write_text("no JSON")
    events = []
    with pytest.raises(RunsFailedError, match=r"2 of 4 runs failed") as caught:
        run_all(runs, store, workers=workers, report=events.append)
    assert "config.json cannot be read" in str(caught.value)
    assert f"its donor {broken.name} failed" in str(caught.value) and runs[1].name in str(caught.value)
    assert store.has_weights(runs[0]) and store.has_weights(runs[2])
    assert (events[-1].n_done, events[-1].n_failed) == (2, 2)
    assert "config.json cannot be read" in (store.failure(runs[1].with_donors()[0]) or "")
    shutil.rmtree(broken.path)
    run_all(runs, store, workers=workers)
    assert store.has_weights(runs[1]) and store.failure(runs[1].with_donors()[0]) is None


def test_a_run_that_another_process_trains_is_waited_for(tiny, store):
    run = donor(0, tiny)
    store.folder(run).path.mkdir(parents=True)
    lock = FileLock(store.folder(run).lock_file, thread_local=False)  # released by another thread
    lock.acquire()
    with pytest.raises(RunsFailedError, match="is being written by another process"):
        run_all([run], store, workers=1, wait=False)
    timer = threading.Timer(1.5, lambda: lock.release())
    timer.start()
    run_all([run], store, workers=1)
    timer.join()
    assert store.has_weights(run)


def test_a_truncated_or_changed_model_does_not_pass_for_complete(tiny, store):
    run = donor(0, tiny)
    run_all([run], store, workers=1)
    model = store.folder(run).model
    whole = model.read_bytes()
    model.write_bytes(whole[:-4])
    assert not store.has_weights(run) and [r.identity for r in store.missing([run])] == [run.identity]
    with pytest.raises(StoreError, match="is not a complete run"):
        store.model(run)
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"model\.safetensors is damaged: its sha256"):
        store.model(run)


def test_damaged_scores_name_file_and_field(tiny, store):
    run = donor(0, tiny)
    run_all([run], store, workers=1)
    path = store.folder(run).test
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in whole.items() if k != "loss"}))
    with pytest.raises(StoreError, match=r"loss in .*test\.json is None"):
        store.test(run)
    path.write_text(json.dumps(whole | {"accuracy": 1.0}))
    with pytest.raises(StoreError, match=r"checksum in .*test\.json"):
        store.test(run)


def test_a_store_that_does_not_exist_is_named(tiny, tmp_path):
    with pytest.raises(StoreError, match="nowhere does not exist"):
        Store(tmp_path / "nowhere").test(donor(0, tiny))


def test_a_last_row_that_was_cut_off_is_left_out(tiny, store):
    run = donor(0, tiny)
    run_all([run], store, workers=1)
    store.folder(run).test.unlink()  # not complete: its files are listed nowhere
    with store.folder(run).metrics.open("a") as file:
        file.write('{"step": 5, "lo')
    assert store.folder(run).read_metrics()[-1]["step"] == tiny.donor_steps
