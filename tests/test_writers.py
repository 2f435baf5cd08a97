"""Every file is written through ``mechproc.files``, which leaves the old file or the new one, never a part."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAVES = {
    "write_text",
    "write_bytes",
    "write_html",
    "write_image",
    "savez",
    "save_file",
    "tofile",
    "savefig",
    "symlink_to",
}
"""Methods and functions that write a file whatever their arguments."""
OF_MODULES = {
    ("json", "dump"), ("pickle", "dump"), ("torch", "save"), ("np", "save"), ("numpy", "save"), ("joblib", "dump"),
    ("shutil", "copy"), ("shutil", "copy2"), ("shutil", "copyfile"), ("shutil", "copytree"), ("shutil", "move"),
    ("os", "replace"), ("os", "rename"), ("os", "truncate"), ("os", "write"),
}  # fmt: skip
FRAMES = {"to_csv", "to_parquet", "to_pickle", "to_excel"}
"""Methods of pandas that write a file when one is named first."""
ALLOWED = {
    ("mechproc/files.py", "open"),  # the writers themselves
    ("mechproc/files.py", "write"),
    ("mechproc/model/convert/folder.py", "write_bytes"),  # into a new_folder, which appears as a whole
}


def writes(source: str) -> Iterator[str]:
    """The name of each call that writes a file by itself."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        texts = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
        is_mode = [t for t in texts if isinstance(t, str) and 0 < len(t) <= 3 and set(t) <= set("rwaxbt+")]
        opens = name in ("open", "fdopen") and any(set(mode) & set("wax+") for mode in is_mode)
        in_memory = owner in ("io", "BytesIO", "StringIO")
        if opens or name in SAVES or (owner, name) in OF_MODULES or (name in FRAMES and node.args and not in_memory):
            yield name


@pytest.mark.parametrize(
    "source",
    [
        "path.write_text('x')",
        "path.open('w')",
        "open(path, mode='ab')",
        "table.to_csv(path, index=False)",
        "torch.save(state, path)",
        "json.dump(plain, file)",
        "shutil.copy(a, b)",
        "figure.write_html('map.html')",
    ],
)
def test_a_writer_is_found(source: str):
    assert list(writes(source))


@pytest.mark.parametrize("source", ["path.open('rb')", "open(path)", "table.to_csv(index=False)", "path.read_text()"])
def test_a_reader_is_none(source: str):
    assert not list(writes(source))


def test_nothing_writes_files_by_itself():
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for package in ("mechproc", "analyses")
        for path in (ROOT / package).rglob("*.py")
        for name in writes(path.read_text(encoding="utf-8"))
    }
    assert found - ALLOWED == set(), (
        "write them with mechproc.files: atomic_write, write_json, append, append_at_once or new_folder"
    )
    assert found >= ALLOWED, "an exception that is no longer needed"
