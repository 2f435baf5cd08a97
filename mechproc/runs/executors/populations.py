"""Many runs of one shape at a time on one device, stacked."""

from __future__ import annotations

import contextlib
import time

import torch

from mechproc.config import digest
from mechproc.errors import require
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execution
from mechproc.runs.executors.queue import BUSY_S, Outcome, Queue
from mechproc.runs.executors.serial import STEP_EVENTS_S, Throttled, failed_with
from mechproc.runs.store import Store
from mechproc.threads import one_thread
from mechproc.training.engines import checked_device
from mechproc.training.engines.population import Population
from mechproc.training.interruptions import Interrupted, interrupt_deferred
from mechproc.training.loop import Course
from mechproc.training.optimizer import VERSION
from mechproc.training.rounds import Ended, Rounds
from mechproc.training.shared_data import shared_sources

LABEL = f"population, optimizer {VERSION}"
"""The engine of such a run in its provenance, whoever else was in its population."""

MOST_MEMBERS = 10_000
"""Of one population."""


class Populations:
    """An ``Executor`` that trains up to ``size`` runs at a time on ``device``, as a population.

    Runs of one population have model and training settings in common. The first run in order whose donors are complete,
    and before it the first that others wait for, says which; others like it join, also later, in a place that became
    free. Each run has its own folder, resume point and record, and fails alone. On an interruption every run saves its
    resume point. So it does when the memory of the device is full, and those of its shape go on half as many at a time.

    Errors: ``ConfigError`` when the device is not there.
    """

    def __init__(self, size: int = 64, device: str = "cuda") -> None:
        require(1 <= size <= MOST_MEMBERS, "size", size, f"1 to {MOST_MEMBERS:,}")
        self.size, self.device = size, checked_device(device)
        self._fitting: dict[str, int] = {}
        """The size that is left to runs of a shape after the memory was full."""

    def __call__(self, queue: Queue, store: Store) -> None:
        with one_thread(), interrupt_deferred() as interrupted:
            while not queue.finished and interrupted() is None:
                needed = queue.needed  # donors first, so that all who wait for them can be trained together
                run = queue.take(lambda run: run.identity in needed) or queue.take()  # noqa: B023  (called at once)
                if run is None:  # every run that is left is being written by another process
                    time.sleep(BUSY_S)
                else:
                    self._train(run, queue, store, interrupted)

    def _train(self, first: RunConfig, queue: Queue, store: Store, interrupted: Interrupted) -> None:
        """Train ``first`` and those like it, until there are none, an interruption comes, or the memory is full."""
        population = Population(first.model, first.training, self.device)
        members: dict[str, RunConfig] = {}
        with Rounds[str](population) as rounds:
            try:
                self._train_all(rounds, members, first, queue, store, interrupted)
                return
            except torch.OutOfMemoryError:
                pass  # its traceback holds the tensors that filled the memory, until here
            rounds.suspend()
        self._put_back(list(members.values()), queue)

    def _train_all(
        self,
        rounds: Rounds[str],
        members: dict[str, RunConfig],
        first: RunConfig,
        queue: Queue,
        store: Store,
        interrupted: Interrupted,
    ) -> None:
        """Keep the population full; ``members`` has those that are in training, by the keys of ``rounds``."""
        sources, shape, waiting = shared_sources(), _shape(first), first
        size, full = self._fitting.get(shape, self.size), []

        def settle(ended: Ended[str] | None) -> None:
            """Tell the queue how a run ended; one that was interrupted is left to whoever goes on."""
            if ended is not None and ended.error is None:
                queue.settle(members.pop(ended.key), Outcome("done"))
            elif ended is not None and isinstance(ended.error, torch.OutOfMemoryError):
                full.append(str(ended.error))
            elif ended is not None and isinstance(ended.error, Exception):
                queue.settle(members.pop(ended.key), failed_with(ended.error))

        def course(run: RunConfig) -> Course[None]:
            progress = Throttled(lambda step, loss: queue.step(run, step, loss), STEP_EVENTS_S * size)
            interrupts = lambda: contextlib.nullcontext(interrupted)  # noqa: E731
            member = rounds.population.member
            return execution(run, store, member, LABEL, self.device, progress, interrupts=interrupts, sources=sources)

        while True:
            while len(rounds) < size and interrupted() is None and not full:
                if (run := waiting or queue.take(lambda run: _shape(run) == shape)) is None:
                    break
                waiting, members[run.identity] = None, run
                settle(rounds.begin(run.identity, course(run)))
            if not full and not len(rounds):
                return
            if not full:
                for ended in rounds.round():
                    settle(ended)
            if full:
                raise torch.OutOfMemoryError(full[0])

    def _put_back(self, runs: list[RunConfig], queue: Queue) -> None:
        """Let runs that did not fit the memory together go on in smaller populations; one that did not alone, fails."""
        n, where = len(runs), f"the memory of {self.device}"
        if n == 1:
            queue.settle(runs[0], Outcome("failed", f"one training by itself does not fit into {where}"))
            return
        half = self._fitting[_shape(runs[0])] = n // 2
        full = (
            f"{n} trainings at one time do not fit into {where}: all go on from their resume points, {half} at a time"
        )
        for run in reversed(runs):
            queue.put_back(run, full if run is runs[0] else "")


def _shape(run: RunConfig) -> str:
    """What the runs of one population have in common."""
    return digest([run.model.to_dict(), run.training.to_dict()])
