"""Records: what is known of a finished run without its weights, a few kilobytes each.

A record holds the run's config and identity, its metrics by validation, its test scores and its provenance. Records
are lines of JSON in one file for each procedure, the shard:

    results/records/haystack.jsonl
    results/records/set.jsonl

A new record is appended under a file lock; what is there is never rewritten, so that a commit adds lines. Each line is
canonical JSON (sorted keys, no spaces) whose first key, ``checksum``, is the SHA-256 of the canonical JSON of the rest.
A line that does not have its checksum is refused, with file, line and identity. Two records of one run must be equal,
apart from ``made`` (date, host and seconds).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from mechproc.config import canonical_json
from mechproc.errors import MechprocError, StoreError
from mechproc.files import append, atomic_write
from mechproc.provenance import differences
from mechproc.reading import open_regular, parse_json, require_inside
from mechproc.runs.config import RunConfig
from mechproc.runs.folder import NUMBER, TEST_FIELDS, RunFolder, expect

Record = dict[str, Any]
MADE = ("date", "host", "processor", "seconds")
"""When and where a run was made: what may differ between two records of one run."""
DIGITS = 6
"""Significant digits of the metrics."""
FIELDS = {"made": dict, "made.seconds": NUMBER, "metrics": dict, "provenance": dict, "run": dict, "test": dict}
FIELDS |= {f"test.{name}": kind for name, kind in TEST_FIELDS.items() if name not in ("files", "checksum", "seconds")}
"""What every record has, and of which type."""
MOST_KNOWN = 2_000
"""Records of one file that are kept in memory, some 50 kB each."""
_LINE = re.compile(rb'\{"checksum":"([0-9a-f]{64})",("identity":"([0-9a-f]{64})",.*\})', re.DOTALL)


def make(run: RunConfig, folder: RunFolder) -> Record:
    """The record of a complete run, read from its folder."""
    return of_folder(folder) | {"identity": run.identity, "run": run.to_dict()}


def of_folder(folder: RunFolder) -> Record:
    """The record of a complete run as its folder spells it: no setting is read, no code that it names is needed."""
    config = folder.read_config()
    test, environment = folder.read_test(), folder.read_environment()
    scores = {key: value for key, value in test.items() if key not in ("files", "checksum", "seconds")}
    return {
        "identity": config["identity"],
        "made": {"seconds": test["seconds"]} | {key: environment[key] for key in MADE if key in environment},
        "metrics": columns(folder.read_metrics()),
        "provenance": {key: value for key, value in environment.items() if key not in MADE},
        "run": config["config"],
        "test": scores,
        "versions": config.get("procedure_versions"),
    }


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Metrics by column, floats to ``DIGITS`` significant digits, what is not finite as None."""
    names = rows[0] if rows else {}
    return {name: [_rounded(row.get(name)) for row in rows] for name in names}


