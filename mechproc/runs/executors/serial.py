"""One run after the other, in this process."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable

from mechproc.errors import MechprocError
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.executors.queue import BUSY_S, Outcome, Queue
from mechproc.runs.store import RunBusyError, Store
from mechproc.threads import one_thread

STEP_EVENTS_S = 0.5
"""Least seconds between two reports of one run's progress."""


def serial(queue: Queue, store: Store) -> None:
    """An ``Executor``."""
    with one_thread():
        while not queue.finished:
            run = queue.take()
            if run is None:  # every run that is left is being written by another process
                time.sleep(BUSY_S)
                continue
            queue.settle(run, attempt(run, store, lambda step, loss, run=run: queue.step(run, step, loss)))


def attempt(
    run: RunConfig,
    store: Store,
    on_step: Callable[[int, float], None] | None = None,
    device: str = "cpu",
    start_over: bool = False,
) -> Outcome:
    """Train one run and say how that ended.

    ``on_step`` is given updates and loss, twice a second at most; ``device`` and ``start_over`` are those of
    ``execute``. What is no ``MechprocError`` is an error in the code, whose traceback is kept.
    """
    try:
        execute(run, store, None if on_step is None else Throttled(on_step), device=device, start_over=start_over)
    except Exception as error:
        return failed_with(error)
    return Outcome("done")


def failed_with(error: Exception) -> Outcome:
    """The outcome of an attempt that ended with ``error``: busy, or failed."""
    text = " ".join(str(error).split())
    if isinstance(error, RunBusyError):
        return Outcome("busy", text)
    if isinstance(error, MechprocError):
        return Outcome("failed", text)
    return Outcome("failed", f"{type(error).__name__}: {text}", "".join(traceback.format_exception(error)))


class Throttled:
    """A training's ``Progress`` that passes step and loss on, at its first step, then every ``every_s`` at most."""

    def __init__(self, on_step: Callable[[int, float], None], every_s: float = STEP_EVENTS_S) -> None:
        self.on_step, self.every_s = on_step, every_s
        self.reported = -math.inf

    def __call__(self, step: int, steps: int, loss: float, eta_s: float) -> None:
        now = time.monotonic()
        if now - self.reported >= self.every_s or step == steps:
            self.reported = now
            self.on_step(step, loss)
