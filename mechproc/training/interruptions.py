"""Ctrl-C and SIGTERM, which wait until a training has saved its resume point."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from mechproc.errors import MechprocError

Interrupted = Callable[[], BaseException | None]
"""Gives what is to be raised once an interruption has come, None before."""


class SuspendedError(MechprocError):
    """Thrown into a training that is to go on later: it saves its resume point and ends with this error."""


@contextlib.contextmanager
def interrupt_deferred() -> Iterator[Interrupted]:
    """Let Ctrl-C and SIGTERM wait: within, the function that is given returns what each is to raise, once it came.

    Ctrl-C raises ``KeyboardInterrupt``, SIGTERM, which schedulers send, ``SystemExit(143)``. Outside of the main thread
    and where a handler of the application's own is set, nothing is changed.
    """
    ours = {signal.SIGINT: KeyboardInterrupt(), signal.SIGTERM: SystemExit(128 + signal.SIGTERM)}
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[BaseException] = []
    before = {number: signal.getsignal(number) for number in ours}
    for number, handler in before.items():
        if handler is usual[number] or getattr(handler, "ends_trainings", False):
            signal.signal(number, lambda received, _: came.append(ours[signal.Signals(received)]))
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise came[0]
