"""What a list of runs shows of each complete one, kept in one file of the store so that a list of many is quick.

Whoever completes a run appends its line; a list writes the file anew where it had to read a folder. The folders stay
the truth. A line is used only while every file of its run has the size and the time of change that it had when the line
was made, and the last line of a run is the one that counts; all else is read from the folders again. Whoever removes
the file loses nothing.

Each line begins with its line break and has a checksum, so that one that was not written to its end, or into which
another process has written, is no line and spoils none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mechproc.errors import StoreError
from mechproc.files import append_at_once, atomic_write
from mechproc.reading import parse_json, read_bytes

NAME = ".index"
DIGITS = 16
"""Of the checksum of a line, hexadecimal."""


class Line(NamedTuple):
    """What a list shows of a run."""

    name: str
    identity: str
    procedure: str
    seed: int
    status: str
    start: str
    """How the model was assembled."""
    accuracy: float | None = None
    seconds: float | None = None
    donors: tuple[str, ...] = ()
    """Digests of the configs of all runs that it needs, donors of donors included."""


TYPES = (str, str, str, int, str, str, (int, float), (int, float), list)
"""Of the fields of the line of a complete run, as JSON."""


def stamp(folder: str) -> str | None:
    """Size and time of change of every file of a run's folder, in short; None where something else is among them."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                about = entry.stat(follow_symlinks=False)
                if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
                    return None
                if entry.name != "lock":  # is written by who only looks
                    found.append((entry.name, 0 if stat.S_ISDIR(about.st_mode) else about.st_size, about.st_mtime_ns))
    except OSError:
        return None
    return hashlib.blake2b(repr(sorted(found)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def read(root: Path) -> dict[str, tuple[str, Line]]:
    """Stamp and line by the name of the folder, of the lines that are whole; empty where there is no index."""
    lines = {}
    try:
        whole = [line[DIGITS + 1 :] for line in read_bytes(root / NAME, root).split(b"\n") if _is_whole(line)]
        for known, *fields in parse_json(b"[" + b",".join(whole) + b"]", each_key_once=False):
            if len(fields) == len(TYPES) and all(map(isinstance, fields, TYPES)):
                lines[fields[0]] = (known, Line._make([*fields[:-1], tuple(fields[-1])]))
    except (StoreError, ValueError, TypeError):
        return {}
    return lines


def add(root: Path, line: Line) -> None:
    """Append the line of a run that is complete now. What hinders that costs the next list the reading of a folder."""
    known = stamp(os.path.join(root, line.name))  # noqa: PTH118  as a list does
    if known is None:
        return
    with contextlib.suppress(StoreError):
        append_at_once(root / NAME, _encoded(known, line))


def write(root: Path, lines: Iterable[tuple[str, Line]]) -> None:
    """Replace the index; a store that may only be read keeps the one it has.

    A line that another process appends meanwhile is lost, and read from its folder the next time."""
    with contextlib.suppress(StoreError):
        atomic_write(root / NAME, b"".join(_encoded(known, line) for known, line in lines))


def _encoded(known: str, line: Line) -> bytes:
    content = json.dumps([known, *line]).encode()
    return b"\n" + _checksum(content) + b" " + content


def _is_whole(line: bytes) -> bool:
    return len(line) > DIGITS and line[:DIGITS] == _checksum(line[DIGITS + 1 :])


def _checksum(content: Any) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGITS // 2).hexdigest().encode()
