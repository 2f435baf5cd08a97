"""Ways to get many runs done. Each gives the same bits, because a run is trained on one thread in all of them.

``run_all`` takes runs in any order and gives each to an executor when its donors are complete. A run that fails is
recorded with its error, and the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from mechproc.errors import MechprocError, first_line, require
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.threads import usable_cores


@dataclasses.dataclass(frozen=True)
class Event:
    """The end of one run among many."""

    run: RunConfig
    error: str | None
    """Why the run failed; ``None`` when it is complete."""
    n_done: int
    n_failed: int
    n_total: int
    share: float
    """The share of all work that is done or failed, 0 to 1, by updates x items x positions."""


Report = Callable[[Event], None]


class RunsFailedError(MechprocError):
    """Some runs of many failed; the others are complete. The message names each with its error."""


class Queue:
    """Runs that wait for their donors, and what became of the others. Executors take from it and report to it."""

    def __init__(self, runs: Iterable[RunConfig], report: Report | None = None) -> None:
        self.waiting = {run.identity: run for run in runs}
        self.failures: dict[str, tuple[RunConfig, str]] = {}
        self.n_total, self.n_done = len(self.waiting), 0
        self._needs = {identity: _donors(run) & self.waiting.keys() for identity, run in self.waiting.items()}
        self._work = {identity: _work(run) for identity, run in self.waiting.items()}
        self._unfinished = dict(self.waiting)
        self._report = report

    def take(self) -> RunConfig | None:
        """The next run whose donors are complete; ``None`` when there is none at this moment."""
        for identity in self.waiting:
            if not self._needs[identity] & self._unfinished.keys():
                return self.waiting.pop(identity)
        return None

    def finish(self, run: RunConfig, error: str | None = None) -> None:
        """Say that a run that was taken is complete, or why it failed; runs that need it fail with it."""
        del self._unfinished[run.identity]
        if error is None:
            self.n_done += 1
        else:
            self.failures[run.identity] = (run, error)
        if self._report:
            left = sum(self._work[identity] for identity in self._unfinished)
            share = 1 - left / sum(self._work.values())
            self._report(Event(run, error, self.n_done, len(self.failures), self.n_total, share))
        if error is not None:
            for other in [r for i, r in self.waiting.items() if run.identity in self._needs[i]]:
                del self.waiting[other.identity]
                self.finish(other, f"its donor {run.name} failed")

    def put_back(self, run: RunConfig) -> None:
        """Return a run that was taken and not finished; it is the next one to be taken."""
        self.waiting = {run.identity: run, **self.waiting}


class Executor(Protocol):
    """Gets the runs of a queue done."""

    def __call__(self, queue: Queue, store: Store, wait: bool) -> None:
        """Take runs until the queue is empty, and report each one's end to it. Errors of one run stop no other.

        With ``wait``, a run that another process is writing is waited for; without, it fails.
        """
        ...


def run_all(
    runs: Iterable[RunConfig],
    store: Store,
    workers: int | None = None,
    report: Report | None = None,
    *,
    wait: bool = True,
    weights: bool = False,
    executor: Executor | None = None,
) -> None:
    """Get the scores of ``runs`` and of the runs that they need into ``store``; those that are there are left alone.

    ``workers`` processes (by default one for each core this process may use) stay alive from the first run to the
    last; with 1 everything happens in this process. With ``weights``, runs of which only a record exists are trained
    again. ``executor`` takes the place of both. Ctrl-C and SIGTERM let the trainings write their resume points.

    Raises ``RunsFailedError`` at the end when some runs failed.
    """
    from mechproc.runs.executors.processes import Processes
    from mechproc.runs.executors.serial import serial

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a script without a guard, imported by a worker: the parent process says what to do
    workers = usable_cores() if workers is None else workers
    require(workers >= 1, "workers", workers, "at least 1")
    runs = list(runs)
    store.record_complete(runs)
    queue = Queue(store.missing(runs, weights), report)
    if executor is None:
        executor = serial if min(workers, queue.n_total) <= 1 else Processes(min(workers, queue.n_total))
    with _sigterm_ends_this():
        executor(queue, store, wait)
    if queue.failures:
        listed = "\n".join(f"  {run.name}: {first_line(Exception(error))}" for run, error in queue.failures.values())
        n_failed = len(queue.failures)
        raise RunsFailedError(f"{n_failed} of {queue.n_total} runs failed; the others are complete:\n{listed}")


def _donors(run: RunConfig) -> set[str]:
    return {needed.identity for needed in run.with_donors()[:-1]}


def _work(run: RunConfig) -> float:
    return run.training.last_step * run.training.batch_size * run.model.n_ctx


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
