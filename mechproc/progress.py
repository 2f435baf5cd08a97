"""Progress bars of long calls: drawn on a terminal and in a notebook, silent in logs, pipes and tests."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def progress(iterable: Iterable[T], what: str, unit: str = "model") -> Iterable[T]:
    """``iterable`` with a bar that counts its elements, which goes away at the end.

    ``what``: what is done, in a few words; ``unit``: what one element is.
    """
    return tqdm(iterable, desc=what, unit=unit, leave=False, disable=not is_watched())


def bar(total: int, what: str, unit: str) -> tqdm[Any]:
    """A bar that is moved by its ``update``, for what is no loop; it goes away when it is closed."""
    return tqdm(total=total, desc=what, unit=unit, leave=False, disable=not is_watched())


def is_watched() -> bool:
    """Whether somebody sees a bar while it moves: on a terminal, or in a notebook, whose streams say they are none."""
    return in_notebook() or sys.stderr.isatty()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")
