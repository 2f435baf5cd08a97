"""How many seconds the missing runs will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from mechproc.config import digest
from mechproc.runs.config import RunConfig

Clock = Callable[[], float]


class Remaining:
    """Estimates the time left from the updates that the workers report.

    Runs of one procedure, model and batch size are of one kind. A run of a kind of which some have ended takes their
    mean time, which counts tests and early stops; else its updates take as long as those made so far of its kind; else,
    as those of the other kinds on average.
    """

    def __init__(self, runs: Iterable[RunConfig], clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self._left = {run.identity: run for run in runs}
        self._kinds = {identity: _kind(run) for identity, run in self._left.items()}
        self._started: dict[str, tuple[float, int]] = {}
        """When the first step of a run in progress was reported, and which."""
        self._progress: dict[str, tuple[float, int]] = {}
        """The last report of a run in progress."""
        self._ended: dict[str, list[float]] = {}
        """Seconds of the ended runs by kind."""
        self._per_step: dict[str, float] = {}
        """Seconds of an update by kind, as last measured."""

    def step(self, run: RunConfig, step: int) -> None:
        """``run`` has made ``step`` updates."""
        now, identity = self.clock(), run.identity
        since, first = self._started.setdefault(identity, (now, step))
        self._progress[identity] = now, step
        if step > first:
            self._per_step[self._kinds[identity]] = (now - since) / (step - first)

    def ended(self, run: RunConfig) -> None:
        """``run`` is complete, or has failed."""
        identity = run.identity
        self._left.pop(identity, None)
        started = self._started.pop(identity, None)
        self._progress.pop(identity, None)
        if started is not None and started[1] * 10 < run.training.last_step:  # not one that was resumed near its end
            self._ended.setdefault(self._kinds[identity], []).append(self.clock() - started[0])

    def seconds(self, n_workers: int) -> float | None:
        """Seconds until all have ended with ``n_workers`` at work; None when no update has been timed."""
        each = [self._seconds_of(identity, run) for identity, run in self._left.items()]
        if not each:
            return 0.0
        known = [seconds for seconds in each if seconds is not None]
        if len(known) < len(each):
            return None
        return max(max(known), sum(known) / max(n_workers, 1))

    def _seconds_of(self, identity: str, run: RunConfig) -> float | None:
        kind = self._kinds[identity]
        now, step = self._progress.get(identity, (self.clock(), 0))
        if kind in self._ended:
            whole = sum(self._ended[kind]) / len(self._ended[kind])
            return max(0.0, whole * (1 - step / run.training.last_step) - (self.clock() - now))
        per_step = self._per_step.get(kind)
        if per_step is None and self._per_step:
            per_step = sum(self._per_step.values()) / len(self._per_step)
        return None if per_step is None else per_step * (run.training.last_step - step)


def _kind(run: RunConfig) -> str:
    return digest([run.procedure.to_dict(), run.model.to_dict(), run.training.batch_size])
