"""What a list of runs shows of each complete one, kept in one file of the store so that a list of many is quick.

The folders stay the truth. A line is used only while every file of its run has the size and the time of change that it
had when the line was made; all else is read from the folders again. Whoever removes the file loses nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
from pathlib import Path

from mechproc.errors import StoreError
from mechproc.files import atomic_write
from mechproc.reading import parse_json, read_bytes

NAME = ".index"
FORMAT = "mechproc.index.1"


@dataclasses.dataclass(frozen=True)
class Line:
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


TYPES = (str, str, str, int, str, str, (int, float), (int, float))
"""Of the fields of the line of a complete run."""


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
    """Stamp and line by the name of the folder; empty where there is no index, or none that is whole."""
    try:
        checksum, _, content = read_bytes(root / NAME, root).partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            return {}
        plain = parse_json(content, each_key_once=False)
        if plain["format"] != FORMAT:
            return {}
        lines = {}
        for known, *fields in plain["runs"]:
            if len(fields) == len(TYPES) and all(map(isinstance, fields, TYPES)):
                lines[fields[0]] = (known, Line(*fields))
        return lines
    except (StoreError, ValueError, TypeError, KeyError):
        return {}


def write(root: Path, lines: dict[str, tuple[str, Line]]) -> None:
    """Replace the index; a store that may only be read keeps the one it has."""
    rows = [[known, *dataclasses.astuple(line)] for known, line in lines.values()]
    content = json.dumps({"format": FORMAT, "runs": rows}).encode()
    with contextlib.suppress(StoreError):
        atomic_write(root / NAME, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
