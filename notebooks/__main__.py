"""Run the notebooks from top to bottom and keep what they show: ``python notebooks [NAME ...]``.

Outputs are kept small: figures as static images, no bars, nothing of this machine. ``metadata.executed`` has the digest of
the code that made them, by which a test sees whether a notebook was edited and not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from mechproc.config import digest
from mechproc.files import atomic_write

HERE = Path(__file__).parent
WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Run the notebooks that are named, or all."""
    import nbclient
    import nbformat

    known = sorted(path.stem for path in HERE.glob("*.ipynb"))
    parser = argparse.ArgumentParser(prog="python notebooks", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *known], help=", ".join(known))
    os.environ["PLOTLY_RENDERER"] = "png"
    for name in parser.parse_args().names or known:
        path, started = HERE / f"{name}.ipynb", time.monotonic()
        notebook: Any = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(HERE)}}
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "executed": code_digest(notebook),
        }
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
            if cell.cell_type == "code":
                cell.outputs = [kept(output) for output in cell.outputs if WIDGET not in output.get("data", {})]
        atomic_write(path, f"{nbformat.writes(notebook).rstrip()}\n".encode())
        print(f"{name}: {time.monotonic() - started:.0f} s, {path.stat().st_size / 1e3:.0f} kB", flush=True)


def code_digest(notebook: Any) -> str:
    """SHA-256 of the code cells of a notebook."""
    return digest(["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"])


def kept(output: Any) -> Any:
    """An output without what differs from run to run: places in memory."""
    text = json.dumps(output)
    return type(output)(json.loads(re.sub(r" at 0x[0-9a-f]+", "", text)))


if __name__ == "__main__":
    main()
