"""One run after the other, in this process."""

from __future__ import annotations

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
        execute(run, store, None if on_step is None else _Throttled(on_step), device=device, start_over=start_over)
    except RunBusyError as error:
        return Outcome("busy", str(error))
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, MechprocError):
            return Outcome("failed", text)
        return Outcome("failed", f"{type(error).__name__}: {text}", traceback.format_exc())
    return Outcome("done")


class _Throttled:
    """A training's ``Progress`` that passes step and loss on, at its first step, then twice a second at most."""

    def __init__(self, on_step: Callable[[int, float], None]) -> None:
        self.on_step = on_step
        self.reported = -STEP_EVENTS_S

    def __call__(self, step: int, steps: int, loss: float, eta_s: float) -> None:
        now = time.monotonic()
        if now - self.reported >= STEP_EVENTS_S or step == steps:
            self.reported = now
            self.on_step(step, loss)
