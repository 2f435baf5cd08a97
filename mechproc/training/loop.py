"""The training loop.

``course`` is the loop; it says what it wants computed and goes on with the answer. ``train`` answers with an engine of
its own; ``mechproc.training.rounds`` answers many courses at a time, with one computation for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeVar

import torch

from mechproc.config import digest
from mechproc.errors import StoreError, require
from mechproc.model.config import MODEL_VERSION, ModelConfig
from mechproc.model.state import State, check_state, dtype_of
from mechproc.procedures.base import Items, Procedure
from mechproc.procedures.lengths import Curriculum
from mechproc.training.config import TrainingConfig
from mechproc.training.data import SOURCES, Batch, Sources, check_fit
from mechproc.training.engines.base import Engine, ReferenceEngine, Worker
from mechproc.training.evaluate import Score
from mechproc.training.interruptions import Interrupted, SuspendedError, interrupt_deferred
from mechproc.training.optimizer import Frozen
from mechproc.training.schedule import checkpoint_steps, learning_rate
from mechproc.training.sinks import MemorySink, ResumePoint, Sink, TrainerState

Progress = Callable[[int, int, float, float], None]
"""Called after each step with the steps done, the steps in all, the step's loss (nats) and the seconds left."""
Stopped = Literal["steps", "patience", "accuracy"]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """A finished training."""

    state: State
    """The final weights, which are the last ones and not the best ones."""
    steps: int
    """Updates made."""
    stage: int
    """Curriculum stages passed."""
    stopped: Stopped
    """Why it ended: all steps made, no better validation for too long, or the accuracy asked for reached."""
    test: Score
    """Scores on ``test_items``."""
    test_items: Items
    """The first ``n_test`` test items of the procedure's full range of lengths."""


@dataclasses.dataclass(frozen=True)
class Update:
    """A course wants an update; the answer is loss (nats) and gradient norm, both before it."""

    worker: Worker
    batch: Batch
    step: int

    def answer(self) -> tuple[float, float]:
        """The worker's own."""
        return self.worker.step(self.batch, self.step)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A course wants the score of its weights on these batches."""

    worker: Worker
    batches: list[Batch]

    def answer(self) -> Score:
        """The worker's own."""
        return self.worker.evaluate(self.batches)


T = TypeVar("T")
Course = Generator[Update | Evaluation, Any, T]
"""What wants updates and evaluations, one at a time, and ends with a result."""


def train(
    procedure: Procedure,
    cfg: ModelConfig,
    state: State,
    training: TrainingConfig,
    seed: int,
    *,
    sink: Sink | None = None,
    frozen: Frozen | None = None,
    progress: Progress | None = None,
    engine: Callable[..., Engine] = ReferenceEngine,
    resume_every_s: float = 60.0,
) -> TrainingResult:
    """Train ``state``, which is not modified, on ``procedure``; resume from the sink's resume point if it has one.

    ``seed`` decides training items and dropout; validation and test items are the same for every seed. ``frozen`` says
    which entries of which tensors never change. A training that is stopped and resumed ends with the same bits as
    one that was not: rows after the resume point are written again.

    Each validation gives the sink one row: ``step`` (updates made), ``stage`` (of its items), ``train_loss`` and
    ``gradient_norm`` (means over the updates since the last row, before clipping; ``None`` at step 0),
    ``learning_rate`` (of the next update), ``loss``, ``token_accuracy`` and ``item_accuracy`` (on the validation items
    of this stage). Losses are in nats, per scored token.

    Raises ``ConfigError`` before the first step for what cannot work, ``TrainingError`` with the step when loss or
    gradient is not finite. Ctrl-C and SIGTERM take effect after the current step, once a resume point has been saved.
    """
    return completed(
        course(
            procedure, cfg, state, training, seed,
            sink=sink, frozen=frozen, progress=progress, engine=engine, resume_every_s=resume_every_s,
        )
    )  # fmt: skip


def completed(course: Course[T]) -> T:
    """The result of a course whose every wish its own worker answers."""
    answer = None
    with contextlib.closing(course):
        while True:
            try:
                wanted = course.send(answer)
            except StopIteration as end:
                return end.value
            answer = wanted.answer()


