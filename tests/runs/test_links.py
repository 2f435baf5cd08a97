"""Links, pipes and names of files in a store that lead elsewhere: nothing outside is read or written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from mechproc.cli import main
from mechproc.config import digest
from mechproc.errors import StoreError
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import Records, line_of
from mechproc.runs.store import Store
from mechproc.runs.verify import damages
from mechproc.studies.set_to_haystack import donor
from mechproc.threads import one_thread

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")


@pytest.fixture
def run(tiny) -> RunConfig:
    return donor(0, tiny)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs", records=tmp_path / "records")


@pytest.fixture(scope="module")
def once(tiny, tmp_path_factory) -> Path:
    """A store and its records with one complete run."""
    place = tmp_path_factory.mktemp("links")
    with one_thread():
        execute(donor(0, tiny), Store(place / "runs", records=place / "records"))
    return place


@pytest.fixture
def trained(run: RunConfig, store: Store, once: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return store.folder(run)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that is none of the store's business."""
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "precious"
    file.write_text("precious")
    return file


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "config.json", "checkpoints", ".", "error.json", "missing"])
def test_a_training_does_not_write_through_a_link(run, store, outside, name):
    folder = store.folder(run).path
    if name == ".":
        store.root.mkdir()
        folder.symlink_to(outside.parent)
    else:
        folder.mkdir(parents=True)
        target = outside.parent if name == "checkpoints" else outside if name != "missing" else outside.parent / "new"
        (folder / (name if name != "missing" else "metrics.jsonl")).symlink_to(target)
    with pytest.raises(StoreError, match=r"cannot be used: it leads out of .*runs"):
        execute(run, store)
    store.write_failure(run, "failed")
    assert outside.read_text() == "precious" and list(outside.parent.iterdir()) == [outside]


def test_a_training_does_not_wait_for_a_pipe(run, store):
    folder = store.folder(run)
    folder.path.mkdir(parents=True)
    os.mkfifo(folder.metrics)
    with pytest.raises(StoreError, match=r"metrics.jsonl cannot be used: it is a pipe"):
        execute(run, store)


@pytest.mark.parametrize("name", ["config.json", "environment.json", "metrics.jsonl", "model.safetensors", "test.json"])
def test_a_link_that_leads_out_is_not_read(trained, outside, name, capsys):
    copy = outside.parent / name
    (trained.path / name).rename(copy)
    (trained.path / name).symlink_to(copy)
    read = {
        "config.json": trained.read_config,
        "environment.json": trained.read_environment,
        "metrics.jsonl": trained.read_metrics,
        "model.safetensors": trained.load_model,
        "test.json": trained.read_test,
    }[name]
    with pytest.raises(StoreError, match=rf"{name} cannot be used: it leads out of .*runs"):
        read()
    (line,) = damages(trained)
    assert f"{name} cannot be used" in line and line.endswith("remove it")
    store = ["--store", str(trained.path.parent)]
    assert main(["runs", "verify", *store]) == 1 and main(["runs", "repair", *store]) == 1
    assert main(["runs", "gc", "--yes", *store]) == 0
    assert main(["runs", "rm", trained.name, "--yes", *store]) == 1
    assert copy.exists() and outside.exists()


def test_damages_beside_a_bad_link_are_named(trained, outside):
    """Two bad links, a pipe, a damaged file that is read, and a file behind a link that is nobody's business."""
    trained.metrics.unlink()
    trained.metrics.symlink_to(outside)
    shutil.rmtree(trained.checkpoints)
    trained.checkpoints.symlink_to(outside.parent)
    os.mkfifo(trained.path / "pipe")
    trained.environment.write_text("{")
    content = bytearray(trained.model.read_bytes())
    content[-2] ^= 1
    trained.model.write_bytes(bytes(content))
    lines = damages(trained)
    named = {name: [line for line in lines if f"{name} " in line] for name in
             ("metrics.jsonl", "checkpoints", "pipe", "environment.json", "model.safetensors")}  # fmt: skip
    assert [len(of) for of in named.values()] == [1] * 5 and len(lines) == 5
    assert all(named[name][0].endswith("remove it") for name in ("metrics.jsonl", "checkpoints", "pipe"))
    assert all("mechproc runs rm" in named[name][0] for name in ("environment.json", "model.safetensors"))
    trained.test.unlink()
    trained.test.symlink_to(outside)
    assert {line.split(" ")[0].rpartition("/")[2] for line in damages(trained)} >= {"test.json", "environment.json"}


