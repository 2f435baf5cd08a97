"""Progress of long calls: a bar on a terminal and in a notebook, a line a minute in logs and pipes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
EVERY_S = 60.0
"""Least seconds before the first line in a log, and between two: what is done sooner says nothing."""


def progress(iterable: Iterable[T], what: str, unit: str = "model") -> Iterable[T]:
    """``iterable`` with a bar that counts its elements, which goes away at the end; in a log with a line a minute.

    ``what``: what is done, in a few words; ``unit``: what one element is.
    """
    if is_watched():
        return tqdm(iterable, desc=what, unit=unit, leave=False)
    return _counted(iterable, what, unit)


def bar(total: int, what: str, unit: str) -> tqdm[Any] | Lines:
    """A bar that is moved by its ``update``, for what is no loop; it goes away when it is closed."""
    return tqdm(total=total, desc=what, unit=unit, leave=False) if is_watched() else Lines(total, what, unit)


class Lines:
    """In the place of a bar, where nobody watches: lines on the error stream, ``EVERY_S`` apart.

    The time is that since the last line of any call, so that loops inside each other do not say it twice.
    """

    said = 0.0

    def __init__(self, total: int | None, what: str, unit: str) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.started = time.monotonic()
        self.n, self.more = 0, ""

    def update(self, n: int = 1) -> None:
        """``n`` more are done."""
        self.n += n
        now = time.monotonic()
        if now - max(self.started, Lines.said) >= EVERY_S:
            Lines.said = now
            print(self._line(now - self.started), file=sys.stderr, flush=True)

    def set_postfix_str(self, more: str, refresh: bool = False) -> None:
        """What stands at the end of the next line."""
        self.more = f", {more}"

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _line(self, spent: float) -> str:
        of = f" of {self.total:,}" if self.total else ""
        rest = self.total - self.n if self.total and self.n > 0 else 0
        left = f", about {clock(spent / self.n * rest)} left" if rest > 0 else ""
        units = self.unit if self.n == 1 and self.total in (None, 1) else f"{self.unit}s"
        return f"  {self.what}: {self.n:,}{of} {units} after {clock(spent)}{left}{self.more}"


def is_watched() -> bool:
    """Whether somebody sees a bar while it moves: on a terminal, or in a notebook, whose streams say they are none."""
    return in_notebook() or sys.stderr.isatty()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def clock(seconds: float) -> str:
    """Minutes and seconds, such as ``2:05``; hours before them from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, of_hour = divmod(minutes, 60)
    return f"{hours}:{of_hour:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _counted(iterable: Iterable[T], what: str, unit: str) -> Iterator[T]:
    lines = Lines(len(iterable) if isinstance(iterable, Sized) else None, what, unit)
    for each in iterable:
        yield each
        lines.update()
