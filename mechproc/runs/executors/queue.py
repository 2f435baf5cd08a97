"""Which run may start next, what became of those that did, and what is reported of them.

Every executor works through one ``Queue``, in the process that hands out the runs; workers know nothing of it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Literal

from mechproc.errors import MechprocError
from mechproc.runs.config import RunConfig
from mechproc.runs.executors.remaining import Remaining
from mechproc.runs.store import Store

BUSY_S = 1.0
"""Seconds after which a run that another process was writing is tried again."""
ATTEMPTS = 2
"""How often a run is started whose worker is killed."""
LOSSES = 20
"""How often a run is started whose machine is lost."""
LIMITS = {"killed": ATTEMPTS, "lost": LOSSES}
Kind = Literal["started", "step", "done", "failed", "waiting", "retried"]


@dataclasses.dataclass(frozen=True)
class Event:
    """What is reported of one run among many."""

    kind: Kind
    """``waiting``: another process is writing the run. ``retried``: its worker was killed, its machine lost or its
    device full, and it goes on from its resume point."""
    run: RunConfig
    n_done: int
    """Runs that are complete, of those that were missing."""
    n_failed: int
    n_total: int
    """Runs that were missing."""
    seconds_left: float | None
    """Estimated seconds until all have ended; ``None`` before an update has been timed."""
    message: str = ""
    """Why, for ``failed``, ``waiting`` and ``retried``."""
    step: int = 0
    """Updates that the run has made, for ``step``."""
    loss: float | None = None
    """Training loss of the last of them, nats."""


Report = Callable[[Event], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an attempt to train a run ended."""

    kind: Literal["done", "failed", "busy", "killed", "lost"]
    """``busy``: another process is writing the run. ``killed``: its worker ended without an answer. ``lost``: the whole
    machine did, or was taken away."""
    message: str = ""
    traceback: str = ""


class RunsFailedError(MechprocError):
    """Some runs of many failed; the others are complete. The message names each with its error."""


class Queue:
    """Runs that wait for their donors, and what became of the others. Executors take from it and report to it."""

    def __init__(
        self,
        runs: Iterable[RunConfig],
        store: Store,
        report: Report | None = None,
        wait: bool = True,
        on_failure: Literal["continue", "stop"] = "continue",
    ) -> None:
        self.waiting = {run.identity: run for run in runs}
        self.failures: dict[str, str] = {}
        """Errors by the name of the run."""
        self.n_total, self.n_done = len(self.waiting), 0
        self.store, self.report, self.wait, self.on_failure = store, report, wait, on_failure
        self._needs = {identity: _donors(run) & self.waiting.keys() for identity, run in self.waiting.items()}
        self._running: dict[str, RunConfig] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._busy_until: dict[str, float] = {}
        self._remaining = Remaining(self.waiting.values())
        self.n_workers: int | None = None
        """How many runs are trained at one time, where the executor takes more than it trains."""
        self._most_running = 0

    @property
    def finished(self) -> bool:
        """Whether every run has ended."""
        return not self.waiting and not self._running

    @property
    def n_ready(self) -> int:
        """How many runs can be taken at this moment."""
        return sum(map(self._is_ready, self.waiting))

    @property
    def needed(self) -> set[str]:
        """The identities of the runs that others wait for."""
        return set().union(*self._needs.values())

    def take(self, fits: Callable[[RunConfig], bool] = lambda run: True) -> RunConfig | None:
        """The next run that ``fits`` and whose donors are complete; ``None`` when there is none at this moment."""
        for identity, run in self.waiting.items():
            if self._is_ready(identity) and fits(run):
                del self.waiting[identity]
                self._running[identity] = run
                self._most_running = max(self._most_running, len(self._running))
                if identity not in self._busy_until:
                    self._tell("started", run)
                return run
        return None

    def put_back(self, run: RunConfig, message: str = "") -> None:
        """Let a run that was taken be the next to be taken; ``message`` says why one that was begun is retried."""
        del self._running[run.identity]
        self.waiting = {run.identity: run, **self.waiting}
        if message:
            self._tell("retried", run, message)

    def step(self, run: RunConfig, step: int, loss: float) -> None:
        """Say how many updates a run that was taken has made."""
        self._remaining.step(run, step)
        self._tell("step", run, step=step, loss=loss)

    def settle(self, run: RunConfig, outcome: Outcome) -> None:
        """Say how a run that was taken ended.

        A busy one is tried again later if ``wait``; one whose worker was killed or whose machine was lost at once, from
        its resume point. Runs that need one that failed fail with it.
        """
        del self._running[run.identity]
        if outcome.kind == "done":
            self._done(run)
        elif outcome.kind == "busy" and self.wait:
            first = run.identity not in self._busy_until
            self._busy_until[run.identity] = time.monotonic() + BUSY_S
            self.waiting[run.identity] = run
            if first:
                self._tell("waiting", run, outcome.message)
        elif outcome.kind in ("killed", "lost") and self._may_retry(run, outcome.kind):
            self.waiting = {run.identity: run, **self.waiting}
            self._tell("retried", run, outcome.message)
        else:
            message = outcome.message
            if outcome.kind in ("killed", "lost"):
                message += f", {LIMITS[outcome.kind]} times (out of memory?)"
            if outcome.kind != "busy":
                self.store.write_failure(run, message, outcome.traceback)
            self._failed(run, message)

    def _is_ready(self, identity: str) -> bool:
        return not self._needs[identity] and self._busy_until.get(identity, 0.0) <= time.monotonic()

    def _may_retry(self, run: RunConfig, kind: str) -> bool:
        n_attempts = self._attempts.get((run.identity, kind), 0) + 1
        self._attempts[run.identity, kind] = n_attempts
        return n_attempts < LIMITS[kind]

    def _done(self, run: RunConfig) -> None:
        self.n_done += 1
        self._remaining.ended(run)
        for needs in self._needs.values():
            needs.discard(run.identity)
        self._tell("done", run)

    def _failed(self, run: RunConfig, message: str) -> None:
        self.failures[run.name] = message
        self._remaining.ended(run)
        self._tell("failed", run, message)
        if self.on_failure == "stop":
            self.waiting.clear()
        for other in [other for identity, other in self.waiting.items() if run.identity in self._needs[identity]]:
            del self.waiting[other.identity]
            self._failed(other, f"its donor {run.name} failed")

    def _tell(self, kind: Kind, run: RunConfig, message: str = "", step: int = 0, loss: float | None = None) -> None:
        if self.report:
            left = self._remaining.seconds(self.n_workers or self._most_running)
            self.report(
                Event(kind, run, self.n_done, len(self.failures), self.n_total, left, message, step=step, loss=loss)
            )


def _donors(run: RunConfig) -> set[str]:
    return {needed.identity for needed in run.with_donors()[:-1]}
