"""Read everything that a store keeps, and name what is damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from mechproc.errors import StoreError
from mechproc.model.io import read_tensors
from mechproc.provenance import differences
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import Record, Records
from mechproc.training.sinks import FolderSink


def damages(folder: RunFolder) -> list[str]:
    """What reading every file of a run's folder finds, a line for each damage: the file, what is wrong, what to do."""
    if not folder.is_begun():
        return []
    unusable = folder.unusable()
    lines = [f"{why}; remove it" for why in unusable.values()]
    if folder.path in unusable:
        return lines
    again = f"remove the folder to train the run again (mechproc runs rm {folder.name})"
    for file, read in (
        (folder.config, folder.read_config),
        (folder.environment, folder.read_environment),
        (folder.metrics, folder.read_metrics),
        (folder.error, folder.failure),
    ):
        must_be = file == folder.config
        lines += _damage(read, again) if file not in unusable and (must_be or file.exists()) else []
    if folder.resume.exists() and folder.resume not in unusable:
        lines += _damage(FolderSink(folder).check_resume, f"mechproc runs repair lets the run start over; or {again}")
    if not folder.test.exists() or folder.test in unusable:
        for step in [] if folder.checkpoints in unusable else folder.checkpoint_steps():
            if folder.checkpoint(step) not in unusable:
                lines += _damage(lambda step=step: read_tensors(folder.checkpoint(step)), again)
        return lines
    if unreadable := _damage(folder.read_test, again):
        return lines + unreadable
    for name, about in folder.read_test()["files"].items():
        checkpoint = "/" in name
        if checkpoint and not (folder.path / name).exists():
            continue  # checkpoints may be removed
        if unusable.keys() & {folder.path / name, folder.checkpoints if checkpoint else folder.path}:
            continue  # named above
        advice = f"remove the file, or {again}" if checkpoint else again
        changed = _damage(lambda name=name, about=about: folder.check(name, about), advice)
        if not changed and name.endswith(".safetensors"):  # damaged before the run was complete
            changed = _damage(lambda name=name: read_tensors(folder.path / name), advice)
        lines += changed
    return list(dict.fromkeys(lines))


def conflicts(folders: list[RunFolder], records: Records) -> list[str]:
    """Records that are damaged, and those that differ from the folder of their run, a line for each."""
    lines: list[str] = []
    known: dict[str, Record] = {}
    for path in records.shards():
        try:
            known |= {record["identity"]: record for record in records.of(path)}
        except StoreError as error:
            lines.append(str(error))
    with contextlib.suppress(StoreError):  # damaged lines are named above
        lines += records.cut_off()
    for folder in folders:
        try:
            if not folder.is_complete():
                continue
            test, environment = folder.read_test(), folder.read_environment()
            record = known.get(folder.read_config()["identity"])
        except StoreError:
            continue  # ``damages`` names it
        if record is None or differences(record["provenance"], environment):
            continue
        for field, value in record["test"].items():
            if test.get(field) != value:
                lines.append(
                    f"{field} in {folder.test} is {test.get(field)!r}, in the record of the run {value!r}: one of them "
                    f"is wrong, as both have one provenance; train the run again elsewhere and compare"
                )
                break
    return lines


def verify(folders: list[RunFolder], records: str | Path | None = None) -> list[str]:
    """All damages of these folders, and of the records in a folder if one is given."""
    lines = [line for folder in folders for line in damages(folder)]
    return lines + ([] if records is None else conflicts(folders, Records(records)))


def _damage(read: Callable[[], object], advice: str) -> list[str]:
    try:
        read()
    except StoreError as error:
        return [f"{error}; {advice}"]
    return []
