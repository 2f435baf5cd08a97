"""Restore what can be restored of a damaged store, and remove what nobody needs."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import Timeout

from mechproc.config import digest
from mechproc.errors import MechprocError, StoreError
from mechproc.files import atomic_write, json_bytes
from mechproc.model.io import load_model, model_bytes
from mechproc.provenance import PROVENANCE_FIELDS
from mechproc.reading import read_bytes
from mechproc.runs import records as records_
from mechproc.runs.config import RunConfig
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import MADE, Record, Records
from mechproc.runs.verify import damages
from mechproc.training.sinks import FolderSink

STALE_S = 3600.0
"""Age from which a temporary file outside a run's folder belongs to no process that still writes."""


@dataclasses.dataclass(frozen=True)
class Action:
    """One thing that was done, or would be."""

    path: Path
    what: str
    """Such as ``"restored from the record of the run"``."""
    done: bool = True
    """False: it was not possible, and ``what`` says what is left to do."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def repair(
    folders: list[RunFolder], records: Records | None, *, dry_run: bool = False, remove_damaged: bool = False
) -> list[Action]:
    """Restore what can be computed from the rest, and name what cannot.

    - Config and environment of a complete run, from its record; final weights, from the checkpoint of the last step,
      and the other way round. A file is restored only if it gets the digest that it was written with.
    - A damaged line of the records, or one that is missing, from the complete run in the store.
    - A run that is not complete and whose resume point, or what that counts on, is damaged starts over.

    Nothing of a complete run is removed. Damaged lines of the records whose run is not in the store stay, and so their
    file stays unreadable; with ``remove_damaged`` they are moved to ``FILE.damaged``, and their runs are trained again.
    With ``dry_run`` nothing is written, and the same actions are listed.
    """
    actions: list[Action] = []
    if records is not None:
        actions += _repair_records(folders, records, dry_run, remove_damaged)
    for folder in folders:
        try:
            with _unused(folder) as free:
                if free:
                    actions += _repair_folder(folder, records, dry_run)
        except StoreError as error:
            actions.append(Action(folder.path, f"cannot be restored: {error}", done=False))
    return actions


def garbage(root: str | Path, folders: list[RunFolder]) -> list[Action]:
    """What nobody needs: temporary files of processes that were killed, resume points of complete runs, folders without
    a run. Folders that a process writes are left out, and nothing of a complete run but its resume point is listed."""
    found: list[Action] = []
    for path in sorted(Path(root).glob(".*.tmp")):
        if time.time() - path.lstat().st_mtime > STALE_S:
            found.append(Action(path, "a temporary file of a process that was killed"))
    for folder in folders:
        with contextlib.suppress(StoreError), _unused(folder) as free:  # ``damages`` names what cannot be used
            if free:
                found += _garbage_of(folder)
    return found


def _garbage_of(folder: RunFolder) -> list[Action]:
    temporary = sorted(folder.path.rglob(".*.tmp"))
    found = [Action(path, "a temporary file of a process that was killed") for path in temporary]
    with contextlib.suppress(StoreError):
        if folder.resume.exists() and folder.is_complete():
            found.append(Action(folder.resume, "the resume point of a complete run"))
    if {path.name for path in folder.path.iterdir()} <= {folder.lock_file.name, folder.error.name}:
        found.append(Action(folder.path, "a folder without a run"))
    return found


def remove(found: list[Action]) -> None:
    """Remove what ``garbage`` listed; a folder that has got a run meanwhile stays."""
    for action in found:
        path = action.path
        try:
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
            elif path.name.endswith(".tmp"):
                shutil.rmtree(path)
            else:
                for file in (RunFolder(path).error, RunFolder(path).lock_file):
                    file.unlink(missing_ok=True)
                path.rmdir()
        except OSError as error:
            raise StoreError(f"{path} cannot be removed: {error.strerror or error}") from error


@contextlib.contextmanager
def _unused(folder: RunFolder) -> Iterator[bool]:
    """Hold the folder's lock; gives False where another process has it. A disk that may only be read needs none."""
    made, lock = not folder.lock_file.exists(), folder.lock()
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno != errno.EROFS:
            raise StoreError(f"{folder} cannot be locked: {error.strerror or error}") from error
        yield True
        return
    try:
        yield True
    finally:
        lock.release()
    if made:
        folder.lock_file.unlink(missing_ok=True)


def _repair_folder(folder: RunFolder, records: Records | None, dry_run: bool) -> list[Action]:
    if not damages(folder):
        return []
    actions: list[Action] = []
    hindrances: list[str] = []
    for path, content, source in _candidates(folder, records, hindrances):
        name = path.relative_to(folder.path).as_posix()
        about = folder.read_test()["files"].get(name)
        if about is None or folder.has(name, about) or hashlib.sha256(content).hexdigest() != about["sha256"]:
            continue
        if not dry_run:
            atomic_write(path, content)
        actions.append(Action(path, f"restored from {source}"))
    if not folder.test.exists():
        actions += _start_over(folder, dry_run)
    restored = {str(action.path) for action in actions}
    left = [line for line in damages(folder) if not any(path in line for path in restored)]
    why = "".join(f" ({hindrance})" for hindrance in hindrances)
    return actions + [Action(folder.path, f"cannot be restored{why}: {line}", done=False) for line in left]


