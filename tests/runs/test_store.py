"""Folders of runs: complete or not, never overwritten, the same bits however they came about."""

import errno
import json
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from mechproc.errors import StoreError
from mechproc.provenance import differences, provenance
from mechproc.runs.execute import execute
from mechproc.runs.executors.processes import one_thread, run_all
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor, transfer
from mechproc.training.engines import choose


def equal_bits(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_leaves_a_whole_folder(tiny, store):
    run = donor(0, tiny)
    assert not store.is_complete(run)
    run_all([run], store, workers=1)
    folder = store.folder(run)
    assert json.loads((folder / "config.json").read_text())["identity"] == run.identity
    assert store.checkpoint_steps(run)[0] == 0
    assert store.metrics(run)["step"].iloc[-1] == tiny.donor_steps
    assert not (folder / "resume.safetensors").exists()
    test = store.test(run)
    assert sum(test["n_correct"]) / sum(test["n_scored"]) == pytest.approx(test["accuracy"])
    assert set(provenance()) <= set(store.provenance(run))


def test_a_complete_run_is_not_run_again(tiny, store):
    run = donor(0, tiny)
    run_all([run], store, workers=1)
    before = (store.folder(run) / "test.json").stat().st_mtime_ns
    ran = []
    run_all([run], store, workers=1, done=lambda *args: ran.append(args))
    assert ran == [] and (store.folder(run) / "test.json").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_not_overwritten(tiny, store):
    run = donor(0, tiny)
    store.folder(run).mkdir(parents=True)
    (store.folder(run) / "config.json").write_text('{"identity": "of another run"}')
    with pytest.raises(StoreError, match="holds another run"):
        execute(run, store)


def test_two_processes_do_not_write_one_run(tiny, store):
    run = donor(0, tiny)
    store.folder(run).mkdir(parents=True)
    with FileLock(store.folder(run) / "lock"), pytest.raises(StoreError, match="another process"):
        execute(run, store)


def test_donors_must_be_complete(tiny, store):
    with pytest.raises(StoreError, match="not a complete run"):
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
    assert not store.is_complete(run)
    run_all([run], store, workers=1)
    assert equal_bits(store.model(run)[1], whole.model(run)[1])
    assert (store.folder(run) / "metrics.jsonl").read_text() == (whole.folder(run) / "metrics.jsonl").read_text()


def test_a_run_is_not_finished_in_another_environment(tiny, store, monkeypatch):
    run = donor(0, tiny)
    folder = store.folder(run)
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


def test_processes_give_the_bits_of_this_one(tiny, store, tmp_path):
    runs = [transfer(arm, 0, tiny) for arm in ("attention", "permuted attention")]
    other = Store(tmp_path / "other")
    run_all(runs, store, workers=1)
    seen = []
    run_all(runs, other, workers=2, done=lambda run, done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for run in runs:
        assert equal_bits(store.model(run)[1], other.model(run)[1])
        assert differences(store.provenance(run), other.provenance(run)) == []


def test_a_failing_run_stops_the_rest_and_says_why(tiny, store):
    runs = [transfer("random", seed, tiny) for seed in (0, 1)]
    store.folder(runs[0]).mkdir(parents=True)
    (store.folder(runs[0]) / "config.json").write_text("no JSON")
    with pytest.raises(StoreError, match=r"config\.json cannot be read"):
        run_all(runs, store, workers=2)
