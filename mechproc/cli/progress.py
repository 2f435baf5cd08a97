"""Progress as plain lines: readable on a terminal, in a notebook and in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechproc.runs.executors import Event

EVERY_S = 5.0


class Lines:
    """A ``Progress`` that prints at most one line every few seconds."""

    def __init__(self, prefix: str = "  ") -> None:
        self.prefix = prefix
        self.printed = time.monotonic()

    def __call__(self, step: int, steps: int, loss: float, eta_s: float) -> None:
        now = time.monotonic()
        if now - self.printed >= EVERY_S or step == steps:
            self.printed = now
            print(f"{self.prefix}step {step} of {steps}, loss {loss:.3f} nats, {clock(eta_s)} left", flush=True)


class RunLines:
    """A ``Report`` of many runs that prints how far they are and when they will be done."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, event: Event) -> None:
        spent = time.monotonic() - self.started
        ended = event.n_done + event.n_failed
        failed = f", {event.n_failed} failed" if event.n_failed else ""
        left = f"about {clock(spent / event.share * (1 - event.share))} left" if event.share else "time left unknown"
        print(f"  {ended} of {event.n_total} trainings done{failed} after {clock(spent)}, {left}", flush=True)
        if event.error is not None:
            print(f"  {event.run.name} failed: {event.error}", flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, such as ``2:05``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
