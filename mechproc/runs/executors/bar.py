"""One bar over the updates of all trainings of a call, in a notebook or on a terminal; in a log a line a minute."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from mechproc.progress import bar
from mechproc.runs.config import RunConfig
from mechproc.runs.executors.queue import Event, Report


@contextlib.contextmanager
def training_bar(runs: Iterable[RunConfig]) -> Iterator[Report | None]:
    """A ``Report`` that moves a bar over the updates of ``runs``; ``None`` where nothing is left."""
    updates = {run.identity: run.training.last_step for run in runs}
    if not updates:
        yield None
        return
    made = dict.fromkeys(updates, 0)
    with bar(sum(updates.values()), "training", "update") as drawn:

        def report(event: Event) -> None:
            run = event.run.identity
            at = event.step if event.kind == "step" else updates[run] if event.kind in ("done", "failed") else made[run]
            drawn.set_postfix_str(f"{event.n_done} of {event.n_total} models", refresh=False)
            drawn.update(at - made[run])
            made[run] = at

        yield report
