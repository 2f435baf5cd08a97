"""Progress as plain lines: readable on a terminal, in a notebook and in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

from mechproc.progress import clock

if TYPE_CHECKING:
    from mechproc.runs.executors import Event

EVERY_S = 5.0
"""Least seconds between two lines of progress where lines cannot be rewritten."""
VERBS = {"failed": "failed", "waiting": "is waited for", "retried": "is started again"}


class Lines:
    """A ``Progress`` of one training that prints at most one line every few seconds."""

    def __init__(self, prefix: str = "  ") -> None:
        self.prefix = prefix
        self.printed = time.monotonic()

    def __call__(self, step: int, steps: int, loss: float, eta_s: float) -> None:
        now = time.monotonic()
        if now - self.printed >= EVERY_S or step == steps:
            self.printed = now
            print(f"{self.prefix}step {step} of {steps}, loss {loss:.3f} nats, {clock(eta_s)} left", flush=True)


class RunLines:
    """A ``Report`` that prints one line over all runs, with the time left.

    On a terminal the line is rewritten; elsewhere a new one is printed every few seconds. What failed, is waited for or
    was started again has a line of its own.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.started = self.printed = time.monotonic()
        self.width = 0
        """Of the line that the next one replaces; 0 where there is none."""

    def __call__(self, event: Event) -> None:
        if event.message:
            self._print(f"  {event.run.name} {VERBS[event.kind]}: {event.message}")
        now, last = time.monotonic(), event.n_done + event.n_failed == event.n_total
        if self.stream.isatty():
            self._print(self._overall(event), end="\n" if last else "")
        elif last or now - self.printed >= EVERY_S:
            self._print(self._overall(event))
            self.printed = now

    def _overall(self, event: Event) -> str:
        failed = f", {event.n_failed} failed" if event.n_failed else ""
        left = "" if event.seconds_left is None else f", about {clock(event.seconds_left)} left"
        spent = clock(time.monotonic() - self.started)
        return f"  {event.n_done} of {event.n_total} trainings done{failed} after {spent}{left}"

    def _print(self, text: str, end: str = "\n") -> None:
        start = "\r" if self.width else ""
        print(f"{start}{text:{self.width}}", end=end, file=self.stream, flush=True)
        self.width = 0 if end else len(text)
