"""Several runs at a time, each in a process of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mechproc.errors import MechprocError
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import Queue
from mechproc.runs.executors.serial import attempt
from mechproc.runs.store import Store

GUARD = (
    "the worker processes could not start: a script has to call this under `if __name__ == '__main__':`, because each "
    "worker imports the script; or use workers=1"
)


class Processes:
    """An ``Executor`` with ``workers`` processes that stay alive from the first run to the last.

    A process that dies, killed or out of memory, takes its pool with it: a new pool goes on, each run that was in
    training from its resume point. A run that was in training twice when processes died has failed.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, queue: Queue, store: Store, wait: bool) -> None:
        deaths: dict[str, int] = {}
        while queue.waiting:
            for run in self._until_a_process_dies(queue, store, wait):
                deaths[run.identity] = deaths.get(run.identity, 0) + 1
                if deaths[run.identity] < 2:
                    queue.put_back(run)
                else:
                    error = "its process died twice (killed, or out of memory)"
                    store.folder(run).write_failure(error)
                    queue.finish(run, error)

    def _until_a_process_dies(self, queue: Queue, store: Store, wait_for_others: bool) -> list[RunConfig]:
        """Run until the queue is empty, or a process has died: the runs that were in training then."""
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of this process
        started = context.Event()
        running: dict[Future[str | None], RunConfig] = {}
        pool = ProcessPoolExecutor(self.workers, context, initializer=_start_worker, initargs=(started,))
        try:
            while True:
                # no more than there are workers: what waits inside the pool could not be called back on Ctrl-C
                while len(running) < self.workers and (run := queue.take()) is not None:
                    running[pool.submit(attempt, run, store, wait_for_others)] = run
                if not running:
                    return []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    error = future.result()
                    queue.finish(running.pop(future), error)
        except BrokenProcessPool:
            if not started.is_set():
                raise MechprocError(GUARD) from None
            return list(running.values())
        except BaseException:
            _interrupt(pool, running)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(started: Any) -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    started.set()


def _interrupt(pool: ProcessPoolExecutor, running: Iterable[Future[str | None]]) -> None:
    """Let the workers write their resume points and stop.

    A terminal sends Ctrl-C to them too; whoever still trains after a moment was not told, and is told here.
    """
    processes = list(getattr(pool, "_processes", None) or {})
    if wait(running, timeout=1.0).not_done:
        for process in processes:
            os.kill(process, signal.SIGINT)
