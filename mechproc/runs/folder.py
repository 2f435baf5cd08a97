"""The folder of one run. This module alone knows its files.

    haystack-3fa4c1d2e5b6/
        config.json             the run's config and identity
        environment.json        where it was computed (see ``mechproc.provenance``)
        metrics.jsonl           one row for each validation, appended as it comes
        checkpoints/            weights after log-spaced numbers of updates, from 0 on
        resume.safetensors      where an interrupted training goes on; removed at its end
        model.safetensors       the final weights
        test_items.safetensors  scored and correctly predicted tokens of each test item
        test.json               test scores, size and SHA-256 of the other files; written last
        error.json              why the last attempt failed, until one succeeds
        lock                    held by the process that writes the folder

A folder is complete when it has ``test.json`` and the files that ``test.json`` lists, in their sizes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from mechproc.config import digest
from mechproc.errors import StoreError
from mechproc.files import read_json, write_json
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model, read_tensors, save_model, write_tensors
from mechproc.model.state import State
from mechproc.reading import open_regular, parse_json, read_bytes, require_inside, require_regular, unreadable
from mechproc.training.evaluate import Score

NUMBER = (int, float)
CONFIG_FIELDS = {
    "identity": str,
    "config.procedure.kind": str,
    "config.seed": int,
    "config.recipe.parts": dict,
    "config.donors": dict,
}
"""What every ``config.json`` has, and of which type."""
TEST_FIELDS = {
    "accuracy": NUMBER,
    "item_accuracy": NUMBER,
    "loss": NUMBER,
    "n_items": int,
    "ceiling": (int, float, type(None)),
    "baselines": dict,
    "baseline_losses": dict,
    "steps": int,
    "stopped": str,
    "seconds": NUMBER,
    "files": dict,
    "checksum": str,
}
"""What every ``test.json`` has, and of which type."""
_CHECKPOINT = re.compile(r"step_([0-9]+)\.safetensors")
_LISTED = re.compile(r"(checkpoints/)?\w[\w.-]*")
"""The name of a file that ``test.json`` lists; no other leads to a file of the run."""


FILES = {
    "config": "config.json",
    "environment": "environment.json",
    "metrics": "metrics.jsonl",
    "checkpoints": "checkpoints",
    "resume": "resume.safetensors",
    "model": "model.safetensors",
    "test_items": "test_items.safetensors",
    "test": "test.json",
    "error": "error.json",
    "lock_file": "lock",
}
"""Names of the files by the attributes of ``RunFolder`` that have their paths."""


class RunFolder:
    """The files of one run; the folder need not exist."""

    config: Path
    environment: Path
    metrics: Path
    checkpoints: Path
    resume: Path
    model: Path
    test_items: Path
    test: Path
    error: Path
    lock_file: Path

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __getattr__(self, name: str) -> Path:
        """The path of a file, made when it is first asked for: studies look into thousands of folders."""
        if name not in FILES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        path = self.path / FILES[name]
        self.__dict__[name] = path
        return path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    def checkpoint(self, step: int) -> Path:
        """The file of the weights after ``step`` updates."""
        return self.checkpoints / f"step_{step:06d}.safetensors"

    def checkpoint_steps(self) -> list[int]:
        """The numbers of updates after which weights are kept, ascending."""
        names = (_CHECKPOINT.fullmatch(path.name) for path in self.checkpoints.glob("step_*.safetensors"))
        return sorted(int(name[1]) for name in names if name)

    def lock(self, timeout: float = 0) -> FileLock:
        """The lock that a process holds while it writes the folder. Errors: those of ``check_entries``."""
        self.check_entries()
        return FileLock(self.lock_file, timeout=timeout)

    def check_entries(self) -> None:
        """Raise a ``StoreError`` for what may not be written to, the first of ``unusable``."""
        for why in self.unusable().values():
            raise StoreError(why)

    def unusable(self) -> dict[Path, str]:
        """What may not be read or written to, and why: links that lead out of the store, pipes, devices.

        What lies behind such a link is not looked at.
        """
        found: dict[Path, str] = {}
        for here, below in ((self.path.parent, [self.path]), (self.path, None), (self.checkpoints, None)):
            if found.keys() & {self.path, here} or not (below or here.is_dir()):
                continue
            for path in below or sorted(here.iterdir()):
                if why := _unusable(path, self.path.parent):
                    found[path] = why
        return found

    def is_begun(self) -> bool:
        """Whether the folder holds more than its lock, the message of a failure, and what a killed process left."""
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else {"none"}
        rest = names - {self.lock_file.name, self.error.name}
        return any(not (name.startswith(".") and name.endswith(".tmp")) for name in rest)

    def is_locked(self) -> bool:
        """Whether another process writes the folder now; False where that cannot be found out."""
        if not self.lock_file.exists():
            return False
        try:
            with self.lock():
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def is_complete(self) -> bool:
        """Whether the run has ended, been tested, and its files are there in their sizes.

        Checkpoints may have been removed. Contents are checked when they are read. Raises ``StoreError`` when
        ``test.json`` is damaged.
        """
        return self.test.exists() and self.has_files(self.read_test())

    def has_files(self, test: dict[str, Any]) -> bool:
        """Whether the files that ``test`` lists are there in their sizes, checkpoints apart."""
        return all(_size(self.path / name) == about["size"] for name, about in test["files"].items() if "/" not in name)

    def read_config(self, test: dict[str, Any] | None = None) -> dict[str, Any]:
        """``config.json``, with the fields that every run has; that of a complete run as it was written.

        ``test``: what ``read_test`` gave, where that has been read already."""
        plain = read_json(self.config, self.path.parent)
        for field, kind in CONFIG_FIELDS.items():
            expect(self.config, plain, field, kind)
        unknown = plain.keys() - {"identity", "procedure_versions", "config", "checksum"}
        if unknown or plain.get("checksum", _checksum(plain)) != _checksum(plain):  # older ones have none
            raise StoreError(f"{self.config} was changed or damaged: it does not have its checksum")
        self._check_listed(self.config, test)
        return plain

    def write_config(self, identity: str, versions: dict[str, str], config: dict[str, Any]) -> None:
        """Write ``config.json``; ``versions`` are those of the procedures, by the names of their runs."""
        plain = {"identity": identity, "procedure_versions": versions, "config": config}
        write_json(self.config, plain | {"checksum": _checksum(plain)})

    def read_environment(self) -> dict[str, str]:
        """Where the run was computed; that of a complete run as it was written."""
        self._check_listed(self.environment)
        environment = read_json(self.environment, self.path.parent)
        for field in environment:
            expect(self.environment, environment, field, str)
        return environment

    def read_test(self) -> dict[str, Any]:
        """``test.json``; a ``StoreError`` names the first field that is not as it was written."""
        test = read_json(self.test, self.path.parent)
        for field, kind in TEST_FIELDS.items():
            expect(self.test, test, field, kind)
        if test["checksum"] != _checksum(test):
            raise StoreError(f"checksum in {self.test} does not fit the rest of the file: it was changed or damaged")
        for name, about in test["files"].items():
            if not _LISTED.fullmatch(name) or not isinstance(about, dict):
                raise StoreError(f"files in {self.test} has {name!r}: size and digest of a file of the run")
            for field, kind in (("size", int), ("sha256", str)):
                expect(f"{name} in {self.test}", about, field, kind)
        return test

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl`` so far, those of a complete run as they were written.

        A last line without an end was cut off by a crash and is left out.
        """
        self._check_listed(self.metrics)
        content = read_bytes(self.metrics, self.path.parent)
        try:
            whole, _, _ = content.decode("utf-8").rpartition("\n")
            rows = [parse_json(line, finite=False) for line in whole.splitlines()]
        except ValueError as error:
            raise unreadable(self.metrics, error) from error
        if not all(isinstance(row, dict) for row in rows):
            raise StoreError(f"{self.metrics} cannot be read: a line does not hold a JSON object")
        return rows

    def progress(self) -> tuple[int, float] | None:
        """Updates made and mean training loss (nats) at the last validation; None before any update."""
        rows = self.read_metrics() if self.metrics.exists() else []
        if not rows or not rows[-1].get("step"):
            return None
        return int(rows[-1]["step"]), float(rows[-1].get("train_loss") or 0.0)

    def load_model(self) -> tuple[ModelConfig, State]:
        """The final weights; a ``StoreError`` when their bytes are not those that were written."""
        return self._load(self.model)

    def load_checkpoint(self, step: int) -> tuple[ModelConfig, State]:
        """The weights after ``step`` updates; those of a complete run are checked as ``load_model`` does."""
        path = self.checkpoint(step)
        if not path.exists():
            kept = ", ".join(map(str, self.checkpoint_steps())) or "none"
            raise StoreError(f"step = {step} is not a checkpoint of {self.path}: kept are {kept}")
        return self._load(path)

    def load_test_items(self) -> tuple[np.ndarray, np.ndarray]:
        """Correctly predicted and scored tokens of each test item, int64 [item] both."""
        self._check_listed(self.test_items)
        tensors, _ = read_tensors(self.test_items)
        return tensors["n_correct"].numpy(), tensors["n_scored"].numpy()

    def failure(self) -> str | None:
        """Why the last attempt failed, in one line; None when none has since the last success."""
        return str(read_json(self.error, self.path.parent).get("error")) if self.error.exists() else None

    def write_failure(self, error: str, traceback: str = "") -> None:
        """Keep why an attempt failed: in one line, and with the traceback of an error that is not the user's."""
        write_json(self.error, {"error": error, "traceback": traceback.splitlines()})

    def write_result(self, identity: str, cfg: ModelConfig, state: State, score: Score, about: dict[str, Any]) -> None:
        """Write the final weights and the test scores; the folder is complete after that.

        ``about`` holds the fields of ``TEST_FIELDS`` that do not follow from ``score`` and the files.
        """
        save_model(self.model, cfg, state, {"run": identity})
        counts = {"n_correct": torch.from_numpy(score.n_correct), "n_scored": torch.from_numpy(score.n_scored)}
        write_tensors(self.test_items, counts, {"kind": "test items", "run": identity})
        test = {
            "accuracy": score.token_accuracy,
            "item_accuracy": score.item_accuracy,
            "loss": score.loss,
            "n_items": len(score.n_correct),
            **about,
            "files": {name: describe(self.path / name) for name in self._listed()},
        }
        write_json(self.test, test | {"checksum": _checksum(test)})

    def _load(self, path: Path) -> tuple[ModelConfig, State]:
        self._check_listed(path)
        cfg, state, _ = load_model(path)
        return cfg, state

    def _check_listed(self, path: Path, test: dict[str, Any] | None = None) -> None:
        """Raise a ``StoreError`` for a file that leads out of the store or is none, and when ``test.json``, if it is
        whole, lists it with another size or digest. ``test`` as for ``read_config``."""
        require_regular(path, self.path.parent)
        if test is None and not self.test.exists():
            return
        name = path.relative_to(self.path).as_posix()
        try:
            about = (self.read_test() if test is None else test)["files"].get(name)
        except StoreError:  # a run that is not complete; who reads its scores learns why
            return
        if about is not None:
            self.check(name, about)

    def check(self, name: str, about: dict[str, Any]) -> None:
        """Raise a ``StoreError`` unless the file has the size and the digest that ``test.json`` keeps of it."""
        path = self.path / name
        actual = describe(path, self.path.parent)
        for field in ("size", "sha256"):
            if actual[field] != about.get(field):
                raise StoreError(f"{path} is damaged: its {field} is {actual[field]}, {about.get(field)} was written")

    def has(self, name: str, about: dict[str, Any]) -> bool:
        """Whether the file is there as it was written."""
        try:
            self.check(name, about)
        except StoreError:
            return False
        return True

    def _listed(self) -> list[str]:
        """The files whose size and digest ``test.json`` keeps, relative to the folder."""
        files = [self.config, self.environment, self.metrics, self.model, self.test_items]
        files += [self.checkpoint(step) for step in self.checkpoint_steps()]
        return [file.relative_to(self.path).as_posix() for file in files if file.exists()]


def describe(path: Path, within: Path | None = None) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file; ``StoreError`` when it cannot be read."""
    with open_regular(path, within) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": sha256}


def _checksum(test: dict[str, Any]) -> str:
    return digest({field: value for field, value in test.items() if field != "checksum"})


def _unusable(path: Path, root: Path) -> str:
    """Why an entry of a store may not be used; empty where it may."""
    try:
        require_inside(path, root)
    except StoreError as error:
        return str(error)
    special = path.exists() and not path.is_file() and not path.is_dir()
    return f"{path} cannot be used: it is a pipe, a socket or a device" if special else ""


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def expect(file: Path | str, plain: Any, field: str, kind: type | tuple[type, ...]) -> None:
    """Raise a ``StoreError`` unless ``plain`` has the field, whose path is joined with dots, in this type."""
    value = plain
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise StoreError(f"{field} in {file} is {value!r}")
