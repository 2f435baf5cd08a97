"""Ways to get many runs done. Each gives the same bits, because a run is trained on one thread in all of them.

``run_all`` takes runs in any order and gives each to an executor when its donors are complete. A run that fails is
recorded with its error, and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from mechproc.errors import first_line, require
from mechproc.runs.config import RunConfig
from mechproc.runs.executors.bar import training_bar
from mechproc.runs.executors.processes import UNGUARDED, Processes
from mechproc.runs.executors.queue import Event, Queue, Report, RunsFailedError
from mechproc.runs.executors.serial import serial
from mechproc.runs.store import Store
from mechproc.threads import usable_cores

__all__ = ["Event", "Executor", "Processes", "Queue", "Report", "RunsFailedError", "run_all", "serial"]

MOST_WORKERS = 1_000
"""Processes of one machine."""


class Executor(Protocol):
    """Gets the runs of a queue done."""

    def __call__(self, queue: Queue, store: Store) -> None:
        """Take runs until the queue is finished, and settle each there. Errors of one run stop no other."""
        ...


def run_all(
    runs: Iterable[RunConfig],
    store: Store,
    workers: int | None = None,
    report: Report | None = None,
    *,
    wait: bool = True,
    weights: bool = False,
    on_failure: Literal["continue", "stop"] = "continue",
    executor: Executor | None = None,
) -> None:
    """Get the scores of ``runs`` and of the runs that they need into ``store``; those that are there are left alone.

    ``workers`` processes (by default one for each core this process may use) stay alive from the first run to the
    last; with 1 everything happens in this process. With ``weights``, runs of which only a record exists are trained
    again. With ``wait``, a run that another process is writing is waited for while others are trained; without, it
    fails. ``executor`` takes the place of ``workers``. Ctrl-C and SIGTERM let the trainings write their resume points.
    ``report`` hears of every step; without one, a bar is drawn where somebody watches (``mechproc.progress``).

    A run that fails is recorded in its folder. The others go on, or with ``on_failure="stop"`` none is begun after it.
    Raises ``RunsFailedError`` at the end when some runs failed.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)  # a worker that imports a script without a guard: its parent says what to do
    workers = usable_cores() if workers is None else workers
    require(1 <= workers <= MOST_WORKERS, "workers", workers, f"1 to {MOST_WORKERS:,}")
    runs = list(runs)
    store.record_complete(runs)
    missing = store.missing(runs, weights)
    if executor is None:
        executor = serial if min(workers, len(missing)) <= 1 else Processes(min(workers, len(missing)))
    if missing:
        store.stay_here()
    with _sigterm_ends_this(), contextlib.nullcontext(report) if report else training_bar(missing) as heard:
        queue = Queue(missing, store, heard, wait, on_failure)
        executor(queue, store)
    if queue.failures:
        listed = "\n".join(f"  {name}: {first_line(Exception(error))}" for name, error in queue.failures.items())
        others = "the others are complete" if on_failure == "continue" else "those before them are complete"
        raise RunsFailedError(f"{len(queue.failures)} of {queue.n_total} runs failed; {others}:\n{listed}")


@contextlib.contextmanager
def _sigterm_ends_this() -> Iterator[None]:
    """Within, SIGTERM raises ``SystemExit(143)`` in the main thread, so that workers are told to stop."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    end.ends_trainings = True  # type: ignore[attr-defined]  (a training in this process saves its resume point first)
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