class Records:
    """The records of a folder, which need not exist. A shard is read when the first of its runs is asked for."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._shards: dict[Path, _Shard] = {}
        self._by_name: dict[str, _Shard] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self.folder,)  # another process reads the shards itself

    def __contains__(self, run: RunConfig) -> bool:
        return run.identity in self._shard(run).lines()

    def get(self, run: RunConfig) -> Record | None:
        """The record of ``run``, if there is one. Errors: ``StoreError`` for a damaged line, or one of another run."""
        shard, identity = self._shard(run), run.identity
        if identity not in shard.lines():
            return None
        if identity not in shard.known:
            record = shard.read(identity)
            # a config of before a new setting has another dict and the same identity
            if record["run"] != run.to_dict() and _identity(record["run"]) != identity:
                raise StoreError(f"{shard.where(identity)}: its config is that of another run; {MEND}")
            shard.remember(identity, record)
        return shard.known[identity]

    def all(self) -> Iterator[Record]:
        """Every record, shard by shard."""
        for path in self.shards():
            yield from self.of(path)

    def shards(self) -> list[Path]:
        """The files of records, by name."""
        return sorted(self.folder.glob("*.jsonl"))

    def of(self, path: Path) -> Iterator[Record]:
        """Every record of one shard."""
        shard = self._shards.setdefault(path, _Shard(path))
        for identity in list(shard.lines()):
            yield shard.read(identity)

    def rewrite(self, path: Path, content: bytes) -> None:
        """Replace a shard as a whole. Errors: ``StoreError``."""
        try:
            with self._lock():
                atomic_write(path, content)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
        self._shards.pop(path, None)
        self._by_name.pop(path.stem, None)

    def cut_off(self) -> list[str]:
        """A line for each shard whose last record was not written to its end, as by a process that was killed."""
        found = []
        for path in self.shards():
            shard = self._shards.setdefault(path, _Shard(path))
            shard.lines()
            if shard.n_unfinished:
                found.append(
                    f"{path} ends with {shard.n_unfinished} bytes of a record that was not written to its end; the "
                    f"next record that is added takes their place (mechproc runs repair removes them now)"
                )
        return found

    def add(self, run: RunConfig, record: Record) -> bool:
        """Append the record of ``run``; False when it is there already.

        Raises ``StoreError`` when a record of this run has the same provenance and other content. One of another
        provenance stays as it is, and ``record`` is not added: bits are equal within one provenance only.
        """
        shard = self._shard(run)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                known = self.get(run)
                if known is None:
                    shard.append(record)
                elif not differences(known["provenance"], record["provenance"]):
                    require_equal(known, record, shard.where(run.identity), f"the run that was made now ({run.name})")
                return known is None
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{shard.path} cannot be written: {error.strerror or error}") from error

    def _lock(self) -> FileLock:
        lock = self.folder / ".lock"
        require_inside(lock, self.folder)
        return FileLock(lock)

    def _shard(self, run: RunConfig) -> _Shard:
        name = run.procedure.short_name
        if name not in self._by_name:
            path = self.folder / f"{name}.jsonl"
            self._by_name[name] = self._shards.setdefault(path, _Shard(path))
        return self._by_name[name]


MEND = "restore the file from version control, or remove the line to train the run again"


class _Shard:
    """One file of records: where each line begins, found when it is first asked for and when the file has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, tuple[int, int, int]] = {}
        """By identity: first byte, length, and number of the line."""
        self.known: dict[str, Record] = {}
        """Records that were read and checked, at most ``MOST_KNOWN``."""
        self._stamp: tuple[int, int] | None = None
        self._end = self._count = 0
        """Bytes and lines that have been read."""

    @property
    def n_unfinished(self) -> int:
        """Bytes behind the last whole line."""
        return max(0, (self._stamp[0] if self._stamp else 0) - self._end)

    def lines(self) -> dict[str, tuple[int, int, int]]:
        """Every record's place in the file, by identity."""
        try:
            about = self.path.stat()
        except OSError as error:
            require_inside(self.path, self.path.parent)
            if not isinstance(error, FileNotFoundError):
                raise
            self._forget()
            return self._lines
        stamp = (about.st_size, about.st_mtime_ns)
        if stamp != self._stamp:
            require_inside(self.path, self.path.parent)
            self.known.clear()
            try:
                if about.st_size <= self._end:
                    self._forget()
                self._scan()
            except StoreError:  # perhaps another file has taken its place, as a checkout does
                self._forget()
                self._scan()
            self._stamp = stamp
        return self._lines

    def read(self, identity: str) -> Record:
        """One record, checked."""
        start, length, _ = self._lines[identity]
        where = self.where(identity)
        content = _checked(self._bytes(start, length), where)[1]
        try:
            record = parse_json(content, each_key_once=False)
        except (ValueError, MemoryError) as error:
            raise StoreError(f"{where} cannot be read: {error}") from error
        for field, kind in FIELDS.items():
            expect(where, record, field, kind)
        lengths = {len(column) if isinstance(column, list) else -1 for column in record["metrics"].values()}
        if lengths - {-1} != lengths or len(lengths) > 1:
            raise StoreError(f"metrics in {where}: lists of one length are expected")
        return record

    def remember(self, identity: str, record: Record) -> None:
        """Keep a record that was read, in the place of the oldest where there are too many."""
        if len(self.known) >= MOST_KNOWN:
            self.known.pop(next(iter(self.known)))
        self.known[identity] = record

    def where(self, identity: str) -> str:
        """File, line and identity, for messages."""
        return _place(self.path, self._lines[identity][2], identity)

    def append(self, record: Record) -> None:
        """Write one line; the caller holds the lock. What a crash left of an unfinished line is cut off first."""
        self.lines()
        line = _line(record)
        if self._end and self._bytes(self._end - 1, 1) != b"\n":
            line = b"\n" + line
        append(self.path, line, at=self._end, sync=True)

    def _forget(self) -> None:
        self._lines, self._stamp, self._end, self._count = {}, None, 0, 0
        self.known.clear()

    def _bytes(self, start: int, length: int) -> bytes:
        with open_regular(self.path, self.path.parent) as file:
            file.seek(start)
            return file.read(length)

    def _scan(self) -> None:
        """Read the lines behind those that have been read."""
        with open_regular(self.path, self.path.parent) as file:
            file.seek(self._end)
            for line in file:  # one at a time: a shard may be larger than the memory
                self._count += 1
                start, self._end = self._end, self._end + len(line)
                if not line.strip():
                    continue
                try:
                    identity, _ = _checked(line, _place(self.path, self._count, None))
                except StoreError:
                    if not line.endswith(b"\n"):
                        # the computer stopped while this line was written: the run has no record yet
                        self._end, self._count = start, self._count - 1
                        return
                    self._forget()
                    raise
                if identity in self._lines:
                    self._require_duplicate(identity, start, len(line))
                self._lines.setdefault(identity, (start, len(line), self._count))

    def _require_duplicate(self, identity: str, start: int, length: int) -> None:
        first = self.read(identity), self.where(identity)
        where = _place(self.path, self._count, identity)
        require_equal(first[0], json.loads(self._bytes(start, length)), first[1], where)


