"""The index of a store: a list from it is the list from the folders, whatever happened to either."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mechproc.cli import main
from mechproc.runs import catalogue, index
from mechproc.runs.catalogue import entries, lines
from mechproc.runs.execute import execute
from mechproc.runs.folder import RunFolder
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor
from mechproc.threads import one_thread


@pytest.fixture(scope="module")
def once(tiny, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("index") / "runs"
    with one_thread():
        for seed in (0, 1):
            execute(donor(seed, tiny), Store(root))
    return root


@pytest.fixture
def root(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "runs"))


def of_folders(root: Path):
    """The list without an index."""
    runs, problems = entries(root)
    return [catalogue._line(run) for run in runs], problems


@pytest.fixture
def read_folders(monkeypatch) -> list[RunFolder]:
    """The folders that were read."""
    found, read = [], catalogue._entry
    monkeypatch.setattr(catalogue, "_entry", lambda folder: found.append(folder) or read(folder))
    return found


def test_a_list_reads_no_folder_of_runs_that_were_made_here(root, read_folders):
    assert len(lines(root)[0]) == 2 and read_folders == []
    assert lines(root) == of_folders(root)


def test_a_list_without_an_index_makes_it(root, read_folders):
    (root / index.NAME).unlink()
    first = lines(root)
    assert len(read_folders) == 2 and (root / index.NAME).exists()
    assert lines(root) == first == of_folders(root)
    assert len(read_folders) == 4  # those of ``of_folders``


FILES = ["test.json", "config.json", "model.safetensors", "metrics.jsonl", "test_items.safetensors"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", ["cut", "remove", "flip"])
def test_a_file_that_changes_is_seen(root, name, change):
    lines(root)
    file = sorted(root.glob("set-*"))[0] / name
    content = file.read_bytes()
    if change == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if change == "cut" else bytes([content[0] ^ 1]) + content[1:])
        os.utime(file, ns=(1, 1))  # another time than before, as a clock gives
    assert lines(root) == of_folders(root)


def test_runs_that_come_and_go_are_seen(root, tiny):
    lines(root)
    gone = sorted(root.glob("set-*"))[0]
    shutil.rmtree(gone)
    assert [line.name for line in lines(root)[0]] == [path.name for path in root.glob("set-*")]
    with one_thread():
        execute(donor(0, tiny), Store(root))
    assert len(lines(root)[0]) == 2 and lines(root) == of_folders(root)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"complete", b"comPlete"),
        lambda content: b"",
        lambda content: b"x\n[]",
    ],
)
def test_a_damaged_index_is_made_again(root, spoil):
    whole = lines(root)
    file = root / index.NAME
    content = file.read_bytes()
    file.write_bytes(spoil(content))
    assert lines(root) == whole and file.read_bytes() == content


def test_a_line_that_was_cut_off_spoils_no_other(root, read_folders):
    """As by a writer that was killed while it appended, and by one that appended meanwhile on a network."""
    file, (one, other) = root / index.NAME, lines(root)[0]
    file.unlink()
    for line in (one, other):
        index.add(root, line)
    whole = file.read_bytes()
    file.write_bytes(whole[:40] + whole[whole.index(b"\n", 1) :])
    assert lines(root)[0] == [one, other] and [folder.name for folder in read_folders] == [one.name]
    assert lines(root)[0] == [one, other] and len(read_folders) == 1  # what was read stands in the index again


def test_of_two_lines_of_a_run_the_last_counts_once_its_files_fit(root, read_folders):
    one = lines(root)[0][0]
    index.add(root, one._replace(accuracy=0.125))
    assert lines(root)[0][0].accuracy == 0.125 and read_folders == []
    os.utime(root / one.name / "test.json", ns=(1, 1))
    assert lines(root)[0][0] == one and len(read_folders) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
@pytest.mark.parametrize("place", [lambda file, out: file.symlink_to(out), lambda file, out: os.mkfifo(file)])
def test_nothing_is_appended_outside_the_store_or_to_a_pipe(root, tmp_path, place):
    line, outside = lines(root)[0][0], tmp_path / "outside"
    outside.write_text("mine")
    (root / index.NAME).unlink()
    place(root / index.NAME, outside)
    index.add(root, line)
    assert outside.read_text() == "mine"


def test_a_store_that_may_not_be_written_is_listed(root, monkeypatch):
    def refuse(path, content):
        from mechproc.errors import StoreError

        raise StoreError("read-only")

    monkeypatch.setattr(index, "atomic_write", refuse)
    (root / index.NAME).unlink()
    assert lines(root) == of_folders(root) and not (root / index.NAME).exists()


def test_show_reads_one_run_and_a_list_is_filtered(root, read_folders, capsys):
    lines(root)
    read_folders.clear()
    identity = lines(root)[0][0].identity
    assert main(["runs", "show", identity[:6], "--store", str(root)]) == 0
    assert len(read_folders) == 1
    capsys.readouterr()
    assert main(["runs", "list", "--store", str(root), "--status", "complete", "--procedure", "set"]) == 0
    assert "2 runs" in capsys.readouterr().out
    assert main(["runs", "list", "--store", str(root), "--procedure", "haystack"]) == 0
    assert "0 runs" in capsys.readouterr().out
