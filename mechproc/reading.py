"""Reading of files that may be anything: whole regular files alone, inside their store, JSON of a sane shape."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechproc.errors import StoreError

MOST_BYTES = 2**30
"""Of a file that is read into memory as a whole, such as JSON; files of tensors may be larger."""
DEEPEST = 60
"""How deep JSON may be nested; a run whose donors have donors of their own needs five levels for each of them."""

_MAY_OVERFLOW = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")


@contextlib.contextmanager
def open_regular(path: str | Path, within: Path | None = None) -> Iterator[io.BufferedReader]:
    """A regular file, open for reading.

    ``within``: a folder that symbolic links below it may not lead out of. Errors: ``StoreError`` for a folder, a pipe,
    a device, a name with a null byte, a link that leads out, and whatever else cannot be read, also inside the block.
    """
    require_inside(Path(path), within)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            _require_regular(path, os.fstat(file.fileno()))
            yield file
    except StoreError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        raise unreadable(path, error) from error


def read_bytes(path: str | Path, within: Path | None = None, largest: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most ``largest`` bytes; errors as those of ``open_regular``."""
    with open_regular(path, within) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise StoreError(f"{path} cannot be read: it has {size:,} bytes, at most {largest:,} are read")
        return file.read()


def require_regular(path: str | Path, within: Path | None = None) -> None:
    """Raise a ``StoreError`` as ``open_regular`` does, for libraries that open the file themselves."""
    with open_regular(path, within):
        pass


def require_inside(path: Path, within: Path | None) -> None:
    """Raise a ``StoreError`` where a symbolic link below ``within`` leads out of it on the way to ``path``."""
    if within is None:
        return
    step = within
    try:
        for name in path.relative_to(within).parts:
            step = step / name
            if name == ".." or (step.is_symlink() and not step.resolve().is_relative_to(within.resolve())):
                raise StoreError(f"{step} cannot be used: it leads out of {within}")
    except StoreError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: BaseException) -> StoreError:
    """The error of a file that cannot be read, in one line."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return StoreError(f"{path} cannot be read: {reason}")


def parse_json(text: str | bytes, *, each_key_once: bool = True, finite: bool = True) -> Any:
    """JSON that is nested at most ``DEEPEST`` levels deep, so that whoever walks through it comes to an end.

    ``each_key_once``: refuse an object in which a key stands twice. ``finite``: refuse NaN, infinity, and numbers that
    are larger than any float, none of which has a canonical spelling. Errors: ``ValueError``.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    options: dict[str, Any] = {"object_pairs_hook": _each_key_once} if each_key_once else {}
    if finite:
        options["parse_constant"] = _finite
        if _MAY_OVERFLOW.search(text):
            options["parse_float"] = _finite
    too_deep = ValueError(f"it is nested more than {DEEPEST} levels deep")
    try:
        plain = json.loads(text, **options)
    except RecursionError:
        raise too_deep from None
    if text.count("{") + text.count("[") <= DEEPEST:  # as in most files
        return plain
    level = [plain]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise too_deep
    return plain


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(f"{number[:20]} is not a number that JSON can hold")
    return float(number)


def _inside(value: Any) -> list[Any]:
    """The lists and objects directly inside one."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in inner if isinstance(each, (dict, list))]


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe would wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_regular(path: str | Path, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise StoreError(f"{path} cannot be read: it is a pipe, a socket or a device, not a file")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in pairs:
        if key in plain:
            raise ValueError(f"the key {key!r} stands twice in one object")
        plain[key] = value
    return plain
