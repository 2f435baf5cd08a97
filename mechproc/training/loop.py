"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from mechproc.config import digest
from mechproc.errors import StoreError, require
from mechproc.model.config import MODEL_VERSION, ModelConfig
from mechproc.model.state import State, check_state, dtype_of
from mechproc.procedures.base import Items, Procedure
from mechproc.procedures.lengths import Curriculum
from mechproc.training.config import TrainingConfig
from mechproc.training.data import TrainStream, check_fit, evaluation_batches, evaluation_items
from mechproc.training.engines.base import Engine, ReferenceEngine
from mechproc.training.evaluate import Score
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
    check_fit(cfg, procedure)
    check_state(state, cfg)
    dtype = dtype_of(state)
    require(dtype in (torch.float32, torch.float64), "dtype of the weights", dtype, "torch.float32 or torch.float64")
    sink = sink or MemorySink()
    fingerprint = _fingerprint(procedure, cfg, state, training, seed, frozen)
    worker = engine(cfg, state, training, seed, frozen)
    trainer = _resumed(sink, fingerprint, worker)
    n_stages = procedure.lengths.n_stages
    validation = _Validation(procedure, training, worker)
    test_items = evaluation_items(procedure, training.n_test, "test")  # now, as a rule may have none to draw
    checkpoints = frozenset(checkpoint_steps(training))
    started, first_step = time.monotonic(), trainer.step
    saved = started

    with _interrupt_deferred() as interrupted, TrainStream(procedure, seed, training.batch_size) as stream:
        while True:
            here, stopped = trainer, None
            if trainer.step in checkpoints:
                sink.checkpoint(trainer.step, cfg, worker.weights)
            if trainer.step % training.evaluate_every == 0 or trainer.step == training.last_step:
                score = validation.score(trainer.stage)
                sink.row(_row(trainer, training, score))
                trainer, stopped = _judged(trainer, score.token_accuracy, training, procedure)
            if stopped or interrupted() is not None or time.monotonic() - saved >= resume_every_s:
                # as it was before the validation, which is repeated
                sink.save_resume(ResumePoint(fingerprint, here, worker.snapshot()))
                saved = time.monotonic()
            if (interruption := interrupted()) is not None:
                raise interruption
            if stopped:
                break
            batch = stream.batch(trainer.step, trainer.stage if n_stages > 1 else None)
            loss, norm = worker.step(batch, trainer.step)
            trainer = dataclasses.replace(
                trainer, step=trainer.step + 1, loss_sum=trainer.loss_sum + loss, norm_sum=trainer.norm_sum + norm
            )
            if progress:
                per_step = (time.monotonic() - started) / (trainer.step - first_step)
                progress(trainer.step, training.last_step, loss, per_step * (training.last_step - trainer.step))

    test = worker.evaluate(evaluation_batches(test_items))
    return TrainingResult(worker.snapshot().weights, trainer.step, trainer.stage, stopped, test, test_items)


class _Validation:
    """The validation items of the current stage, drawn once."""

    def __init__(self, procedure: Procedure, training: TrainingConfig, engine: Engine) -> None:
        self.procedure, self.n_items, self.engine = procedure, training.n_validation, engine
        self.stage = -1

    def score(self, stage: int) -> Score:
        if stage != self.stage:
            of_stage = stage if self.procedure.lengths.n_stages > 1 else None
            items = evaluation_items(self.procedure, self.n_items, "validation", of_stage)
            self.stage, self.batches = stage, evaluation_batches(items)
        return self.engine.evaluate(self.batches)


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


def _resumed(sink: Sink, fingerprint: str, engine: Engine) -> TrainerState:
    """The state from which the training resumes; the engine and the sink's rows are reset to it."""
    point = sink.load_resume()
    if point is None:
        sink.cut_rows(0)
        return TrainerState()
    if point.training != fingerprint:
        raise StoreError(
            f"the resume point after step {point.trainer.step} is of another training: other settings or weights"
        )
    engine.restore(point.snapshot, point.trainer.step)
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


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[Callable[[], BaseException | None]]:
    """Let Ctrl-C and SIGTERM wait: within, the function that is given returns what each is to raise, once it came.

    Ctrl-C raises ``KeyboardInterrupt``, SIGTERM, which schedulers send, ``SystemExit(143)``. Outside of the main thread
    and where a handler of the application's own is set, nothing is changed.
    """
    ours = {signal.SIGINT: KeyboardInterrupt(), signal.SIGTERM: SystemExit(128 + signal.SIGTERM)}
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[BaseException] = []
    before = {number: signal.getsignal(number) for number in ours}
    for number, handler in before.items():
        if handler is usual[number] or getattr(handler, "ends_trainings", False):
            signal.signal(number, lambda received, _: came.append(ours[signal.Signals(received)]))
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise came[0]
