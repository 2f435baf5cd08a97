"""One line over all runs, on a terminal and elsewhere."""

import io

import pytest

from mechproc.cli import progress
from mechproc.cli.progress import RunLines, clock
from mechproc.runs.executors import Event
from mechproc.studies.set_to_haystack import donor


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def events(tiny) -> list[Event]:
    run = donor(0, tiny)
    return [
        Event("step", run, 0, 0, 2, None, step=1),
        Event("step", run, 0, 0, 2, 3725.0, step=2),
        Event("failed", run, 0, 1, 2, 60.0, "loss is nan"),
        Event("done", run, 1, 1, 2, 0.0),
    ]


def test_a_log_gets_a_line_now_and_then_and_at_the_end(events, monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    now, out = [0.0], io.StringIO()
    lines = RunLines(out)
    for event in events:
        now[0] += 3.0
        lines(event)
    assert out.getvalue().splitlines() == [
        "  0 of 2 trainings done after 0:06, about 1:02:05 left",
        f"  {events[0].run.name} failed: loss is nan",
        "  1 of 2 trainings done, 1 failed after 0:12, about 0:00 left",
    ]


def test_a_terminal_gets_one_line_that_is_rewritten(events):
    out = Terminal()
    lines = RunLines(out)
    for event in events:
        lines(event)
    texts = out.getvalue().split("\n")
    assert [text.split("\r")[-1].split(" after")[0].rstrip() for text in texts] == [
        f"  {events[0].run.name} failed: loss is nan",
        "  1 of 2 trainings done, 1 failed",
        "",
    ]
    assert [text.count("\r") for text in texts] == [2, 1, 0]  # the last line of each is written over those before it
    widths = [len(text.rstrip()) for text in texts[0].split("\r")]
    assert len(texts[0].split("\r")[-1]) >= max(widths[:-1])  # nothing of a longer line is left


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (125.9, "2:05"), (3600, "1:00:00")])
def test_clock(seconds: float, text: str):
    assert clock(seconds) == text
