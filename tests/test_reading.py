"""Files that are none, links that lead elsewhere, JSON that never ends: one error, at once."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mechproc.cli import main
from mechproc.errors import StoreError
from mechproc.files import atomic_write, read_json
from mechproc.model.io import load_model, read_tensors
from mechproc.reading import DEEPEST, parse_json, read_bytes, require_inside
from mechproc.result import Result
from mechproc.runs.donors import ModelFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has neither pipes nor devices in folders")
READERS = [read_bytes, read_json, load_model, read_tensors, Result.load, lambda path: ModelFile(str(path))]


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_or_a_device_is_no_file(read, pipe):
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(StoreError, match=f"{path} cannot be read: it is a pipe, a socket or a device"):
            read(path)


@pytest.mark.parametrize("read", READERS)
def test_folders_missing_files_and_null_bytes_are_named(read, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("folder", "missing", "a\0b"):
        with pytest.raises(StoreError, match=r"cannot be read|does not exist"):
            read(tmp_path / name)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**40)  # a sparse file: it has the size, and no bytes on the disk
    with pytest.raises(StoreError, match=r"it has 1,099,511,627,776 bytes, at most 1,073,741,824 are read"):
        read_json(tmp_path / "large.json")


def test_a_device_is_not_replaced_by_a_file(pipe):
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(StoreError, match=f"{path} cannot be written: it is there, and is no file"):
            atomic_write(path, b"")
    assert pipe.is_fifo()
    with pytest.raises(StoreError, match="cannot be written"):
        atomic_write(pipe.parent / "a\0b", b"")


def test_links_may_lead_anywhere_but_out(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.txt").write_text("secret")
    (tmp_path / "inside" / "a.txt").write_text("a")
    (tmp_path / "inside" / "link").symlink_to("a.txt")
    (tmp_path / "inside" / "out").symlink_to("../outside.txt")
    (tmp_path / "inside" / "circle").symlink_to("circle")
    (tmp_path / "inside" / "up").symlink_to("..")
    (tmp_path / "whole").symlink_to("inside")
    for root in (tmp_path / "inside", tmp_path / "whole"):  # the folder itself may be a link: the user named it
        assert read_bytes(root / "link", root) == b"a"
        for name in ("out", "up/outside.txt", "../outside.txt", "circle"):
            with pytest.raises(StoreError, match=r"leads out of|cannot be read"):
                read_bytes(root / name, root)
    with pytest.raises(StoreError):
        require_inside(tmp_path / "outside.txt", tmp_path / "inside")
    assert read_bytes(tmp_path / "inside" / "out") == b"secret"  # who named it may read it


def test_json_that_is_nested_without_end_is_refused():
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for depth in (DEEPEST + 1, 10_000, 200_000):
            with pytest.raises(ValueError, match="nested more than 60 levels deep"):
                parse_json(opening * depth + "1" + closing * depth)
        assert parse_json(opening * DEEPEST + "1" + closing * DEEPEST)
    wide = [[i] for i in range(1000)]
    assert parse_json(json.dumps(wide)) == parse_json(json.dumps(wide).encode()) == wide


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "-1E+999", "1" * 400 + ".0"])
def test_numbers_that_json_cannot_hold_are_refused(number, tmp_path):
    with pytest.raises(ValueError, match="is not a number that JSON can hold"):
        parse_json(f'{{"a": [1.5, {number}]}}')
    assert not math.isfinite(parse_json(number, finite=False))
    (tmp_path / "config.json").write_text(f'{{"identity": {number}}}')
    with pytest.raises(StoreError, match=r"config\.json cannot be read: .*is not a number"):
        read_json(tmp_path / "config.json")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"mechproc": f'{{"layout": {number}}}'})
    with pytest.raises(StoreError, match=r"a\.safetensors cannot be read"):
        read_tensors(tmp_path / "a.safetensors")


def test_usual_numbers_are_read_as_they_are():
    for text in ("1e-300", "1.5e+10", "-0.25", "12345678901234567890", "1" * 400):
        assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "{pipe}"],
        ["run", "/dev/zero"],
        ["model", "show", "/dev/zero"],
        ["model", "show", "{pipe}"],
        ["model", "import", "/dev/zero", "out", "--allow-pickle"],
        ["model", "import", "{pipe}", "out", "--config", "/dev/zero"],
        ["analyse", "ablation", "/dev/zero"],
        ["analyse", "ablation", "{pipe}"],
        ["procedure", "show", "/dev/zero:Last"],
        ["study", "results", "a\0.py"],
        ["runs", "list", "--store", "/dev/zero"],
    ],
)
def test_commands_end_in_one_line(command, pipe, capsys, monkeypatch):
    monkeypatch.chdir(pipe.parent)
    assert main([part.format(pipe=pipe) for part in command]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mechproc: ") and said.count("\n") == 1
    assert list(pipe.parent.iterdir()) == [pipe]


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("int too large"), RecursionError("too deep")])
def test_what_is_too_large_ends_in_one_line(error, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr("mechproc.cli.parts.run", fail)
    assert main(["parts"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mechproc: ") and said.count("\n") == 1


def test_what_an_error_quotes_cannot_steer_a_terminal(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"\x1b[2J\r\nmechproc: all is well": 1, "procedure": 1}))
    assert main(["run", str(tmp_path / "a.json")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "\x1b" not in said and "\r" not in said and "\\x1b[2J\\r" in said
