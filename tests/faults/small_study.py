"""The small study that faults are tried on, each time in a process of its own that can be killed."""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from pathlib import Path
from typing import NoReturn

from mechproc.errors import MechprocError
from mechproc.runs.catalogue import folders
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import run_all
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import Records
from mechproc.runs.store import Store
from mechproc.runs.verify import verify
from mechproc.studies.set_to_haystack import Sizes, transfer
from mechproc.training.loop import course

STEPS = (300, 400)
"""Updates of a donor and of a task."""
RESUME_EVERY_S = 0.05
"""So that a study of seconds has resume points."""


def planned(seeds: int = 2, steps: tuple[int, int] = STEPS) -> list[RunConfig]:
    """The runs."""
    sizes = Sizes(8, 2, 8, 4, 4, 8, 3, donor_steps=steps[0], task_steps=steps[1], batch_size=4)
    return [transfer(arm, seed, sizes) for seed in range(seeds) for arm in ("random", "attention")]


def store_of(place: Path) -> Store:
    """Runs and records of the study at ``place``."""
    return Store(place / "runs", records=place / "records")


def start(place: Path, runs: list[RunConfig]) -> int:
    """Begin the study in a new process, which writes what it says to ``place/log``; the process's number."""
    place.mkdir(parents=True, exist_ok=True)
    process = os.fork()
    if process == 0:
        _work(place, runs)
    return process


def _work(place: Path, runs: list[RunConfig]) -> NoReturn:
    status = 2
    try:
        log = os.open(place.parent / f"{place.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        assert course.__kwdefaults__ is not None
        course.__kwdefaults__["resume_every_s"] = RESUME_EVERY_S
        run_all(runs, store_of(place), workers=1, report=_told)
        status = 0
    except MechprocError as error:
        os.write(2, f"mechproc: {error}\n".encode())
        status = 1
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _told(event) -> None:
    if event.kind != "step":
        os.write(1, f"{event.kind} {event.run.name}\n".encode())


def log(place: Path) -> str:
    """Everything that the processes of the study said."""
    return (place.parent / f"{place.name}.log").read_text()


def wait(process: int, seconds: float = 600.0) -> int | None:
    """The exit status of a process, or None when it still runs after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def finish(place: Path, runs: list[RunConfig]) -> None:
    """Run the study to its end."""
    status = wait(start(place, runs))
    assert status == 0, f"exit status {status}:\n{log(place)[-2000:]}"


def records_of(place: Path) -> dict[str, str]:
    """The records by identity, without when and where they were made, and from which commit."""
    found = {}
    for record in Records(place / "records").all():
        apart = {"made": None, "provenance": record["provenance"] | {"commit": None}}
        found[record["identity"]] = json.dumps(record | apart, sort_keys=True)
    return found


def damages_of(place: Path) -> list[str]:
    """What ``mechproc runs verify`` says of store and records."""
    return verify(folders(place / "runs"), place / "records") if (place / "runs").exists() else []


def readable(place: Path) -> dict[str, str]:
    """Records and finished runs, for a comparison of before and after."""
    return records_of(place) | finished_of(place)


def finished_of(place: Path) -> dict[str, str]:
    """A digest of every file of each complete run, by folder."""
    if not (place / "runs").exists():
        return {}
    return {folder.name: _content(folder) for folder in folders(place / "runs") if folder.is_complete()}


def _content(folder: RunFolder) -> str:
    whole = hashlib.sha256()
    for file in sorted(folder.path.rglob("*")):
        kept = file.is_file() and file not in (folder.resume, folder.lock_file) and not file.name.endswith(".tmp")
        if kept:
            whole.update(f"{file.relative_to(folder.path)}".encode() + file.read_bytes())
    return whole.hexdigest()
