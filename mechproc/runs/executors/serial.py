"""One run after the other, in this process."""

from __future__ import annotations

import time

from mechproc.errors import MechprocError
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.executors import Queue
from mechproc.runs.store import RunBusyError, Store
from mechproc.threads import one_thread

POLL_S = 1.0
"""Seconds between two looks at a run that another process is writing."""


def serial(queue: Queue, store: Store, wait: bool) -> None:
    """An ``Executor``."""
    with one_thread():
        while (run := queue.take()) is not None:
            queue.finish(run, attempt(run, store, wait))


def attempt(run: RunConfig, store: Store, wait: bool) -> str | None:
    """Train one run, and wait for another process that trains it if ``wait``; the error if it fails, in one line.

    The error is kept in the run's folder, too. What is no ``MechprocError`` is a fault of the code, and kept like one.
    """
    while True:
        try:
            execute(run, store)
            return None
        except RunBusyError as error:
            if not wait:
                return str(error)
            time.sleep(POLL_S)
        except Exception as error:
            text = str(error) if isinstance(error, MechprocError) else f"{type(error).__name__}: {error}"
            store.folder(run).write_failure(text)
            return text
