"""Atomic reading and writing: a file is either complete or absent."""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mechproc.errors import StoreError
from mechproc.reading import parse_json, read_bytes, unreadable


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that readers see the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, which is flushed to the disk and then renamed. Whatever stops
    the write, a full disk or Ctrl-C, leaves the old file as it was and the temporary one removed.

    Raises ``StoreError`` when the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        if path.exists() and not path.is_file():  # a device would be replaced by a file
            raise StoreError(f"{path} cannot be written: it is there, and is no file")
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except StoreError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise StoreError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink()


def append(path: str | Path, content: bytes, *, at: int | None = None, sync: bool = False) -> None:
    """Add ``content`` at the end of a file, which is made if need be, or behind its first ``at`` bytes.

    What fails, as on a full disk, leaves the file as long as it was; a process that is killed may leave a part, which
    readers have to tell from a whole line. ``sync``: return when it is on the disk. Raises ``StoreError``.
    """
    path = Path(path)
    try:
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            end = size if at is None else min(at, size)
            file.truncate(end)
            try:
                written = 0
                while written < len(content):
                    written += file.write(content[written:])
                if sync:
                    os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def append_at_once(path: str | Path, content: bytes) -> None:
    """Add ``content`` at the end of a file, which is made if need be, in one piece: others may append at this moment.

    A link is not followed, and what is no file is left alone. What fails may leave a part, which readers have to tell
    from the whole. Raises ``StoreError``.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for safety in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # a pipe without a reader would wait
        flags |= getattr(os, safety, 0)
    try:
        descriptor = os.open(path, flags, 0o666)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.write(descriptor, content)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Return when the content of a file is on the disk. Raises ``StoreError``."""
    try:
        _sync_file(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write plain JSON values, indented for readers, atomically. NaN and infinity are refused (``ValueError``)."""
    atomic_write(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What ``write_json`` writes."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def read_json(path: Path, within: Path | None = None) -> dict[str, Any]:
    """A JSON object from a file, or a ``StoreError`` that names the file; a key that stands twice is refused.

    ``within``: a folder that symbolic links below it may not lead out of.
    """
    content = read_bytes(path, within)
    try:
        plain = parse_json(content.decode("utf-8"))
    except (ValueError, MemoryError) as error:
        raise unreadable(path, error) from error
    if not isinstance(plain, dict):
        raise StoreError(f"{path} does not hold a JSON object")
    return plain


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes ``path`` at the end: readers see all of its files or none.

    Whatever stops the filling leaves nothing behind. Raises ``StoreError`` when ``path`` exists and is not an empty
    folder, or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        check_new_folder(path)
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync_file(file)
        if path.exists():
            path.rmdir()  # refused by the system unless it is an empty folder
        temporary.rename(path)
        _sync_folder(path.parent)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Raise a ``StoreError`` when ``path`` exists and is anything but an empty folder."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} cannot be written: it is a file")
    if path.exists() and any(path.iterdir()):
        raise StoreError(f"{path} is not empty: choose a new folder")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flush the new name itself, where the system lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
