"""Every notebook runs from top to bottom on small settings, and what it shows is of the code that stands in it."""

import ast
import importlib.util
import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from mechproc.procedures import Procedure

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {
    "DONOR_STEPS": "20",
    "TASK_STEPS": "20",
    "STEPS": "8",
    "N_SEEDS": "2",
    "N_ITEMS": "40",
    "N_PAIRS": "8",
    "WORKERS": "1",
}
IN_A_KERNEL = "quickstart"
"""The notebook that is run as users run it. The others are run here, without a kernel to start and nothing to import
again, each in a few seconds."""
SPEC = importlib.util.spec_from_file_location("notebooks_main", FOLDER / "__main__.py")
assert SPEC and SPEC.loader
keeping = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(keeping)


def read(path: Path, store: Path | None = None) -> Any:
    """A notebook; with ``store`` its parameters are small."""
    notebook = nbformat.read(path, as_version=4)
    if store is not None:
        (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        names = [line.split("=")[0].strip() for line in parameters.source.splitlines()]
        known = SMALL | {"STORE": repr(str(store))}
        parameters.source = "\n".join(f"{name} = {known[name]}" for name in names)
    return notebook


def code(notebook: Any) -> list[str]:
    return [cell["source"] for cell in notebook.cells if cell["cell_type"] == "code"]


def run_here(notebook: Any) -> None:
    """Execute the cells in this process, and show what stands at their ends as a notebook does."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code(notebook):
        tree = ast.parse(cell)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            if isinstance(value, go.Figure):
                value.to_json()
            elif hasattr(value, "_repr_html_"):
                value._repr_html_()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
class TestWhatIsKept:
    def test_outputs_are_of_this_code(self, path):
        notebook = read(path)
        assert notebook.metadata.get("executed") == keeping.code_digest(notebook), f"python notebooks {path.stem}"
        assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")

    def test_outputs_are_small_and_say_nothing_of_the_machine(self, path):
        assert path.stat().st_size < 500_000
        outputs = [o for cell in read(path).cells for o in cell.get("outputs", [])]
        assert {o["output_type"] for o in outputs} <= {"stream", "execute_result", "display_data"}
        assert not [o for o in outputs if o.get("name") == "stderr" or keeping.WIDGET in o.get("data", {})]
        text = json.dumps([{k: v for k, v in o.get("data", {}).items() if not k.startswith("image/")} for o in outputs])
        assert not [word for word in (str(FOLDER.parent), "/tmp/", "/home/", "/root/", " at 0x") if word in text]

    def test_it_imports_and_does_not_define(self, path):
        """But for a procedure of one's own, which is what its notebook is about."""
        defined = [
            node
            for cell in code(read(path))
            for node in ast.parse(cell).body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        ]
        assert [node.name for node in defined] == (["Rotate"] if path.stem == "own_procedure" else [])


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem != IN_A_KERNEL], ids=lambda p: p.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))
    run_here(read(path, tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook_runs_in_a_kernel(tmp_path):
    notebook = read(FOLDER / f"{IN_A_KERNEL}.ipynb", tmp_path)
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
