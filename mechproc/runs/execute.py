"""From a run's config to its folder."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from pathlib import Path

from mechproc.errors import StoreError
from mechproc.files import read_json, write_json
from mechproc.model.io import save_model
from mechproc.provenance import differences, provenance
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.training.engines import EngineName, choose
from mechproc.training.loop import Progress, train
from mechproc.training.sinks import FolderSink
from mechproc.transfer.recipe import assemble, frozen

TEST_SEED = 0
"""Test items are those of this seed in every run: they are crossed with the seeds of the models."""


def execute(
    run: RunConfig,
    store: Store,
    progress: Progress | None = None,
    engine: EngineName | str = "auto",
    device: str = "cpu",
) -> None:
    """Train one run whose donors are complete, going on from its resume point; nothing is done for a complete run.

    ``engine`` makes the updates on ``device``; ``auto`` takes the fastest that covers the model there. The choice is
    provenance, not identity.

    Raises ``StoreError`` when the folder cannot be written or is being written by another process, or when a donor is
    not complete; ``TrainingError`` when loss or gradient stops being finite; ``ConfigError`` when the engine that is
    asked for cannot train this model here.
    """
    if store.is_complete(run):
        return
    chosen = choose(engine, run.model, device=device)
    donors = {name: donor.weights(store) for name, donor in run.donors.items()}
    state = assemble(run.recipe, run.model, run.seed, donors, run.start)
    with store.writing(run) as folder:
        started = time.monotonic()
        sink = FolderSink(folder)
        _record_provenance(folder, provenance(chosen.label, device), resuming=sink.resume_file.exists())
        result = train(
            run.procedure,
            run.model,
            state,
            run.training,
            run.seed,
            sink=sink,
            frozen=frozen(run.recipe, run.model),
            progress=progress,
            engine=chosen.make,
        )
        save_model(folder / "model.safetensors", run.model, result.state, {"run": run.identity})
        items = run.procedure.items(run.training.n_test, seed=TEST_SEED, split="test")
        test = {
            "accuracy": result.test.token_accuracy,
            "item_accuracy": result.test.item_accuracy,
            "loss": result.test.loss,
            "n_items": len(result.test.n_correct),
            "ceiling": run.procedure.ceiling(items),
            "baselines": run.procedure.baselines(items),
            "baseline_losses": run.procedure.baseline_losses(items),
            "steps": result.steps,
            "stopped": result.stopped,
            "seconds": round(time.monotonic() - started, 1),
            "n_correct": result.test.n_correct.tolist(),
            "n_scored": result.test.n_scored.tolist(),
        }
        write_json(folder / "test.json", test)
        sink.clear_resume()


def _record_provenance(folder: Path, here: dict[str, str], resuming: bool) -> None:
    """Write where the run is computed; refuse to go on where the first half of it was computed otherwise."""
    path = folder / "environment.json"
    if resuming and path.exists() and (apart := differences(read_json(path), here)):
        raise StoreError(
            f"{folder} was begun in another environment ({apart[0]}), where its bits would differ: "
            f"go on there, or remove the folder to start over"
        )
    write_json(path, here | {"processor": platform.processor(), "date": datetime.now(UTC).date().isoformat()})
