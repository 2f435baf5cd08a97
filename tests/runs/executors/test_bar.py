"""The bar over all trainings of a call."""

import io
import sys

from mechproc.progress import bar
from mechproc.runs.executors import bar as bar_file
from mechproc.runs.executors import run_all
from mechproc.runs.executors.bar import training_bar
from mechproc.runs.executors.queue import Event
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import transfer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_trainings_draw_a_bar_on_a_terminal_unless_something_else_is_told(tiny, store: Store, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    run = transfer("random", 0, tiny)
    run_all([run], store, workers=1)
    assert "training" in screen.getvalue() and " of 1 models" in screen.getvalue()
    run_all([run], store, workers=1)  # nothing is left to do
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    run_all([transfer("random", 1, tiny)], store, workers=1, report=lambda event: None)
    assert screen.getvalue() == ""


def test_updates_are_counted_once(tiny, monkeypatch):
    """A run that ends early or fails counts as a whole; one that is started again goes on from where it was."""
    bars = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(bar_file, "bar", lambda *args: bars.append(bar(*args)) or bars[0])
    first, second = (transfer("random", seed, tiny) for seed in (0, 1))
    steps = first.training.last_step
    with training_bar([first, second]) as report:
        (drawn,) = bars
        for kind, run, step in [("started", first, 0), ("step", first, 3), ("retried", first, 0), ("step", first, 4)]:
            report(Event(kind, run, 0, 0, 2, None, step=step))
        assert drawn.n == 4
        report(Event("done", first, 1, 0, 2, None))
        assert drawn.n == steps
        report(Event("failed", second, 1, 1, 2, None))
        assert drawn.n == 2 * steps
