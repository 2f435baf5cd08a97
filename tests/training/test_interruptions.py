"""An interrupted training goes on from its resume point with the same bits."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch

from mechproc.errors import StoreError
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model
from mechproc.model.state import State, init_state
from mechproc.procedures.base import Procedure
from mechproc.procedures.lengths import Uniform
from mechproc.procedures.sequences import Identity
from mechproc.runs.folder import RunFolder
from mechproc.training.config import TrainingConfig
from mechproc.training.loop import TrainingResult, train
from mechproc.training.sinks import FolderSink, MemorySink, ResumePoint

from .conftest import PowerCutError, at, bits_equal, crash, curriculum


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


class SavesAt(MemorySink):
    """Keeps only the resume points of some steps, as a clock would."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = steps

    def save_resume(self, point: ResumePoint) -> None:
        if point.trainer.step in self.steps:
            super().save_resume(point)


def complicated() -> tuple[Procedure, ModelConfig, TrainingConfig, State]:
    """Dropout, a curriculum and early stopping at once."""
    procedure, cfg, settings = curriculum()
    return procedure, cfg, settings, init_state(cfg, 0)


@pytest.fixture(scope="module")
def uninterrupted() -> tuple[TrainingResult, MemorySink]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    procedure, cfg, settings, state = complicated()
    sink = MemorySink()
    result = train(procedure, cfg, state, settings, 7, sink=sink)
    torch.set_num_threads(threads)
    assert result.stage > 0  # or the interruptions below would meet no change of stage
    return result, sink


def same_as(uninterrupted: tuple[TrainingResult, MemorySink], result: TrainingResult, sink: MemorySink) -> bool:
    expected, records = uninterrupted
    assert sink.rows == records.rows
    assert sink.checkpoints.keys() == records.checkpoints.keys()
    assert all(bits_equal(sink.checkpoints[step], records.checkpoints[step]) for step in records.checkpoints)
    assert (result.steps, result.stage, result.stopped) == (expected.steps, expected.stage, expected.stopped)
    assert result.test.loss == expected.test.loss and result.test.n_correct.tolist() == expected.test.n_correct.tolist()
    return bits_equal(result.state, expected.state)


@pytest.mark.parametrize(("saved", "killed"), [(0, 3), (1, 1), (4, 9), (5, 5), (5, 17), (24, 31), (25, 40), (39, 39)])
def test_a_crash_costs_what_came_after_the_resume_point(
    uninterrupted: tuple[TrainingResult, MemorySink], saved: int, killed: int
) -> None:
    procedure, cfg, settings, state = complicated()
    sink = SavesAt(saved)
    # a point is saved when the next iteration begins, so the crash comes one step later
    with pytest.raises(PowerCutError):
        train(procedure, cfg, state, settings, 7, sink=sink, resume_every_s=0.0, progress=at(killed + 1, crash))
    assert sink.resume is not None and sink.resume.trainer.step == saved
    n_steps: list[int] = []
    result = train(procedure, cfg, state, settings, 7, sink=sink, progress=lambda done, *_: n_steps.append(done))
    assert n_steps[0] == saved + 1
    assert same_as(uninterrupted, result, sink)


def test_a_crash_before_any_resume_point_starts_again(uninterrupted: tuple[TrainingResult, MemorySink]) -> None:
    procedure, cfg, settings, state = complicated()
    sink = MemorySink()
    with pytest.raises(PowerCutError):
        train(procedure, cfg, state, settings, 7, sink=sink, progress=at(21, crash))
    assert sink.resume is None and len(sink.rows) == 5
    assert same_as(uninterrupted, train(procedure, cfg, state, settings, 7, sink=sink), sink)


def test_ctrl_c_loses_nothing(uninterrupted: tuple[TrainingResult, MemorySink], tmp_path: Path) -> None:
    procedure, cfg, settings, state = complicated()
    for step in (2, 10, 33):
        with pytest.raises(KeyboardInterrupt):
            train(procedure, cfg, state, settings, 7, sink=FolderSink(RunFolder(tmp_path)), progress=at(step, ctrl_c))
        point = FolderSink(RunFolder(tmp_path)).load_resume()
        assert point is not None and point.trainer.step == step
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = train(procedure, cfg, state, settings, 7, sink=FolderSink(RunFolder(tmp_path)))
    sink = MemorySink()
    sink.rows = FolderSink(RunFolder(tmp_path)).rows()
    for step in uninterrupted[1].checkpoints:
        held, weights, metadata = load_model(tmp_path / "checkpoints" / f"step_{step:06d}.safetensors")
        assert held == cfg and metadata == {"step": step}
        sink.checkpoints[step] = weights
    assert same_as(uninterrupted, result, sink)


def test_ctrl_c_in_the_last_validation_loses_nothing(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    class Interrupting(MemorySink):
        def row(self, row: dict) -> None:
            super().row(row)
            if row["step"] == training.steps and self.resume is None:
                ctrl_c()

    sink, undisturbed = Interrupting(), MemorySink()
    with pytest.raises(KeyboardInterrupt):
        train(procedure, cfg, state, training, 0, sink=sink)
    assert sink.resume is not None and sink.resume.trainer.step == training.steps
    result = train(procedure, cfg, state, training, 0, sink=sink)
    assert bits_equal(result.state, train(procedure, cfg, state, training, 0, sink=undisturbed).state)
    assert sink.rows == undisturbed.rows


def test_sigterm_saves_a_resume_point_and_ends_the_process(
    uninterrupted: tuple[TrainingResult, MemorySink], tmp_path: Path
) -> None:
    procedure, cfg, settings, state = complicated()
    sink, terminate = FolderSink(RunFolder(tmp_path)), at(5, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        train(procedure, cfg, state, settings, 7, sink=sink, progress=terminate)
    point = sink.load_resume()
    assert ended.value.code == 143 and point is not None and point.trainer.step == 5
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert bits_equal(train(procedure, cfg, state, settings, 7, sink=sink).state, uninterrupted[0].state)


def test_a_thread_leaves_ctrl_c_alone(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    results: list[TrainingResult] = []
    thread = threading.Thread(target=lambda: results.append(train(procedure, cfg, state, training, 0)))
    thread.start()
    thread.join()
    assert len(results) == 1 and results[0].steps == training.steps


@pytest.mark.parametrize("what", ["seed", "training", "state", "procedure", "frozen"])
def test_another_training_does_not_go_on_from_here(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig, what: str
) -> None:
    sink = MemorySink()
    given = {"procedure": procedure, "state": state, "training": training, "seed": 0, "frozen": None}
    with pytest.raises(KeyboardInterrupt):
        train(cfg=cfg, sink=sink, progress=at(3, ctrl_c), **given)
    given[what] = {
        "seed": 1,
        "training": training.replace(weight_decay=0.5),
        "state": state | {"ln_final.b": state["ln_final.b"] + 1e-6},
        "procedure": Identity(lengths=Uniform(2, 3), n_symbols=6),
        "frozen": {"ln_final.b": torch.ones(cfg.d_model, dtype=torch.bool)},
    }[what]
    with pytest.raises(StoreError, match="the resume point after step 3 is of another training"):
        train(cfg=cfg, sink=sink, **given)