def _line(record: Record) -> bytes:
    content = canonical_json(record).encode()
    return b'{"checksum":"' + hashlib.sha256(content).hexdigest().encode() + b'",' + content[1:] + b"\n"


def _checked(line: bytes, where: str) -> tuple[str, bytes]:
    """Identity and canonical JSON of a line that has its checksum."""
    match = _LINE.fullmatch(line.rstrip(b"\r\n"))
    content = b"{" + match[2] if match else b""
    if match is None or hashlib.sha256(content).hexdigest().encode() != match[1]:
        named = re.search(rb'"identity":"([^"]{1,64})"', line)
        identity = f" (identity {named[1].decode(errors='replace')})" if named and "identity" not in where else ""
        raise StoreError(f"{where}{identity} was changed or damaged: it does not have its checksum; {MEND}")
    return match[3].decode(), content


def line_of(record: Record) -> bytes:
    """A record as it stands in its file."""
    return _line(record)


def split(content: bytes) -> tuple[dict[int, bytes], list[tuple[int, str | None, bytes]]]:
    """The lines of a shard by number, and the damaged ones: number, identity where it can be read, and the line."""
    good: dict[int, bytes] = {}
    bad: list[tuple[int, str | None, bytes]] = []
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        try:
            if line.strip():
                _checked(line, "")
                good[number] = line.rstrip(b"\r\n") + b"\n"
        except StoreError:
            named = re.search(rb'"identity":"([0-9a-f]{64})"', line)
            bad.append((number, named[1].decode() if named else None, line))
    return good, bad


def checked_lines(content: bytes, where: str) -> dict[str, bytes]:
    """The lines of a shard by identity, each with its end; a last line that was cut off is left out.

    Raises ``StoreError`` naming ``where`` and the line that does not have its checksum.
    """
    lines: dict[str, bytes] = {}
    each = content.splitlines(keepends=True)
    for number, line in enumerate(each, start=1):
        if not line.strip():
            continue
        try:
            identity, _ = _checked(line, f"{where} line {number}")
        except StoreError:
            if number == len(each) and not line.endswith(b"\n"):
                break
            raise
        lines.setdefault(identity, line.rstrip(b"\r\n") + b"\n")
    return lines


def _place(path: Path, line: int, identity: str | None) -> str:
    return f"{path} line {line}" + (f" (identity {identity})" if identity else "")


def require_equal(one: Record, other: Record, where_one: str, where_other: str) -> None:
    """Raise a ``StoreError`` unless two records of one run say the same apart from when and where they were made."""
    apart = [f"provenance ({field})" for field in differences(one["provenance"], other["provenance"])]
    keys = sorted((one.keys() | other.keys()) - {"made", "checksum", "provenance"})
    apart += [key for key in keys if one.get(key) != other.get(key)]
    if apart:
        raise StoreError(f"{where_one} and {where_other} are records of one run and differ in {apart[0]}")


def _identity(plain: Any) -> str | None:
    try:
        return RunConfig.from_dict(plain).identity
    except MechprocError:
        return None


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None  # JSON has no word for infinity
