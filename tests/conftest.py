"""What tests of several folders share."""

import re
import signal
from pathlib import Path

import pytest

from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import Sizes


@pytest.fixture(scope="session")
def tiny() -> Sizes:
    return Sizes(
        d_model=8,
        n_heads=2,
        n_symbols=8,
        longest_list=4,
        n_keys=4,
        n_values=8,
        most_pairs=3,
        donor_steps=4,
        task_steps=12,
        batch_size=4,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(scope="session")
def own_procedure() -> str:
    """The source of the procedure that the documentation defines."""
    readme = (Path(__file__).parents[1] / "docs" / "procedure.md").read_text()
    (source,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "class Last(" in code]
    return source


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """Shells start background jobs with SIGINT ignored; tests of Ctrl-C need Python's own handler everywhere."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