def test_a_link_inside_the_store_is_followed(trained):
    trained.metrics.rename(trained.path.parent / "kept.jsonl")
    trained.metrics.symlink_to("../kept.jsonl")
    assert trained.read_metrics() and damages(trained) == []


def test_a_folder_that_leads_out_is_listed_as_a_problem(trained, outside, capsys):
    (trained.path.parent / "link").symlink_to(outside.parent)
    assert main(["runs", "list", "--store", str(trained.path.parent)]) == 0
    said = capsys.readouterr()
    assert "1 runs" in said.out and "link cannot be used: it leads out of" in said.err


def rewritten(folder: RunFolder, **changes) -> None:
    """``test.json`` with other values, and the checksum that belongs to them."""
    test = json.loads(folder.test.read_text()) | changes
    del test["checksum"]
    folder.test.write_text(json.dumps(test | {"checksum": digest(test)}))


@pytest.mark.parametrize(
    "files",
    [
        {"../../elsewhere/precious": {"size": 8, "sha256": "0"}},
        {"..": {"size": 8, "sha256": "0"}},
        {"/etc/passwd": {"size": 8, "sha256": "0"}},
        {"checkpoints/../x": {"size": 8, "sha256": "0"}},
        {"a\0": {"size": 8, "sha256": "0"}},
        {"config.json": {"size": "8", "sha256": "0"}},
        {"config.json": {"size": 8}},
        {"config.json": 8},
    ],
)
def test_names_in_test_json_do_not_lead_out_of_the_folder(trained, outside, files, capsys):
    rewritten(trained, files=files)
    with pytest.raises(StoreError, match=r"in .*test\.json"):
        trained.read_test()
    store = ["--store", str(trained.path.parent)]
    assert main(["runs", "verify", *store]) == 1 and main(["runs", "repair", *store]) == 1
    assert main(["runs", "list", *store]) == 0
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": {"step": [1, 2], "loss": [1]}}, "metrics in .*lists of one length"),
        ({"metrics": {"step": 1}}, "metrics in .*lists of one length"),
        ({"made": {}}, r"made\.seconds in .* is None"),
        ({"test": {"accuracy": "1"}}, r"test\.accuracy in .* is '1'"),
        ({"provenance": []}, r"provenance in .* is \[\]"),
        ({"run": {"a": json.loads("[" * 100 + "]" * 100)}}, "nested more than 60 levels deep"),
    ],
)
def test_a_record_of_another_shape_is_named(trained, run, store, change, said):
    (shard,) = store.records.shards()
    record = json.loads(shard.read_text())
    del record["checksum"]
    shard.write_bytes(line_of(record | change))
    with pytest.raises(StoreError, match=said):
        Records(store.records.folder).get(run)


@pytest.mark.parametrize("name", [".lock", "set.jsonl"])
def test_records_are_not_written_through_a_link(trained, run, store, outside, name):
    records, record = Records(outside.parent / "records"), store.records.get(run)
    records.folder.mkdir()
    (records.folder / name).symlink_to(outside)
    with pytest.raises(StoreError, match="leads out of"):
        records.add(run, record)
    assert outside.read_text() == "precious"


def test_other_files_among_the_checkpoints_are_passed_over(trained):
    kept = trained.checkpoint_steps()
    for name in ("step_x.safetensors", "step_.safetensors", "step_-1.safetensors"):
        (trained.checkpoints / name).write_text("x")
    assert trained.checkpoint_steps() == kept
