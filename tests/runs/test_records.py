"""Records: scores that outlive weights, and are never read wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mechproc.errors import StoreError
from mechproc.runs import records as records_
from mechproc.runs.executors import run_all
from mechproc.runs.records import Records
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor, transfer


@pytest.fixture
def kept(tiny, tmp_path: Path) -> Store:
    """A store with records of one transfer and its donor."""
    store = Store(tmp_path / "runs", records=tmp_path / "records")
    run_all([transfer("attention", 0, tiny)], store, workers=1)
    return store


def test_a_finished_run_leaves_a_small_record_in_the_shard_of_its_procedure(kept, tiny, tmp_path):
    lines = {path.name: path.read_bytes().splitlines() for path in (tmp_path / "records").glob("*.jsonl")}
    assert {name: len(found) for name, found in lines.items()} == {"haystack.jsonl": 1, "set.jsonl": 1}
    assert all(len(found[0]) < 8_000 for found in lines.values())
    record = json.loads(lines["haystack.jsonl"][0])
    assert record["identity"] == transfer("attention", 0, tiny).identity


def test_scores_are_read_from_records_where_there_are_no_folders(kept, tiny, tmp_path):
    run = transfer("attention", 0, tiny)
    clone = Store(tmp_path / "elsewhere", records=tmp_path / "records")
    assert clone.has_scores(run) and not clone.has_weights(run) and clone.missing([run]) == []
    assert clone.test(run) == kept.test(run) and clone.provenance(run) == kept.provenance(run)
    assert clone.metrics(run).equals(kept.metrics(run))
    with pytest.raises(StoreError, match="does not exist"):
        clone.model(run)
    assert [r.identity for r in clone.missing([run], weights=True)] == [donor(0, tiny).identity, run.identity]


def test_a_donor_of_which_only_a_record_is_left_is_trained_again(kept, tiny, tmp_path):
    other = transfer("MLPs", 0, tiny)
    shutil.rmtree(tmp_path / "runs")
    clone = Store(tmp_path / "runs", records=tmp_path / "records")
    assert clone.missing([other]) == [donor(0, tiny), other]
    before = (tmp_path / "records" / "set.jsonl").read_bytes()
    run_all([other], clone, workers=1)
    assert (tmp_path / "records" / "set.jsonl").read_bytes() == before
    assert len((tmp_path / "records" / "haystack.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("place", [0, 20, 200, -30])
def test_a_record_changed_by_one_byte_is_refused_by_name(kept, tiny, tmp_path, place):
    path = tmp_path / "records" / "haystack.jsonl"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"haystack\.jsonl line 1.* was changed or damaged"):
        Store(tmp_path / "elsewhere", records=tmp_path / "records").test(transfer("attention", 0, tiny))


def test_a_line_that_a_crash_left_unfinished_is_no_record(kept, tiny, tmp_path):
    path = tmp_path / "records" / "haystack.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    clone = Store(tmp_path / "runs", records=tmp_path / "records")
    assert clone.has_scores(transfer("attention", 0, tiny))
    run_all([transfer("MLPs", 0, tiny)], clone, workers=1)
    assert path.read_bytes().startswith(whole) and len(path.read_bytes().splitlines()) == 2
    assert len(list(Records(tmp_path / "records").all())) == 3


def test_two_records_of_one_run_are_one_unless_they_differ(kept, tiny, tmp_path):
    path, run = tmp_path / "records" / "haystack.jsonl", transfer("attention", 0, tiny)
    record = json.loads(path.read_bytes())
    del record["checksum"]
    later = record | {"made": record["made"] | {"seconds": 99.0, "host": "other"}}
    whole = path.read_bytes()
    path.write_bytes(whole + records_._line(later))
    assert Records(tmp_path / "records").get(run) is not None
    path.write_bytes(whole + records_._line(record | {"test": record["test"] | {"accuracy": 0.123}}))
    with pytest.raises(StoreError, match=r"line 1 .* and .*line 2 .* differ in test"):
        Records(tmp_path / "records").get(run)


def test_workers_and_interruptions_leave_the_same_records(kept, tiny, tmp_path):
    """Apart from when and where they were made."""

    def of(folder: Path) -> dict[str, dict]:
        return {
            r["identity"]: {k: v for k, v in r.items() if k not in ("made", "checksum")} for r in Records(folder).all()
        }

    runs = [transfer(arm, seed, tiny) for seed in (0, 1) for arm in ("random", "attention")]
    stores = {w: Store(tmp_path / f"runs{w}", records=tmp_path / f"records{w}") for w in (1, 2)}
    for workers, store in stores.items():
        run_all(runs, store, workers=workers)
    assert of(tmp_path / "records1") == of(tmp_path / "records2") and len(of(tmp_path / "records1")) == 6