def course(
    procedure: Procedure,
    cfg: ModelConfig,
    state: State,
    training: TrainingConfig,
    seed: int,
    *,
    sink: Sink | None = None,
    frozen: Frozen | None = None,
    progress: Progress | None = None,
    engine: Callable[..., Worker] = ReferenceEngine,
    resume_every_s: float = 60.0,
    interrupts: Callable[[], AbstractContextManager[Interrupted]] = interrupt_deferred,
    sources: Sources = SOURCES,
) -> Course[TrainingResult]:
    """What ``train`` does, with whoever drives it computing the updates and evaluations.

    ``engine`` makes the worker, which is closed at the end; ``interrupts`` tells what interrupted the training;
    ``sources`` gives the items.
    """
    check_fit(cfg, procedure)
    check_state(state, cfg)
    dtype = dtype_of(state)
    require(dtype in (torch.float32, torch.float64), "dtype of the weights", dtype, "torch.float32 or torch.float64")
    sink = sink or MemorySink()
    fingerprint = _fingerprint(procedure, cfg, state, training, seed, frozen)
    n_stages = procedure.lengths.n_stages
    validation = _Validation(procedure, training, sources)
    test_set = sources.evaluation_set(procedure, training.n_test, "test")  # now, as a rule may have none to draw
    checkpoints = frozenset(checkpoint_steps(training))

    with contextlib.closing(engine(cfg, state, training, seed, frozen)) as worker:
        here = trainer = _resumed(sink, fingerprint, worker)
        saved = started = time.monotonic()
        first_step = trainer.step

        def save() -> None:  # as it was before the validation, which is repeated
            sink.save_resume(ResumePoint(fingerprint, here, worker.snapshot()))

        with interrupts() as interrupted, sources.stream(procedure, seed, training.batch_size) as stream:
            while True:
                here, stopped = trainer, None
                if trainer.step in checkpoints:
                    sink.checkpoint(trainer.step, cfg, worker.weights)
                if trainer.step % training.evaluate_every == 0 or trainer.step == training.last_step:
                    score = yield from _wanted(Evaluation(worker, validation.batches(trainer.stage)), save)
                    sink.row(_row(trainer, training, score))
                    trainer, stopped = _judged(trainer, score.token_accuracy, training, procedure)
                if stopped or interrupted() is not None or time.monotonic() - saved >= resume_every_s:
                    save()
                    saved = time.monotonic()
                if (interruption := interrupted()) is not None:
                    raise interruption
                if stopped:
                    break
                batch = stream.batch(trainer.step, trainer.stage if n_stages > 1 else None)
                loss, norm = yield from _wanted(Update(worker, batch, trainer.step), save)
                trainer = trainer.updated(loss, norm)
                if progress:
                    per_step = (time.monotonic() - started) / (trainer.step - first_step)
                    progress(trainer.step, training.last_step, loss, per_step * (training.last_step - trainer.step))

        test = yield Evaluation(worker, test_set.batches)
        final = worker.snapshot().weights
    return TrainingResult(final, trainer.step, trainer.stage, stopped, test, test_set.items)


def _wanted(wish: Update | Evaluation, save: Callable[[], None]) -> Course[Any]:
    """The answer to a wish; a course that is suspended instead saves its resume point."""
    try:
        return (yield wish)
    except SuspendedError:
        save()
        raise


class _Validation:
    """The validation items of the current stage, drawn once."""

    def __init__(self, procedure: Procedure, training: TrainingConfig, sources: Sources) -> None:
        self.procedure, self.n_items, self.sources = procedure, training.n_validation, sources
        self.stage = -1

    def batches(self, stage: int) -> list[Batch]:
        if stage != self.stage:
            of_stage = stage if self.procedure.lengths.n_stages > 1 else None
            self.stage, self.items = (
                stage,
                self.sources.evaluation_set(self.procedure, self.n_items, "validation", of_stage),
            )
        return self.items.batches


def _row(trainer: TrainerState, training: TrainingConfig, score: Score) -> dict[str, float | int | None]:
    n_updates = trainer.step - trainer.last_row_step
    return {
        "step": trainer.step,
        "stage": trainer.stage,
        "train_loss": trainer.loss_sum / n_updates if n_updates else None,
        "gradient_norm": trainer.norm_sum / n_updates if n_updates else None,
        "learning_rate": learning_rate(training, trainer.step),
        "loss": score.loss,
        "token_accuracy": score.token_accuracy,
        "item_accuracy": score.item_accuracy,
    }


def _judged(
    trainer: TrainerState, accuracy: float, training: TrainingConfig, procedure: Procedure
) -> tuple[TrainerState, Stopped | None]:
    """What a validation changes: a new stage, the best accuracy, or the end."""
    better = trainer.best is None or accuracy > trainer.best
    best, stale = (accuracy, 0) if better else (trainer.best, trainer.stale + 1)
    stage, lengths = trainer.stage, procedure.lengths
    on_last_stage = stage == lengths.n_stages - 1
    if isinstance(lengths, Curriculum) and not on_last_stage and accuracy >= lengths.threshold:
        stage, best, stale = stage + 1, None, 0  # other items: accuracies cannot be compared
    after = dataclasses.replace(
        trainer,
        stage=stage,
        best=best,
        stale=stale,
        n_rows=trainer.n_rows + 1,
        loss_sum=0.0,
        norm_sum=0.0,
        last_row_step=trainer.step,
    )
    if trainer.step == training.last_step:
        return after, "steps"
    if on_last_stage and training.stop_at_accuracy is not None and accuracy >= training.stop_at_accuracy:
        return after, "accuracy"
    if training.patience is not None and stale >= training.patience:
        return after, "patience"
    return after, None


def _resumed(sink: Sink, fingerprint: str, worker: Worker) -> TrainerState:
    """The state from which the training resumes; the worker and the sink's rows are reset to it."""
    point = sink.load_resume()
    if point is None:
        sink.cut_rows(0)
        return TrainerState()
    if point.training != fingerprint:
        raise StoreError(
            f"the resume point after step {point.trainer.step} is of another training: other settings or weights"
        )
    worker.restore(point.snapshot, point.trainer.step)
    sink.cut_rows(point.trainer.n_rows)
    return point.trainer


def _fingerprint(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig, seed: int, frozen: Frozen | None
) -> str:
    """The digest of everything that decides the bits of a training, its first weights included."""
    bits = hashlib.sha256()
    for tensors in (state, frozen or {}):
        for name in sorted(tensors):
            bits.update(name.encode())
            bits.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    configs = {"procedure": procedure.to_dict(), "model": cfg.to_dict(), "training": training.to_dict()}
    versions = {"procedure": procedure.source_version, "model": MODEL_VERSION}
    return digest({"configs": configs, "versions": versions, "seed": seed, "weights": bits.hexdigest()})
