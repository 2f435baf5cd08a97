"""Bars are drawn for who watches, on a terminal and in a notebook; elsewhere long calls say a line a minute."""

import io
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mechproc import progress as progress_file
from mechproc.progress import bar, is_watched, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "drawn"), [(io.StringIO(), False), (Terminal(), True)])
def test_a_bar_is_drawn_on_a_terminal_and_not_in_a_log(monkeypatch, stream, drawn):
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(3), "ablation")) == [0, 1, 2]
    assert ("ablation" in stream.getvalue()) is drawn


def seconds(monkeypatch, step: float) -> None:
    """The clock goes on by ``step`` each time it is read, from where no line has been said."""
    times = itertools.count(1000, step)
    monkeypatch.setattr(progress_file.time, "monotonic", lambda: float(next(times)))
    monkeypatch.setattr(progress_file.Lines, "said", 0.0)


def test_a_long_call_says_a_line_a_minute_in_a_log(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    seconds(monkeypatch, 25)
    assert list(progress(range(8), "ablation")) == [*range(8)]
    assert log.getvalue().splitlines() == [
        "  ablation: 3 of 8 models after 1:15, about 2:05 left",
        "  ablation: 6 of 8 models after 2:30, about 0:50 left",
    ]


def test_loops_inside_each_other_do_not_say_it_twice(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    seconds(monkeypatch, 31)
    for _ in progress(iter("ab"), "rules", unit="rule"):
        list(progress([1, 2], "probing"))
    assert log.getvalue().splitlines() == ["  probing: 2 of 2 models after 1:02", "  probing: 2 of 2 models after 1:02"]


def test_a_bar_that_nobody_watches_says_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    seconds(monkeypatch, 90)
    with bar(2000, "training", "update") as drawn:
        drawn.set_postfix_str("0 of 1 models", refresh=False)
        drawn.update(1500)
    assert log.getvalue() == "  training: 1,500 of 2,000 updates after 1:30, about 0:30 left, 0 of 1 models\n"


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
