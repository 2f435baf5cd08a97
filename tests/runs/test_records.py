"""Records: scores without weights, shared by all who read them, and refused when they were changed."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from mechproc.config import canonical_json, digest
from mechproc.errors import StoreError
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import run_all
from mechproc.runs.records import MADE, Record, Records, make
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import transfer


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> tuple[Store, RunConfig]:
    """A store with records, in which one transfer has been run with its donor."""
    root = tmp_path_factory.mktemp("trained")
    store, run = Store(root / "runs", records=root / "records"), transfer("attention", 0, tiny)
    run_all([run], store, workers=1)
    return store, run


@pytest.fixture
def copied(trained, tmp_path) -> tuple[Path, RunConfig]:
    """The records alone, and the run."""
    store, run = trained
    return Path(shutil.copytree(store.records.folder, tmp_path / "records")), run


def test_records_alone_have_the_scores_of_the_folders(trained, copied, tmp_path):
    store, run = trained
    folders, records = Store(store.root), Store(tmp_path / "nothing", records=copied[0])
    for each in (run, run.donors["set"]):
        assert records.has_scores(each) and not records.has_weights(each)
        assert records.test(each) == folders.test(each)
        pd.testing.assert_frame_equal(records.metrics(each), folders.metrics(each))
        there = folders.provenance(each)
        assert records.provenance(each) == {key: value for key, value in there.items() if key not in MADE}
    assert records.missing([run]) == []
    with pytest.raises(StoreError, match="does not exist"):
        records.model(run)


def test_a_donor_of_which_only_a_record_is_kept_is_trained_again(tiny, copied, tmp_path):
    folder, run = copied
    store, other = Store(tmp_path / "runs", records=folder), transfer("MLPs", 0, tiny)
    assert store.missing([run, other]) == [other.donors["set"], other]
    assert store.missing([run], weights=True) == [run.donors["set"], run]
    before = (folder / "set.jsonl").read_bytes()
    run_all([run, other], store, workers=1)
    assert (folder / "set.jsonl").read_bytes() == before  # the donor's record was there
    assert len((folder / "haystack.jsonl").read_text().splitlines()) == 2
    assert store.has_weights(other) and not store.has_weights(run)


def test_lines_are_added_and_none_is_rewritten(copied, trained):
    folder, run = copied
    before = (folder / "haystack.jsonl").read_bytes()
    records = Records(folder)
    record = records.get(run) or {}
    assert not records.add(run, record | {"made": {"host": "elsewhere"}})
    other = run.replace(seed=5, donors={"set": run.donors["set"].replace(seed=5)})
    assert other not in records
    assert records.add(other, of_other(record, other)) and other in records and other in Records(folder)
    after = (folder / "haystack.jsonl").read_bytes()
    assert after.startswith(before) and after.count(b"\n") == 2


def of_other(record: Record, run: RunConfig) -> Record:
    return record | {"identity": run.identity, "run": run.to_dict()}


def test_the_checksum_is_that_of_the_rest(copied):
    for path in copied[0].glob("*.jsonl"):
        line = json.loads(path.read_text())
        assert line.pop("checksum") == digest(line)


def test_a_record_is_a_few_kilobytes(copied):
    folder, run = copied
    record = Records(folder).get(run) or {}
    rows = 101  # 10,000 updates, validated every 100
    columns = {
        "step": [100 * row for row in range(rows)],
        "stage": [0] * rows,
        **{name: [0.123456] * rows for name in record["metrics"] if name not in ("step", "stage")},
    }
    assert len(canonical_json(record | {"metrics": columns})) < 10_000
    assert "n_correct" not in canonical_json(record)


def test_any_byte_that_is_changed_is_refused_by_name(copied):
    folder, run = copied
    path = folder / "haystack.jsonl"
    whole = path.read_bytes()
    for place in range(0, len(whole) - 1, 97):
        changed = bytearray(whole)
        changed[place] = ord("8") if changed[place] != ord("8") else ord("9")
        path.write_bytes(bytes(changed))
        with pytest.raises(StoreError, match=rf"{re.escape(str(path))} line 1"):
            Store("none", records=folder).missing([run])
    changed = whole.replace(b'"accuracy":0.', b'"accuracy":1.', 1)
    assert changed != whole
    path.write_bytes(changed)
    with pytest.raises(StoreError, match=rf"{re.escape(str(path))} line 1 \(identity {run.identity}\)"):
        Records(folder).get(run)


def test_a_record_with_the_config_of_another_run_is_refused(copied):
    folder, run = copied
    record = Records(folder).get(run) or {}
    (folder / "haystack.jsonl").unlink()
    Records(folder).add(run, record | {"run": run.replace(training=run.training.replace(steps=13)).to_dict()})
    with pytest.raises(StoreError, match=rf"line 1 \(identity {run.identity}\): its config"):
        Store("none", records=folder).test(run)


def test_a_line_that_a_crash_cut_off_counts_as_not_there(copied):
    folder, run = copied
    path = folder / "haystack.jsonl"
    whole = path.read_bytes()
    record = Records(folder).get(run) or {}
    path.write_bytes(whole + whole[:500])
    records = Records(folder)
    assert run in records
    other = run.replace(seed=5, donors={"set": run.donors["set"].replace(seed=5)})
    records.add(other, of_other(record, other))
    assert path.read_bytes().startswith(whole + b'{"checksum"') and path.read_bytes().count(b"\n") == 2
    assert other in Records(folder)


def test_records_of_one_run_must_agree_apart_from_time_and_host(copied):
    folder, run = copied
    path = folder / "haystack.jsonl"
    record = Records(folder).get(run) or {}
    elsewhere = record | {"made": {"host": "elsewhere", "seconds": 1.0}}
    for twin, allowed in ((elsewhere, True), (record | {"test": record["test"] | {"accuracy": 0.5}}, False)):
        other = Records(folder.with_name("other"))
        other.add(run, twin)
        both = path.read_bytes() + (other.folder / path.name).read_bytes()
        shutil.rmtree(other.folder)
        together = folder.with_name("together")
        together.mkdir(exist_ok=True)
        (together / path.name).write_bytes(both)
        if allowed:
            assert list(Records(together).all()) == [record]
        else:
            with pytest.raises(StoreError, match=r"line 1 .* and .* line 2 .* differ in test"):
                Records(together).get(run)


def test_another_result_of_the_same_provenance_is_refused_and_of_another_one_left_out(copied):
    folder, run = copied
    records = Records(folder)
    record = records.get(run) or {}
    wrong = record | {"test": record["test"] | {"accuracy": 0.5}}
    with pytest.raises(StoreError, match="differ in test"):
        records.add(run, wrong)
    assert not records.add(run, wrong | {"provenance": record["provenance"] | {"simd": "another"}})
    assert records.get(run) == record


def test_a_record_that_an_interruption_left_out_is_added(trained, tmp_path):
    store, run = trained
    later = Store(store.root, records=tmp_path / "later")
    run_all([run], later, workers=1)
    for each in (run, run.donors["set"]):
        assert later.records is not None and later.records.get(each) == make(each, store.folder(each))


def test_a_file_that_another_process_replaces_or_extends_is_read_again(copied):
    folder, run = copied
    records, path = Records(folder), folder / "haystack.jsonl"
    record = records.get(run) or {}
    other = run.replace(seed=5, donors={"set": run.donors["set"].replace(seed=5)})
    Records(folder).add(other, of_other(record, other))
    assert other in records
    path.unlink()
    assert run not in records
    Records(folder).add(other, of_other(record, other))
    Records(folder).add(run, record)
    assert run in records and other in records


@pytest.mark.slow
def test_a_record_is_read_once_until_its_file_changes(copied, monkeypatch):
    folder, run = copied
    records, read = Records(folder), []
    monkeypatch.setattr("mechproc.runs.records.parse_json", lambda text, **how: read.append(text) or json.loads(text))
    first = records.get(run)
    assert records.get(run) == first and len(read) == 1
    path = folder / f"{run.procedure.short_name}.jsonl"
    path.write_bytes(path.read_bytes())
    assert records.get(run) == first and len(read) == 2


def test_one_worker_and_two_leave_the_same_records(tiny, tmp_path):
    """Apart from when and where they were made; so do interruptions (``executors/test_processes.py``)."""
    runs, found = [transfer(arm, seed, tiny) for seed in (0, 1) for arm in ("random", "attention")], []
    for workers in (1, 2):
        run_all(runs, Store(tmp_path / f"runs{workers}", records=tmp_path / f"{workers}"), workers=workers)
        records = Records(tmp_path / f"{workers}").all()
        found.append({record["identity"]: record | {"made": None} for record in records})
    assert found[0] == found[1] and len(found[0]) == 6
