"""Progress as plain lines: readable on a terminal, in a notebook and in a log."""

from __future__ import annotations

import time

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
    """Told after each run of a study; prints how far it is and when it will be done."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, run: object, done: int, total: int) -> None:
        spent = time.monotonic() - self.started
        left = spent / done * (total - done)
        print(f"  {done} of {total} trainings done after {clock(spent)}, about {clock(left)} left", flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, such as ``2:05``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
