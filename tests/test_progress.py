"""Bars are drawn for who watches: on a terminal and in a notebook, nowhere else."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mechproc.progress import is_watched, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "drawn"), [(io.StringIO(), False), (Terminal(), True)])
def test_a_bar_is_drawn_on_a_terminal_and_not_in_a_log(monkeypatch, stream, drawn):
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(3), "ablation")) == [0, 1, 2]
    assert ("ablation" in stream.getvalue()) is drawn


@pytest.mark.parametrize(("shell", "watched"), [(SimpleNamespace(kernel=1), True), (SimpleNamespace(), False)])
def test_a_notebook_watches_though_its_streams_are_no_terminal(monkeypatch, shell, watched):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert is_watched() is watched


def test_one_place_decides_who_sees_a_bar():
    """A bar of an analysis with a rule of its own would be silent in notebooks, or loud in logs."""
    root = Path(__file__).parents[1]
    files = [path for package in ("mechproc", "analyses") for path in (root / package).rglob("*.py")]
    assert [p.name for p in files if "import tqdm" in p.read_text(encoding="utf-8")] == ["progress.py"]
