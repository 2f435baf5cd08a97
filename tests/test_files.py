"""Atomic writes: the old file or the new one, whatever happens in between."""

import errno
import json
import os
from pathlib import Path

import pytest

from mechproc.errors import StoreError
from mechproc.files import atomic_write, new_folder, read_json, write_json


def test_writes_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    atomic_write(file, b"one")
    atomic_write(file, b"two")
    assert file.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    file = tmp_path / "a.bin"
    atomic_write(file, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "write":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"a\.bin cannot be written: No space left on device"):
        atomic_write(file, b"new")
    assert file.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_an_interrupt_removes_the_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "a.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/a\.bin cannot be written: No such file or directory"):
        atomic_write(tmp_path / "nowhere" / "a.bin", b"")


def test_json_is_readable_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "a.json", {"b": float("nan")})


def test_a_new_folder_is_there_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "inside" / "new"
    with new_folder(target) as folder:
        (folder / "a").write_text("one")
        (folder / "b").mkdir()
        (folder / "b" / "c").write_text("two")
        assert not target.exists()
    assert (target / "a").read_text() == "one" and (target / "b" / "c").read_text() == "two"
    assert list(tmp_path.rglob("*.tmp")) == []
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "b").write_text("two")
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["b"]


def test_a_folder_that_is_not_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "new") as folder:
        (folder / "a").write_text("one")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"new cannot be written: No space left on device"):  # noqa: SIM117
        with new_folder(tmp_path / "new") as folder:
            (folder / "a").write_text("one")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("one")
    for name, says in {"old": "is not empty", "old/a": "cannot be written: it is a file"}.items():
        with pytest.raises(StoreError, match=says), new_folder(tmp_path / name):
            raise AssertionError("entered")
    assert (tmp_path / "old" / "a").read_text() == "one"


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="new cannot be written"):  # noqa: SIM117
        with new_folder(tmp_path / "new") as folder:
            (folder / "a").write_text("ours")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "a").write_text("theirs")
    assert [p.name for p in tmp_path.iterdir()] == ["new"] and (tmp_path / "new" / "a").read_text() == "theirs"


@pytest.mark.parametrize(("text", "says"), [("{", "cannot be read"), ("[1]", "does not hold a JSON object")])
def test_json_that_is_no_object(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StoreError, match=rf"a\.json {says}"):
        read_json(tmp_path / "a.json")


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"training": {"steps": 1, "steps": 2}}')
    with pytest.raises(StoreError, match=r"config\.json cannot be read: the key 'steps' stands twice"):
        read_json(path)