def _candidates(folder: RunFolder, records: Records | None, hindrances: list[str]) -> Iterator[tuple[Path, bytes, str]]:
    """Files of a complete run, as they follow from what else is known: path, content, and from what it follows.

    ``hindrances`` gets what stands in the way of others, such as code that is not allowed to be executed."""
    try:
        folder.read_test()
    except StoreError:
        return
    record = None if records is None else _record_of(folder, records)
    if record is not None:
        made = {key: record["made"][key] for key in MADE if key in record["made"] and key != "seconds"}
        for environment in _orders(record["provenance"], made):
            yield folder.environment, json_bytes(environment), "the record of the run"
        try:
            plain = {"identity": record["identity"], "procedure_versions": record["versions"]}
            config = RunConfig.from_dict(record["run"]).to_dict()
            whole = plain | {"config": config}
            yield folder.config, json_bytes(whole | {"checksum": digest(whole)}), "the record of the run"
            yield folder.config, json_bytes(whole), "the record of the run"
        except (MechprocError, ValueError) as error:
            hindrances.append(str(error))
    steps, last = folder.checkpoint_steps(), folder.read_test()["steps"]
    if last in steps:
        kept = folder.checkpoint(last)
        with contextlib.suppress(StoreError):
            cfg, state, _ = load_model(kept)
            identity = record["identity"] if record else folder.read_config()["identity"]
            yield folder.model, model_bytes(cfg, state, {"run": identity}), f"the weights of step {last}"
    with contextlib.suppress(StoreError):
        cfg, state, _ = load_model(folder.model)
        yield folder.checkpoint(last), model_bytes(cfg, state, {"step": last}), "the final weights"


def _orders(provenance: dict[str, str], made: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment as the run wrote it: records keep its fields in alphabetical order."""
    fields = [field for field in (*PROVENANCE_FIELDS, "commit") if field in provenance]
    fields += [field for field in provenance if field not in fields]
    yield {f: provenance[f] for f in fields} | {f: made[f] for f in ("processor", "host", "date") if f in made}


def _record_of(folder: RunFolder, records: Records) -> Record | None:
    """The record of the run that the folder's name begins with, whatever is left of its config."""
    short = folder.name.rpartition("-")[2]
    for path in records.shards():
        with contextlib.suppress(StoreError):
            for record in records.of(path):
                if len(short) == 12 and record["identity"].startswith(short):
                    return record
    return None


def _start_over(folder: RunFolder, dry_run: bool) -> list[Action]:
    """Let an interrupted run begin again whose resume point cannot be used."""
    try:
        FolderSink(folder).check_resume()
        broken = []
    except StoreError:
        broken = [folder.resume]
    for step in folder.checkpoint_steps():
        try:
            load_model(folder.checkpoint(step))
        except StoreError:
            broken = list(dict.fromkeys([*broken, folder.resume, folder.checkpoint(step)]))
    if not folder.resume.exists():
        broken = [path for path in broken if path != folder.resume]
    for path in broken:
        if not dry_run:
            _unlink(path)
    return [Action(path, "removed, as it is damaged: the run, which was not complete, starts over") for path in broken]


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be removed: {error.strerror or error}") from error


def _repair_records(folders: list[RunFolder], records: Records, dry_run: bool, remove_damaged: bool) -> list[Action]:
    complete = {}
    for folder in folders:
        with contextlib.suppress(StoreError):
            if folder.is_complete() and not damages(folder):
                complete[folder.read_config()["identity"]] = folder
    actions: list[Action] = []
    for path in records.shards():
        good, bad = records_.split(read_bytes(path, path.parent))
        if not bad:
            continue
        lost = []
        for number, identity, line in bad:
            folder = complete.get(identity or "")
            if folder is not None:
                good[number] = records_.line_of(records_.of_folder(folder))
                actions.append(Action(path, f"line {number}: restored from {folder}"))
            elif line.endswith(b"\n"):
                lost.append((number, identity, line))
            else:
                actions.append(Action(path, f"line {number}: removed, as it was not written to its end"))
        for number, identity, line in lost:
            named = f" (identity {identity})" if identity else ""
            if remove_damaged:
                actions.append(Action(path, f"line {number}{named}: moved to {path.name}.damaged"))
            else:
                good[number] = line
                actions.append(Action(path, f"line {number}{named} cannot be restored: {records_.MEND}; or mechproc "
                                      "runs repair --remove-damaged", done=False))  # fmt: skip
        if not dry_run:
            if lost and remove_damaged:
                atomic_write(path.with_name(f"{path.name}.damaged"), b"".join(line for _, _, line in lost))
            records.rewrite(path, b"".join(good[number] for number in sorted(good)))
    return actions
