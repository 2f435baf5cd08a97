"""Every damage is named with its file and what to do; a store without one has none."""

import json
import os
import signal
from pathlib import Path

import pytest

from mechproc.config import digest
from mechproc.files import write_json
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.executors import run_all
from mechproc.runs.folder import RunFolder
from mechproc.runs.store import Store
from mechproc.runs.verify import damages, verify
from mechproc.studies.set_to_haystack import donor


@pytest.fixture
def run(tiny, store: Store) -> RunConfig:
    """A complete run."""
    run = donor(0, tiny)
    run_all([run], store, workers=1)
    return run


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(bytes(content))


COMPLETE = (
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "model.safetensors",
    "test_items.safetensors",
    "test.json",
    "checkpoints/step_000001.safetensors",
)


def test_every_file_of_a_complete_run_is_checked(run: RunConfig, store: Store):
    folder = store.folder(run)
    kept = {path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file()}
    assert {name.replace("step_000001", "step_000000") for name in COMPLETE} <= kept
    assert damages(folder) == []


@pytest.mark.parametrize("name", COMPLETE)
@pytest.mark.parametrize("how", ["one bit", "cut off", "removed"])
def test_each_damage_of_a_complete_run_is_named(run: RunConfig, store: Store, name: str, how: str):
    folder = store.folder(run)
    file = folder.path / name
    if how == "one bit":
        flip(file)
    elif how == "cut off":
        file.write_bytes(file.read_bytes()[:-2])
    else:
        file.unlink()
    found = damages(folder)
    if how == "removed" and name in ("test.json", COMPLETE[-1]):
        assert found == []  # a run that is not complete; checkpoints may be removed
        return
    assert found and all(str(file) in line for line in found)
    assert all(f"mechproc runs rm {folder.name}" in line for line in found)


@pytest.mark.parametrize("name", ["resume.safetensors", "checkpoints/step_000001.safetensors", "metrics.jsonl"])
def test_each_damage_of_an_interrupted_run_is_named(tiny, store: Store, name: str):
    run = donor(0, tiny)

    def stop(step: int, *_: float) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        execute(run, store, progress=stop)
    folder = store.folder(run)
    assert damages(folder) == []
    file = folder.path / name
    file.write_bytes(b"{\n" + file.read_bytes()[10:])
    found = damages(folder)
    assert found and all(str(file) in line for line in found)


def test_scores_that_differ_from_their_record_are_named(run: RunConfig, store: Store, tmp_path: Path):
    folder, records = store.folder(run), tmp_path / "records"
    Store(store.root, records=records).record(run)
    assert verify([folder], records) == []
    test = json.loads(folder.test.read_text()) | {"accuracy": 0.5}
    sealed = test | {"checksum": digest({field: test[field] for field in test if field != "checksum"})}
    write_json(folder.test, sealed)
    assert damages(folder) == []
    (found,) = verify([folder], records)
    assert str(folder.test) in found and "accuracy" in found and "0.5" in found


def test_a_damaged_record_is_named_and_does_not_hide_the_others(run: RunConfig, store: Store, tmp_path: Path):
    records = tmp_path / "records"
    Store(store.root, records=records).record(run)
    flip(records / "set.jsonl")
    (records / "another.jsonl").write_text("{}\n")
    lines = verify([store.folder(run), RunFolder(tmp_path)], records)
    assert len(lines) == 3 and str(tmp_path / "config.json") in lines[0]
    assert "another.jsonl line 1" in lines[1] and f"set.jsonl line 1 (identity {run.identity})" in lines[2]
