"""Train one run and write its folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from mechproc.errors import StoreError
from mechproc.files import read_json, write_json
from mechproc.procedures import Items, Procedure
from mechproc.procedures.arithmetic import Arithmetic
from mechproc.provenance import differences, provenance
from mechproc.runs.catalogue import remember
from mechproc.runs.config import RankedHeads, RunConfig
from mechproc.runs.folder import RunFolder
from mechproc.runs.store import Store
from mechproc.training.data import SOURCES, Sources
from mechproc.training.engines import EngineName, choose
from mechproc.training.engines.base import Worker
from mechproc.training.interruptions import Interrupted, interrupt_deferred
from mechproc.training.loop import Course, Progress, completed, course
from mechproc.training.sinks import FolderSink
from mechproc.transfer.recipe import assemble, frozen


def execute(
    run: RunConfig,
    store: Store,
    progress: Progress | None = None,
    engine: EngineName | str = "auto",
    device: str = "cpu",
    start_over: bool = False,
) -> None:
    """Train one run whose donors are complete, going on from its resume point, and add its record.

    Nothing is done when the store has its weights. ``engine`` makes the updates on ``device``; ``auto`` takes the
    fastest that covers the model there. The choice is provenance, not identity. A run that was begun in an environment
    whose bits differ from those of this one is refused; with ``start_over`` it begins anew.

    Raises ``RunBusyError`` when another process is writing the folder; ``StoreError`` when the folder cannot be written
    or a donor is not complete; ``TrainingError`` when loss or gradient stops being finite; ``ConfigError`` when the
    engine that is asked for cannot train this model here.
    """
    if not store.has_weights(run):
        chosen = choose(engine, run.model, device=device)
        completed(execution(run, store, chosen.make, chosen.label, device, progress, start_over))


def execution(
    run: RunConfig,
    store: Store,
    engine: Callable[..., Worker],
    label: str,
    device: str = "cpu",
    progress: Progress | None = None,
    start_over: bool = False,
    *,
    interrupts: Callable[[], AbstractContextManager[Interrupted]] = interrupt_deferred,
    sources: Sources = SOURCES,
) -> Course[None]:
    """What ``execute`` does, with whoever drives it computing the updates and evaluations.

    ``label`` is what provenance says of ``engine``, which makes the worker of the course; ``interrupts`` and
    ``sources`` are those of ``mechproc.training.loop.course``.
    """
    if store.has_weights(run):
        return
    donors = {name: donor.weights(store) for name, donor in run.donors.items()}
    state = assemble(run.recipe, run.model, run.seed, donors, run.start)
    with store.writing(run) as folder:
        if folder.is_complete():  # by another process, while this one waited for the lock
            return
        for outdated in (folder.test, folder.error):  # scores whose weights are gone, and the last failure
            outdated.unlink(missing_ok=True)
        started = time.monotonic()
        sink = FolderSink(folder)
        _write_provenance(folder, provenance(label, device), start_over)
        result = yield from course(
            run.procedure,
            run.model,
            state,
            run.training,
            run.seed,
            sink=sink,
            frozen=frozen(run.recipe, run.model),
            progress=progress,
            engine=engine,
            interrupts=interrupts,
            sources=sources,
        )
        about = references(run.procedure, result.test_items) | {
            "steps": result.steps,
            "stopped": result.stopped,
            "seconds": round(time.monotonic() - started, 1),
        }
        ranked = {name: donor for name, donor in run.donors.items() if isinstance(donor, RankedHeads)}
        if ranked:  # which heads these were in the donor
            about["head_order"] = {name: donor.order(store) for name, donor in ranked.items()}
        if isinstance(run.procedure, Arithmetic):  # its positions are the digits of the answer
            test = result.test
            counts = {"correct": test.correct_by_position.tolist(), "scored": test.scored_by_position.tolist()}
            about["by_position"] = counts
        folder.write_result(run.identity, run.model, result.state, result.test, about)
        sink.clear_resume()
        remember(folder)
    store.record(run)


def references(procedure: Procedure, items: Items) -> dict[str, Any]:
    """What scores on ``items`` are compared with: the best attainable accuracy and the trivial baselines."""
    return {
        "ceiling": procedure.ceiling(items),
        "baselines": procedure.baselines(items),
        "baseline_losses": procedure.baseline_losses(items),
    }


def _write_provenance(folder: RunFolder, here: dict[str, str], start_over: bool) -> None:
    """Write where the run is computed; what was computed otherwise is not gone on from."""
    path = folder.environment
    if folder.resume.exists() and path.exists() and (apart := differences(read_json(path), here)):
        if not start_over:
            raise StoreError(
                f"{folder} was begun in another environment ({apart[0]}), where its bits would differ: "
                f"go on there, or remove the folder to start over"
            )
        folder.resume.unlink()
    made = {"processor": platform.processor(), "host": platform.node(), "date": datetime.now(UTC).date().isoformat()}
    write_json(path, here | made)
