"""What follows from the rest is restored with the bits that it had; what does not is named and left alone."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
from filelock import FileLock

from mechproc.cli import main
from mechproc.runs.catalogue import folders
from mechproc.runs.execute import execute
from mechproc.runs.executors import run_all
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import Records
from mechproc.runs.repair import garbage, remove, repair
from mechproc.runs.store import Store
from mechproc.runs.verify import verify
from mechproc.studies.set_to_haystack import donor
from mechproc.threads import one_thread


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """A complete run with its record, and an interrupted one."""
    root = tmp_path_factory.mktemp("repair")
    store = Store(root / "runs", records=root / "records")
    run = donor(0, tiny)
    run = run.replace(training=run.training.replace(checkpoints_at=(run.training.last_step,)))
    run_all([run], store, workers=1)

    def stop(step: int, *_: float) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with one_thread(), pytest.raises(SystemExit):
        execute(donor(1, tiny), store, progress=stop)
    return root


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "place"))


def folders_of(place: Path) -> list[RunFolder]:
    found = folders(place / "runs")
    return sorted(found, key=lambda folder: not folder.test.exists())


def spoil(file: Path) -> bytes:
    content = file.read_bytes()
    file.write_bytes(
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    )
    return content


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "model.safetensors", "checkpoints/step_000004.safetensors"]
)
def test_a_file_that_follows_from_the_rest_gets_its_bits_back(place: Path, name: str):
    done, _ = folders_of(place)
    before = spoil(done.path / name)
    if name == "config.json":
        (done.path / name).unlink()
    (action,) = repair([done], Records(place / "records"), dry_run=True)
    assert action.path == done.path / name and action.done and verify([done])
    assert repair([done], Records(place / "records")) == [action]
    assert (done.path / name).read_bytes() == before and verify([done]) == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "test_items.safetensors", "test.json"])
def test_what_cannot_be_restored_is_named_and_left(place: Path, name: str):
    done, _ = folders_of(place)
    spoil(done.path / name)
    damaged = (done.path / name).read_bytes()
    actions = repair([done], Records(place / "records"))
    assert actions and not any(action.done for action in actions)
    assert any(str(done.path / name) in action.what and "mechproc runs rm" in action.what for action in actions)
    assert (done.path / name).read_bytes() == damaged


@pytest.mark.parametrize("name", ["resume.safetensors", "metrics.jsonl"])
def test_an_interrupted_run_whose_resume_point_is_damaged_starts_over(place: Path, name: str, tiny):
    _, stopped = folders_of(place)
    assert verify([stopped]) == []
    spoil(stopped.path / name)
    assert verify([stopped])
    (action,) = repair([stopped], None)
    assert action.done and action.path == stopped.resume and not stopped.resume.exists()
    run_all([donor(1, tiny)], Store(place / "runs"), workers=1)
    assert verify(folders_of(place)) == []


def test_a_damaged_record_is_written_anew_from_its_run_or_moved_away_when_that_is_asked_for(place: Path):
    shard = place / "records" / "set.jsonl"
    before = spoil(shard)
    (action,) = repair(folders_of(place), Records(place / "records"))
    assert action.done and "line 1: restored from" in action.what and shard.read_bytes() == before
    broken = before.replace(b'"seed":0', b'"seed":5', 1)
    shard.write_bytes(broken + before[:50])
    kept, cut = sorted(repair([], Records(place / "records")), key=lambda action: action.done)
    assert not kept.done and "--remove-damaged" in kept.what and cut.done and "not written to its end" in cut.what
    assert shard.read_bytes() == broken
    (moved,) = repair([], Records(place / "records"), remove_damaged=True)
    assert moved.done and shard.read_bytes() == b""
    assert shard.with_name("set.jsonl.damaged").read_bytes() == broken


def test_garbage_is_listed_and_removed_and_nothing_else(place: Path):
    done, stopped = folders_of(place)
    shutil.copy(stopped.resume, done.resume)
    (done.path / ".test.json.0123.tmp").write_text("half")
    (place / "runs" / "empty").mkdir()
    old, new = place / "runs" / ".a.tmp", place / "runs" / ".b.tmp"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (0, 0))
    found = garbage(place / "runs", folders(place / "runs"))
    wanted = {old, done.resume, done.path / ".test.json.0123.tmp", place / "runs" / "empty"}
    assert {action.path for action in found} == wanted and all(path.exists() for path in wanted)
    with stopped.lock():
        (stopped.path / ".x.tmp").write_text("")
        assert garbage(place / "runs", [stopped]) == [found[0]]
    remove(found)
    assert not any(path.exists() for path in wanted) and new.exists() and stopped.resume.exists()
    assert verify(folders_of(place), place / "records") == []


def test_the_commands(place: Path, capsys):
    done, _ = folders_of(place)
    spoil(done.model)
    where = ["--store", str(place / "runs")]
    assert main(["runs", "repair", *where, "--dry-run"]) == 0
    assert "1 would be repaired, no damages left" in capsys.readouterr().out
    assert main(["runs", "repair", *where]) == 0
    assert main(["runs", "verify", *where, "--records", str(place / "records")]) == 0
    (done.path / ".x.tmp").write_text("")
    assert main(["runs", "gc", *where]) == 0 and (done.path / ".x.tmp").exists()
    assert main(["runs", "gc", *where, "--yes"]) == 0 and not (done.path / ".x.tmp").exists()
    assert main(["runs", "copy", str(place / "copy"), "--records", str(place / "records")]) == 0
    assert "1 records added" in capsys.readouterr().out


def test_a_disk_that_may_only_be_read_is_looked_at(place: Path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    asked = ["--store", str(place / "runs")]
    assert main(["runs", "repair", *asked]) == 0 and main(["runs", "gc", *asked]) == 0
    (done, _) = folders_of(place)
    spoil(done.environment)
    monkeypatch.setattr(Path, "replace", refuse)  # what an atomic write ends with
    capsys.readouterr()
    assert main(["runs", "repair", *asked, "--records", str(place / "records")]) == 1
    assert f"{done.path}: cannot be restored: {done.environment}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_locked_is_named(place: Path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert main(["runs", "repair", "--store", str(place / "runs")]) == 1
    said = capsys.readouterr().err
    assert all(f"{folder} cannot be locked: Permission denied" in said for folder in folders_of(place))
