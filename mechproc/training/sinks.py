"""Where a training's records go: to memory, or to files that an interrupted training goes on from."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mechproc.config import Config
from mechproc.errors import StoreError
from mechproc.files import append, atomic_write, sync
from mechproc.model.config import ModelConfig
from mechproc.model.io import read_tensors, save_model, write_tensors
from mechproc.model.state import State
from mechproc.reading import parse_json, read_bytes, unreadable
from mechproc.training.engines.base import Snapshot

STATE_KEY = "course"
"""The header field of a resume point that has the trainer's state."""
Row = dict[str, Any]
"""One validation; the keys are described at ``mechproc.training.loop.train``."""


@dataclasses.dataclass(frozen=True)
class TrainerState(Config):
    """How far a training is, before the validation and the update of ``step``."""

    step: int = 0
    """Updates made."""
    stage: int = 0
    """Curriculum stages passed."""
    best: float | None = None
    """Best validation token accuracy of this stage."""
    stale: int = 0
    """Validations since then."""
    n_rows: int = 0
    """Rows written."""
    loss_sum: float = 0.0
    """Sum of the training losses since the last row, nats."""
    norm_sum: float = 0.0
    """Sum of the gradient norms since the last row."""
    last_row_step: int = 0

    def updated(self, loss: float, norm: float) -> TrainerState:
        """After one more update of this loss and this gradient norm: a copy, without the checks of what is read."""
        after = copy.copy(self)
        vars(after).update(step=self.step + 1, loss_sum=self.loss_sum + loss, norm_sum=self.norm_sum + norm)
        return after


@dataclasses.dataclass(frozen=True)
class ResumePoint:
    """Everything that an interrupted training needs to go on with the same bits."""

    training: str
    """Digest of the training that this is a point of; no other training can resume from it."""
    trainer: TrainerState
    snapshot: Snapshot


@runtime_checkable
class Sink(Protocol):
    """Takes the records of one training as they come."""

    def row(self, row: Row) -> None:
        """Append one row of metrics."""
        ...

    def cut_rows(self, n_rows: int) -> None:
        """Forget all rows but the first ``n_rows``: those after a resume point are written again."""
        ...

    def checkpoint(self, step: int, cfg: ModelConfig, state: State) -> None:
        """Keep the weights after ``step`` updates; they change once this has returned."""
        ...

    def save_resume(self, point: ResumePoint) -> None:
        """Replace the resume point."""
        ...

    def load_resume(self) -> ResumePoint | None:
        """The resume point, if there is one."""
        ...


class MemorySink:
    """Keeps everything in memory: ``rows``, ``checkpoints`` by step, and the ``resume`` point."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.checkpoints: dict[int, State] = {}
        self.resume: ResumePoint | None = None

    def row(self, row: Row) -> None:
        self.rows.append(row)

    def cut_rows(self, n_rows: int) -> None:
        del self.rows[n_rows:]

    def checkpoint(self, step: int, cfg: ModelConfig, state: State) -> None:
        self.checkpoints[step] = {name: tensor.detach().clone() for name, tensor in state.items()}

    def save_resume(self, point: ResumePoint) -> None:
        self.resume = point

    def load_resume(self) -> ResumePoint | None:
        return self.resume


@runtime_checkable
class TrainingFiles(Protocol):
    """The files of one training; ``mechproc.runs.folder.RunFolder`` names them."""

    @property
    def metrics(self) -> Path:
        """One row of JSON for each validation."""
        ...

    @property
    def resume(self) -> Path:
        """Weights, Adam's moments and the place in the training."""
        ...

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        ...

    def checkpoint(self, step: int) -> Path:
        """The weights after ``step`` updates."""
        ...


class FolderSink:
    """Keeps everything in files, whose folder is made. Errors are ``StoreError``."""

    def __init__(self, files: TrainingFiles) -> None:
        self.files = files
        self.metrics_file, self.resume_file = files.metrics, files.resume
        self._rows_digest: str | None = None
        """Of the rows that the resume point counts on; None before it is read, and of older ones."""
        try:
            files.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{files.checkpoints} cannot be made: {error.strerror}") from error

    def row(self, row: Row) -> None:
        append(self.metrics_file, (json.dumps(row) + "\n").encode())

    def rows(self) -> list[Row]:
        """All rows so far."""
        try:
            return [parse_json(line, finite=False) for line in self._lines()]
        except ValueError as error:
            raise unreadable(self.metrics_file, error) from error

    def check_resume(self) -> None:
        """Raise a ``StoreError`` when the resume point, or the rows that it counts on, are not as they were written."""
        if point := self.load_resume():
            self._checked_rows(point.trainer.n_rows)

    def cut_rows(self, n_rows: int) -> None:
        lines, whole = self._checked_rows(n_rows)
        if len(lines) > n_rows:
            atomic_write(self.metrics_file, b"".join(whole[:n_rows]))

    def _checked_rows(self, n_rows: int) -> tuple[list[bytes], list[bytes]]:
        """All lines of the metrics, and those that are whole, whose first ``n_rows`` are as they were written."""
        lines = self._lines()
        whole = [line for line in lines if line.endswith(b"\n")]  # a crash may have cut the last one off
        if len(whole) < n_rows:
            raise StoreError(
                f"{self.metrics_file} has {len(whole)} rows, but the resume point was made after {n_rows}: "
                "remove the folder to start over"
            )
        if n_rows and self._rows_digest not in (None, _digest(whole[:n_rows])):
            raise StoreError(
                f"{self.metrics_file} was changed or damaged: its rows are not those of the resume point; "
                "remove the folder to start over"
            )
        return lines, whole

    def checkpoint(self, step: int, cfg: ModelConfig, state: State) -> None:
        save_model(self.files.checkpoint(step), cfg, state, {"step": step})

    def save_resume(self, point: ResumePoint) -> None:
        if self.metrics_file.exists():  # its rows reach the disk before the point that counts on them
            sync(self.metrics_file)
        snapshot = {f.name: getattr(point.snapshot, f.name) for f in dataclasses.fields(Snapshot)}
        tensors = {f"{group}/{name}": t for group, state in snapshot.items() for name, t in state.items()}
        header = {"kind": "resume", "training": point.training, STATE_KEY: point.trainer.to_dict()}
        self._rows_digest = _digest(self._lines()[: point.trainer.n_rows])
        write_tensors(self.resume_file, tensors, header | {"rows_sha256": self._rows_digest})

    def load_resume(self) -> ResumePoint | None:
        if not self.resume_file.exists():
            return None
        tensors, header = read_tensors(self.resume_file)
        if header.get("kind") != "resume":
            raise StoreError(f"{self.resume_file} is not a resume point")
        groups: dict[str, State] = {f.name: {} for f in dataclasses.fields(Snapshot)}
        try:
            for key, tensor in tensors.items():
                group, name = key.split("/")
                groups[group][name] = tensor
            self._rows_digest = header.get("rows_sha256")
            return ResumePoint(str(header["training"]), TrainerState.from_dict(header[STATE_KEY]), Snapshot(**groups))
        except (KeyError, ValueError) as error:  # ValueError: a name without a group; ConfigError is one too
            raise StoreError(f"{self.resume_file} is not a whole resume point: {error}") from error

    def clear_resume(self) -> None:
        """Remove the resume point: the training's results are kept elsewhere now."""
        self.resume_file.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        return read_bytes(self.metrics_file).splitlines(keepends=True) if self.metrics_file.exists() else []


def _digest(lines: list[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()
