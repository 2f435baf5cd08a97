"""Many runs of one shape at a time on one device, stacked."""

from __future__ import annotations

import contextlib
import time

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
from mechproc.training.rounds import Ended, Rounds
from mechproc.training.shared_data import shared_sources

LABEL = "population"
"""The engine of such a run in its provenance, whoever else was in its population."""


class Populations:
    """An ``Executor`` that trains up to ``size`` runs at a time on ``device``, as a population.

    Runs of one population have model and training settings in common. The first run in order whose donors are complete,
    and before it the first that others wait for, says which; others like it join, also later, in a place that became
    free. Each run has its own folder, resume point and record, and fails alone. On an interruption every run saves its
    resume point.

    Errors: ``ConfigError`` when the device is not there.
    """

    def __init__(self, size: int = 64, device: str = "cuda") -> None:
        require(size >= 1, "size", size, "at least 1")
        self.size, self.device = size, checked_device(device)

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
        """Train ``first`` and those like it, until there are none or an interruption comes."""
        population = Population(first.model, first.training, self.device)
        sources, shape, waiting = shared_sources(), _shape(first), first
        members: dict[str, RunConfig] = {}

        def settle(ended: Ended[str] | None) -> None:
            """Tell the queue how a run ended; one that was interrupted is left to whoever goes on."""
            if ended is not None and ended.error is None:
                queue.settle(members.pop(ended.key), Outcome("done"))
            elif ended is not None and isinstance(ended.error, Exception):
                queue.settle(members.pop(ended.key), failed_with(ended.error))

        with Rounds[str](population) as rounds:

            def course(run: RunConfig) -> Course[None]:
                progress = Throttled(lambda step, loss: queue.step(run, step, loss), STEP_EVENTS_S * self.size)
                interrupts = lambda: contextlib.nullcontext(interrupted)  # noqa: E731
                return execution(
                    run, store, population.member, LABEL, self.device, progress, interrupts=interrupts, sources=sources
                )

            while True:
                while len(rounds) < self.size and interrupted() is None:
                    if (run := waiting or queue.take(lambda run: _shape(run) == shape)) is None:
                        break
                    waiting, members[run.identity] = None, run
                    settle(rounds.begin(run.identity, course(run)))
                if not len(rounds):
                    return
                for ended in rounds.round():
                    settle(ended)


def _shape(run: RunConfig) -> str:
    """What the runs of one population have in common."""
    return digest([run.model.to_dict(), run.training.to_dict()])
