"""Which modules import transformer_lens: training and the command line's help do without it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEAM = {"hooked.py", "components.py", "hooks.py", "cache.py", "convert/bridge.py"}


def imports_transformer_lens(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] == "transformer_lens" for name in names):
            return True
    return False


def test_one_seam_imports_transformer_lens():
    files = [path for package in ("mechproc", "analyses") for path in (ROOT / package).rglob("*.py")]
    found = {path.relative_to(ROOT).as_posix() for path in files if imports_transformer_lens(path)}
    assert found == {f"mechproc/model/{name}" for name in SEAM}
