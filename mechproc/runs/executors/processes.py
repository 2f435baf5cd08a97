"""Several runs at a time, each in a process of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from multiprocessing.connection import Connection, wait

from mechproc.errors import MechprocError
from mechproc.runs.config import RunConfig
from mechproc.runs.executors.queue import BUSY_S, Outcome, Queue
from mechproc.runs.executors.serial import attempt
from mechproc.runs.store import Store

UNGUARDED = 78
"""Exit status of a worker that was about to start workers of its own while it imported the main program."""
STOP_S = 60.0
"""Seconds that interrupted workers have to save their resume points."""


class Processes:
    """An ``Executor`` with ``workers`` processes that stay alive from their first run to the last.

    One that is killed is replaced, and its run goes on from its resume point. When this process is interrupted, the
    workers save their resume points and stop; when it is killed, they notice and do the same.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, queue: Queue, store: Store) -> None:
        pool: list[_Worker] = []
        try:
            while not queue.finished:
                self._hand_out(queue, store, pool)
                _listen(queue, pool)
        except BaseException:
            _interrupt(pool)
            raise
        finally:
            for worker in pool:
                worker.connection.close()  # an idle worker ends at that
            for worker in pool:
                worker.process.join(STOP_S)

    def _hand_out(self, queue: Queue, store: Store, pool: list[_Worker]) -> None:
        """Give a run to every idle worker, and start workers while there are more runs."""
        while True:
            worker = next((worker for worker in pool if worker.run is None), None)
            if worker is None and len(pool) >= self.workers:
                return
            run = queue.take()
            if run is None:
                return
            if worker is None:
                worker = _Worker(store)
                pool.append(worker)
            worker.run = run
            with contextlib.suppress(OSError):  # it has died: ``_listen`` finds out
                worker.connection.send(run)


class _Worker:
    """A worker process, as its parent sees it."""

    def __init__(self, store: Store) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of this process
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, store), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.run: RunConfig | None = None


def _listen(queue: Queue, pool: list[_Worker]) -> None:
    """Wait until a worker reports, or for the time after which busy runs are tried again."""
    if not pool:
        return time.sleep(BUSY_S)
    reporting = wait([worker.connection for worker in pool], timeout=BUSY_S)
    for worker in [worker for worker in pool if worker.connection in reporting]:
        message = None
        with contextlib.suppress(EOFError, OSError):
            message = worker.connection.recv()
        if message is None:
            pool.remove(worker)
            _died(queue, worker)
        elif worker.run is None or not worker.ready:
            worker.ready = True
        elif isinstance(message, Outcome):
            run, worker.run = worker.run, None
            queue.settle(run, message)
        else:
            queue.step(worker.run, *message)


def _died(queue: Queue, worker: _Worker) -> None:
    worker.process.join(STOP_S)
    status = worker.process.exitcode
    if status == UNGUARDED:
        raise MechprocError(
            "the program starts worker processes whenever it is imported, and each worker imports it: put what it does "
            'under `if __name__ == "__main__":`, or use workers=1'
        )
    if not worker.ready and status is not None and status >= 0:
        raise MechprocError(
            f"a worker process could not start (exit status {status}): each imports the main program, which must be a "
            'file and do its work under `if __name__ == "__main__":`; or use workers=1'
        )
    if worker.run is not None:
        how = f"by signal {-status}" if status is not None and status < 0 else f"with exit status {status}"
        queue.settle(worker.run, Outcome("killed", f"its worker process ended {how}"))


def _work(connection: Connection, store: Store) -> None:
    """What a worker does: runs, one after the other, until its parent closes the connection or it is interrupted."""
    import torch

    def report(step: int, loss: float) -> None:
        try:
            connection.send((step, loss))
        except OSError:  # the parent was killed: the training saves its resume point and ends
            signal.raise_signal(signal.SIGTERM)

    torch.set_num_threads(1)
    try:
        connection.send("ready")
        while True:
            connection.send(attempt(connection.recv(), store, report))
    except (EOFError, OSError, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while it ends would print a traceback


def _interrupt(pool: list[_Worker]) -> None:
    """Let the workers write their resume points and stop.

    A terminal sends Ctrl-C to them too; whoever still trains after a moment was not told, and is told here. SIGTERM
    reaches those that ignore Ctrl-C, as background jobs do.
    """
    deadline = time.monotonic() + 1.0
    for worker in pool:
        if worker.run is not None:
            worker.process.join(max(0.0, deadline - time.monotonic()))
    for worker in pool:
        worker.process.terminate()
