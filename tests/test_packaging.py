"""What is imported is declared, and a wheel works outside the tree."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = {"datasets", "IPython"}
"""Packages that a user brings along, imported only where they are asked for."""


def imported_packages() -> set[str]:
    """Top-level names of everything outside the standard library that the packages import, wherever they do."""
    names: set[str] = set()
    for path in (path for package in ("mechproc", "analyses") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"mechproc", "analyses"}


def test_everything_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    declared = {re.split(r"[<>=\[ ]", line)[0].lower().replace("_", "-") for line in requirements}
    distributions = packages_distributions()
    missing = {
        name
        for name in imported_packages() - OPTIONAL
        if not declared & {d.lower().replace("_", "-") for d in distributions.get(name, [name])}
    }
    assert not missing, f"imported, but not in pyproject.toml: {sorted(missing)}"


SMALL_DEMO = """
from pathlib import Path

import mechproc
from mechproc.cli.demo import run_demo
from mechproc.studies.set_to_haystack import Sizes, study
from mechproc.training.engines import choose

if __name__ == "__main__":
    assert "site-packages" in mechproc.__file__, mechproc.__file__
    assert mechproc.load_pretrained("sort", 0).cfg.d_model == 16
    sizes = Sizes(8, 2, 8, 4, 4, 8, 3, donor_steps=4, task_steps=12, batch_size=4)
    assert choose("auto", study(range(1), sizes).runs[0][1].model).name == "cpu"
    run_demo(Path("demo"), range(8), sizes, workers=2)
"""


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(tmp_path: Path):
    """It loads a pretrained model, compiles the kernel, runs the demo's study in small and writes its report."""

    def call(*command: object) -> str:
        # neither the tree nor what was compiled here before
        outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
            "XDG_CACHE_HOME": str(tmp_path)
        }
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=outside, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout

    source = tmp_path / "source"  # a build inside the tree leaves files that a later wheel would hold
    for package in ("mechproc", "analyses"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheel", source)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    (tmp_path / "small_demo.py").write_text(SMALL_DEMO)
    call(python, "small_demo.py")
    assert "set to haystack" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
