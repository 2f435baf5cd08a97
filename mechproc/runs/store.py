"""Runs on disk: one folder each, named by what was run.

    haystack-3fa4c1d2e5b6/
        config.json         what was run, readable, with its identity
        environment.json    where (see ``provenance``)
        metrics.jsonl       one row for each evaluation, written as it comes
        checkpoints/        log-spaced weights from step 0 on
        resume.safetensors  where an interrupted training goes on
        model.safetensors   the final weights
        test.json           test scores; written last, so a folder that has it is complete

A complete run is never written again. A folder that holds another config than its name says is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from mechproc.errors import StoreError
from mechproc.files import read_json, write_json
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model
from mechproc.model.state import State
from mechproc.runs.config import RunConfig


class Store:
    """A folder of runs."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, run: RunConfig) -> Path:
        """Where ``run`` is kept; the folder need not exist."""
        return self.root / run.name

    def is_complete(self, run: RunConfig) -> bool:
        """True when ``run`` has been trained to its end and tested."""
        return (self.folder(run) / "test.json").exists()

    def missing(self, runs: list[RunConfig]) -> list[RunConfig]:
        """Those of ``runs`` and of the runs they need that are not complete: each once, donors first."""
        needed = {r.identity: r for run in runs for r in run.with_donors()}
        return [run for run in needed.values() if not self.is_complete(run)]

    @contextmanager
    def writing(self, run: RunConfig) -> Iterator[Path]:
        """The run's folder, made if need be and locked against every other process that would write it."""
        folder = self.folder(run)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock", timeout=1)  # who lists the runs holds it for a moment
            with lock:
                self._claim(run, folder)
                yield folder
        except Timeout:
            raise StoreError(f"{folder} is being written by another process") from None
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{folder} cannot be written: {error}") from error

    def model(self, run: RunConfig) -> tuple[ModelConfig, State]:
        """The final weights of a complete run."""
        self._require_complete(run)
        cfg, state, _ = load_model(self.folder(run) / "model.safetensors")
        return cfg, state

    def checkpoint(self, run: RunConfig, step: int) -> tuple[ModelConfig, State]:
        """The weights after ``step`` steps; 0 are those that training started from."""
        path = self.folder(run) / "checkpoints" / f"step_{step:06d}.safetensors"
        if not path.exists():
            kept = ", ".join(str(s) for s in self.checkpoint_steps(run)) or "none"
            raise StoreError(f"step = {step} is not a checkpoint of {self.folder(run)}: kept are {kept}")
        cfg, state, _ = load_model(path)
        return cfg, state

    def checkpoint_steps(self, run: RunConfig) -> list[int]:
        """The steps of which weights are kept, ascending."""
        return sorted(
            int(p.stem.removeprefix("step_")) for p in (self.folder(run) / "checkpoints").glob("step_*.safetensors")
        )

    def test(self, run: RunConfig) -> dict[str, Any]:
        """The test scores of a complete run, as ``execute`` wrote them."""
        self._require_complete(run)
        return read_json(self.folder(run) / "test.json")

    def provenance(self, run: RunConfig) -> dict[str, str]:
        """Where the run was computed."""
        self._require_complete(run)
        return read_json(self.folder(run) / "environment.json")

    def metrics(self, run: RunConfig) -> pd.DataFrame:
        """One row for each evaluation so far."""
        path = self.folder(run) / "metrics.jsonl"
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error
        return pd.DataFrame(rows)

    def _claim(self, run: RunConfig, folder: Path) -> None:
        path = folder / "config.json"
        if path.exists():
            if (held := read_json(path).get("identity")) != run.identity:
                raise StoreError(f"{folder} holds another run (identity {held}); it is not overwritten")
        else:
            versions = {needed.name: needed.procedure.source_version for needed in run.with_donors()}
            write_json(path, {"identity": run.identity, "procedure_versions": versions, "config": run.to_dict()})

    def _require_complete(self, run: RunConfig) -> None:
        if not self.is_complete(run):
            raise StoreError(f"{self.folder(run)} is not a complete run")
