"""Ways to get runs done. Both give the same bits: a run is trained on one thread in either."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from mechproc.errors import MechprocError, require
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.store import Store

Done = Callable[[RunConfig, int, int], None]
"""Told after each run: the run, how many are done, how many there are."""


def run_all(runs: list[RunConfig], store: Store, workers: int | None = None, done: Done | None = None) -> None:
    """Complete ``runs`` in ``store``, with the runs they need; those that are complete already are left alone.

    ``workers`` processes (by default one for each core this process may use) stay alive from the first run to the
    last; with 1 everything happens in this process. A run that fails stops the rest; what was complete stays.
    """
    workers = usable_cores() if workers is None else workers
    require(workers >= 1, "workers", workers, "at least 1")
    missing = store.missing(runs)
    if workers == 1 or len(missing) <= 1:
        with one_thread():
            for count, run in enumerate(missing, 1):
                execute(run, store)
                if done:
                    done(run, count, len(missing))
    else:
        _in_processes(missing, store, min(workers, len(missing)), done)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class one_thread:  # noqa: N801  (reads as a statement: with one_thread():)
    """Within it torch uses one thread, as every worker does: the number of threads can change bits."""

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self.before)


def _in_processes(missing: list[RunConfig], store: Store, workers: int, done: Done | None) -> None:
    waiting = {run.identity: run for run in missing}
    needs = {run.identity: {r.identity for r in run.with_donors()[:-1]} & waiting.keys() for run in missing}
    running: dict[Future[None], RunConfig] = {}
    finished: set[str] = set()
    # Fresh interpreters: a fork would copy the threads' locks of this one.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        while waiting or running:
            # no more than there are workers: what waits inside the pool could not be called back on Ctrl-C
            ready = [identity for identity in waiting if needs[identity] <= finished]
            for identity in ready[: workers - len(running)]:
                run = waiting.pop(identity)
                running[pool.submit(execute, run, store)] = run
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                future.result()
                finished.add(run.identity)
                if done:
                    done(run, len(finished), len(missing))
    except BrokenProcessPool as error:
        raise MechprocError(
            "a worker process died (out of memory?); complete runs are kept, the same call goes on"
        ) from error
    except BaseException:
        _interrupt(pool, running)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)


def _interrupt(pool: ProcessPoolExecutor, running: Iterable[Future[None]]) -> None:
    """Let the workers write their resume points and stop.

    A terminal sends Ctrl-C to them too; whoever still trains after a moment was not told, and is told here.
    """
    processes = list(getattr(pool, "_processes", None) or {})
    if wait(running, timeout=1.0).not_done:
        for process in processes:
            os.kill(process, signal.SIGINT)
