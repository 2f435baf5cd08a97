"""Records are added to those at a URL, and damaged or different ones are refused."""

from pathlib import Path

import fsspec
import pytest

from mechproc.errors import ConfigError, StoreError
from mechproc.runs.copies import copy_records
from mechproc.runs.executors import run_all
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor


@pytest.fixture
def records(tiny, tmp_path: Path) -> Path:
    run_all([donor(0, tiny)], Store(tmp_path / "runs", records=tmp_path / "records"), workers=1)
    return tmp_path / "records"


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_records_are_added_once_and_those_that_are_there_stay(records: Path, tmp_path: Path, tiny, kind: str):
    url = f"file://{tmp_path}/copy" if kind == "file" else f"memory://{tmp_path.name}"
    there = f"{url}/set.jsonl"
    assert copy_records(records, url) == 1 and copy_records(records, url) == 0
    run_all([donor(1, tiny)], Store(tmp_path / "others", records=tmp_path / "other records"), workers=1)
    assert copy_records(tmp_path / "other records", url) == 1
    with fsspec.open(there, "rb") as file:
        content = file.read()
    assert content.startswith((records / "set.jsonl").read_bytes()) and content.count(b"\n") == 2


def test_damaged_records_are_not_copied_and_not_added_to(records: Path, tmp_path: Path):
    url, shard = str(tmp_path / "copy"), records / "set.jsonl"
    copy_records(records, url)
    copied = Path(url) / "set.jsonl"
    for file in (shard, copied):
        content = file.read_bytes()
        file.write_bytes(content.replace(b'"seed":0', b'"seed":1', 1))
        with pytest.raises(StoreError, match=f"{file} line 1.*checksum"):
            copy_records(records, url)
        file.write_bytes(content)


def test_an_unknown_protocol_and_a_folder_without_records_are_said(records: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="url = 'nowhere://x'"):
        copy_records(records, "nowhere://x")
    with pytest.raises(StoreError, match="has no records"):
        copy_records(tmp_path / "none", "memory://x")
