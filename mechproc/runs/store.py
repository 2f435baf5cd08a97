"""Where runs are kept: a folder for each run (``mechproc.runs.folder``), and records of finished runs beside them.

A complete run is never written again. A folder that holds another run than its name says is refused. Scores are read
from records first, so that every reader sees the same numbers whatever was trained again on this machine; weights come
from folders alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import Timeout

from mechproc.errors import StoreError
from mechproc.files import read_json
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.runs import records as records_
from mechproc.runs.config import RunConfig
from mechproc.runs.folder import RunFolder
from mechproc.runs.records import Record, Records, columns


class RunBusyError(StoreError):
    """Another process is writing the run's folder."""


class Store:
    """A folder of runs, and a folder of records if one is given; neither need exist."""

    def __init__(self, root: str | Path, records: str | Path | None = None) -> None:
        self.root = Path(root)
        self._place: tuple[int, int] | None = None
        self.records = None if records is None else Records(records)

    def stay_here(self) -> None:
        """Make the folder of runs if need be, and from now on refuse to write anywhere else.

        When its file system is taken away, an empty folder of the same name may be left, whose content would be hidden
        once it is back.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._place = _place(self.root)
        except OSError as error:
            raise StoreError(f"{self.root} cannot be made: {error.strerror or error}") from error

    def folder(self, run: RunConfig) -> RunFolder:
        """Where ``run`` is kept."""
        return RunFolder(self.root / run.name)

    def has_weights(self, run: RunConfig) -> bool:
        """Whether ``run`` has been trained to its end and tested here."""
        return self.folder(run).is_complete()

    def has_scores(self, run: RunConfig) -> bool:
        """Whether the scores of ``run`` are known: from a record, or because its folder is complete."""
        return self._has_record(run) or self.has_weights(run)

    def missing(self, runs: Iterable[RunConfig], weights: bool = False) -> list[RunConfig]:
        """The trainings that it takes to have the scores of ``runs`` and of their donors: each once, donors first.

        A run that has to be trained needs the weights of its donors, which are trained again where only their scores
        are kept. With ``weights``, the weights of ``runs`` are wanted too. A folder that is damaged counts as missing.
        """
        needed: dict[str, RunConfig] = {}

        def need(run: RunConfig) -> None:
            if run.identity not in needed and not self._is_intact(run):
                for donor in donor_runs(run):
                    need(donor)
                needed[run.identity] = run

        for run in runs:
            for scored in run.with_donors():
                if not self._has_record(scored) and not self._is_intact(scored):
                    need(scored)
            if weights:
                need(run)
        return list(needed.values())

    @contextlib.contextmanager
    def writing(self, run: RunConfig) -> Iterator[RunFolder]:
        """The run's folder, made if need be and locked against every other process that would write it.

        Raises ``RunBusyError`` when another process has the lock, ``StoreError`` when the folder cannot be written.
        """
        folder = self.folder(run)
        self._check_place()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            with folder.lock(timeout=1):  # who lists the runs holds it for a moment
                self._claim(run, folder)
                yield folder
        except Timeout:
            raise RunBusyError(f"{folder} is being written by another process") from None
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{folder} cannot be written: {error.strerror or error}") from error

    def model(self, run: RunConfig) -> tuple[ModelConfig, State]:
        """The final weights of a complete run."""
        return self._complete(run).load_model()

    def checkpoint(self, run: RunConfig, step: int) -> tuple[ModelConfig, State]:
        """The weights after ``step`` updates; 0 are those that training started from."""
        return self.folder(run).load_checkpoint(step)

    def checkpoint_steps(self, run: RunConfig) -> list[int]:
        """The numbers of updates after which weights are kept, ascending."""
        return self.folder(run).checkpoint_steps()

    def test(self, run: RunConfig) -> dict[str, Any]:
        """The test scores of a run; the fields are those of ``mechproc.runs.folder.TEST_FIELDS`` without the files."""
        if record := self._record(run):
            return record["test"] | {"seconds": record["made"]["seconds"]}
        test = self._complete(run).read_test()
        return {field: value for field, value in test.items() if field not in ("files", "checksum")}

    def test_items(self, run: RunConfig) -> tuple[np.ndarray, np.ndarray]:
        """Correctly predicted and scored tokens of each test item of a complete run, int64 [item] both."""
        return self._complete(run).load_test_items()

    def provenance(self, run: RunConfig) -> dict[str, str]:
        """Where the scores of ``run`` were computed."""
        if record := self._record(run):
            return dict(record["provenance"])
        return self._complete(run).read_environment()

    def metrics(self, run: RunConfig) -> pd.DataFrame:
        """One row for each validation so far, floats to ``mechproc.runs.records.DIGITS`` significant digits."""
        if record := self._record(run):
            return _frame(record["metrics"])
        return _frame(columns(self.folder(run).read_metrics()))

    def failure(self, run: RunConfig) -> str | None:
        """Why the last attempt to train ``run`` failed; None when none has since the last success."""
        return self.folder(run).failure()

    def write_failure(self, run: RunConfig, error: str, traceback: str = "") -> None:
        """Keep in the folder of ``run`` why it failed, unless it cannot be written or is another run's."""
        folder, held = self.folder(run), None
        with contextlib.suppress(OSError):
            held = read_json(folder.config).get("identity")
        with contextlib.suppress(OSError):
            self._check_place()
            folder.check_entries()
            if held in (None, run.identity):
                folder.path.mkdir(parents=True, exist_ok=True)
                folder.write_failure(error, traceback)

    def record(self, run: RunConfig) -> None:
        """Add the record of a complete run, unless there is one or the store keeps none."""
        if self.records is not None:
            self.records.add(run, records_.make(run, self._complete(run)))

    def record_complete(self, runs: Iterable[RunConfig]) -> None:
        """Add the records that an interruption left out, of complete runs and of their donors."""
        if self.records is None:
            return
        for needed in {r.identity: r for run in runs for r in run.with_donors()}.values():
            if not self._has_record(needed) and self._is_intact(needed):
                self.record(needed)

    def _is_intact(self, run: RunConfig) -> bool:
        """``has_weights``, and False where the folder is damaged: whoever then trains the run names the damage."""
        try:
            return self.has_weights(run)
        except StoreError:
            return False

    def _check_place(self) -> None:
        if self._place is None:
            return
        with contextlib.suppress(OSError):
            if self._place == _place(self.root):
                return
        raise StoreError(
            f"{self.root} is not the folder that it was when the study began: its file system was taken away, or the "
            "folder was replaced; bring it back and run the study again, which goes on from there"
        )

    def _has_record(self, run: RunConfig) -> bool:
        return self.records is not None and run in self.records

    def _record(self, run: RunConfig) -> Record | None:
        return None if self.records is None else self.records.get(run)

    def _claim(self, run: RunConfig, folder: RunFolder) -> None:
        if folder.config.exists():
            if (held := folder.read_config()["identity"]) != run.identity:
                raise StoreError(f"{folder} holds another run (identity {held}); it is not overwritten")
        else:
            versions = {needed.name: needed.procedure.source_version for needed in run.with_donors()}
            folder.write_config(run.identity, versions, run.to_dict())

    def _complete(self, run: RunConfig) -> RunFolder:
        """The folder of a complete run; a ``StoreError`` says what is missing."""
        folder = self.folder(run)
        if not folder.is_complete():
            for place, kind in ((self.root, "folder of runs"), (folder.path, "run")):
                if not place.is_dir():
                    raise StoreError(f"{place} does not exist: there is no such {kind}")
            raise StoreError(f"{folder} is not a complete run")
        return folder


def donor_runs(run: RunConfig) -> list[RunConfig]:
    """The runs whose weights ``run`` takes parts of."""
    return list({needed.identity: needed for donor in run.donors.values() for needed in donor.needs}.values())


def _place(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return about.st_dev, about.st_ino


def _frame(metrics: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: metrics[name] for name in sorted(metrics, key=lambda name: (name != "step", name))})
