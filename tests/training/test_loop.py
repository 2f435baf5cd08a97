"""The loop: it learns, records, stops when it should, and goes on from an interruption with the same bits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mechproc.errors import ConfigError, StoreError, TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model
from mechproc.model.state import State, init_state
from mechproc.procedures.base import Procedure
from mechproc.procedures.lengths import Curriculum, Fixed, Uniform
from mechproc.procedures.sequences import Identity
from mechproc.runs.folder import RunFolder
from mechproc.training import loop
from mechproc.training.config import TrainingConfig
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.loop import TrainingResult, train
from mechproc.training.schedule import learning_rate
from mechproc.training.sinks import FolderSink, MemorySink, ResumePoint


def bits_equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class PowerCutError(Exception):
    """The process ends between two steps."""


def at(step: int, event: Callable[[], object]) -> Callable[[int, int, float, float], None]:
    """A progress function that lets something happen after ``step`` steps."""

    def progress(done: int, steps: int, loss: float, seconds: float) -> None:
        if done == step:
            event()

    return progress


def crash() -> None:
    raise PowerCutError


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


def test_learning_happens(procedure: Procedure) -> None:
    cfg = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=procedure.n_ctx, d_vocab=procedure.d_vocab)
    settings = TrainingConfig(
        steps=300, batch_size=64, learning_rate=1e-2, warmup_steps=20, evaluate_every=150, n_validation=200, n_test=500
    )
    sink = MemorySink()
    result = train(procedure, cfg, init_state(cfg, 0), settings, 0, sink=sink)
    before = sink.rows[0]
    assert before["token_accuracy"] < 0.3 and before["loss"] == pytest.approx(torch.tensor(8.0).log().item(), rel=0.05)
    assert result.test.token_accuracy > 0.9 and result.test.loss < 0.3
    assert len(result.test.n_correct) == 500


def test_rows_and_checkpoints(procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig) -> None:
    seen: list[tuple[int, int, float, float]] = []
    sink = MemorySink()
    settings = training.replace(steps=10)
    result = train(procedure, cfg, state, settings, 0, sink=sink, progress=lambda *told: seen.append(told))
    assert [row["step"] for row in sink.rows] == [0, 4, 8, 10]  # the last one though 10 is no multiple of 4
    assert sink.rows[0]["train_loss"] is None and sink.rows[0]["gradient_norm"] is None
    losses = [loss for _, _, loss, _ in seen]
    for row, since in zip(sink.rows[1:], [losses[:4], losses[4:8], losses[8:]], strict=True):
        assert row["train_loss"] == pytest.approx(sum(since) / len(since))
        assert row["learning_rate"] == learning_rate(settings, row["step"])
        assert row["stage"] == 0 and row["gradient_norm"] > 0 and row["item_accuracy"] <= row["token_accuracy"] <= 1
    assert [(done, steps) for done, steps, _, _ in seen] == [(i, 10) for i in range(1, 11)]
    assert seen[-1][3] == 0.0 and all(seconds >= 0 for *_, seconds in seen)
    assert sorted(sink.checkpoints) == [0, 1, 3, 10]
    assert bits_equal(sink.checkpoints[0], state) and bits_equal(sink.checkpoints[10], result.state)
    assert not bits_equal(sink.checkpoints[1], sink.checkpoints[3])
    assert (result.steps, result.stopped) == (10, "steps")


def test_the_seed_decides_the_data_and_nothing_global_does(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    settings = training.replace(steps=3, dropout=0.2)
    torch.manual_seed(1)
    one = train(procedure, cfg, state, settings, 0)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    same, other = (train(procedure, cfg, state, settings, seed) for seed in (0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert bits_equal(one.state, same.state) and not bits_equal(one.state, other.state)
    assert one.test.n_scored.tolist() == other.test.n_scored.tolist()


def test_frozen_entries_do_not_move(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    frozen = {name: torch.ones(t.shape, dtype=torch.bool) for name, t in state.items() if name.startswith("blocks.0")}
    frozen["pos_embed.W_pos"] = torch.arange(cfg.n_ctx)[:, None].expand(-1, cfg.d_model) < 2
    after = train(procedure, cfg, state, training, 0, frozen=frozen).state
    for name, t in after.items():
        still = t == state[name]
        if name.startswith("blocks.0"):
            assert still.all()
        elif name == "pos_embed.W_pos":
            assert still[:2].all() and not still[2:7].any()
        else:
            assert not still.all()


# ---- stopping ----------------------------------------------------------------------------------------------------


def test_patience_counts_validations(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    sink = MemorySink()
    stuck = training.replace(learning_rate=1e-30, patience=2, steps=40)
    result = train(procedure, cfg, state, stuck, 0, sink=sink)
    assert (result.steps, result.stopped) == (8, "patience")  # best at 0; not better at 4 and 8
    assert [row["step"] for row in sink.rows] == [0, 4, 8]


def test_stops_at_the_accuracy_asked_for(cfg: ModelConfig, procedure: Procedure, training: TrainingConfig) -> None:
    settings = training.replace(steps=2000, stop_at_accuracy=0.4, n_validation=200)
    sink = MemorySink()
    result = train(procedure, cfg, init_state(cfg, 0), settings, 0, sink=sink)
    accuracies = [row["token_accuracy"] for row in sink.rows]
    assert result.stopped == "accuracy" and result.steps == sink.rows[-1]["step"] < 2000
    assert accuracies[-1] >= 0.4 > max(accuracies[:-1])


def curriculum() -> tuple[Procedure, ModelConfig, TrainingConfig]:
    procedure = Identity(lengths=Curriculum(2, 6, threshold=0.35, cumulative=False), n_symbols=6)
    cfg = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=procedure.n_ctx, d_vocab=procedure.d_vocab)
    settings = TrainingConfig(
        steps=120, batch_size=40, learning_rate=2e-2, schedule="constant", warmup_steps=0, evaluate_every=5,
        n_validation=60, n_test=30, dropout=0.05, patience=2,
    )  # fmt: skip
    return procedure, cfg, settings


def test_a_training_stopped_before_its_schedule_ends_is_its_beginning(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    """Same updates, rows and checkpoints up to there, and one more validation at the end."""
    whole, part = MemorySink(), MemorySink()
    train(procedure, cfg, state, training, 0, sink=whole)
    end = training.evaluate_every + 1
    result = train(procedure, cfg, state, training.replace(stop_after=end, checkpoints_at=(end,)), 0, sink=part)
    assert (result.steps, result.stopped, part.rows[-1]["step"]) == (end, "steps", end)
    assert part.rows[:-1] == [row for row in whole.rows if row["step"] <= end]
    assert bits_equal(result.state, part.checkpoints[end])
    shared = [step for step in part.checkpoints if step in whole.checkpoints]
    assert shared and all(bits_equal(part.checkpoints[step], whole.checkpoints[step]) for step in shared)


def test_a_curriculum_advances_at_its_threshold() -> None:
    procedure, cfg, settings = curriculum()
    sink = MemorySink()
    result = train(procedure, cfg, init_state(cfg, 0), settings, 0, sink=sink)
    for row, after in zip(sink.rows, sink.rows[1:], strict=False):
        passed = row["stage"] < 2 and row["token_accuracy"] >= 0.35
        assert after["stage"] == row["stage"] + passed
    assert {row["stage"] for row in sink.rows} == {0, 1, 2} and result.stage == 2
    assert set(result.test.n_scored) == {6}  # the test is of the last stage


def test_patience_starts_anew_with_each_stage(training: TrainingConfig) -> None:
    procedure = Identity(lengths=Curriculum(2, 4, threshold=0.01))
    cfg = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=procedure.n_ctx, d_vocab=procedure.d_vocab)
    always_g = init_state(cfg, 0)
    always_g["ln_final.b"][0] = always_g["unembed.W_U"][0, 8] = 100.0  # right about once in twenty times
    stuck = training.replace(learning_rate=1e-30, patience=2, steps=40)
    result = train(procedure, cfg, always_g, stuck, 0)
    assert (result.stage, result.steps, result.stopped) == (1, 12, "patience")  # stage 1 is validated at 4, 8 and 12


def test_the_accuracy_asked_for_is_that_of_the_last_stage(training: TrainingConfig) -> None:
    procedure, cfg, settings = curriculum()
    sink = MemorySink()
    asked = settings.replace(stop_at_accuracy=0.3, patience=None)  # below the threshold of the stages before
    result = train(procedure, cfg, init_state(cfg, 0), asked, 0, sink=sink)
    assert result.stopped == "accuracy" and result.stage == 2
    assert any(row["stage"] < 2 and row["token_accuracy"] >= 0.3 for row in sink.rows)


# ---- what goes wrong ----------------------------------------------------------------------------------------------


class Poisonable(ReferenceEngine):
    """The reference, whose weights a test can reach."""

    last: Poisonable

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        Poisonable.last = self

    @classmethod
    def poison_weights(cls) -> None:
        cls.last.weights["unembed.W_U"].data.fill_(torch.nan)

    @classmethod
    def poison_gradients(cls) -> None:
        cls.last.weights["unembed.W_U"].register_hook(lambda gradient: gradient / 0)


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (Poisonable.poison_weights, "a weight is not finite at step 5"),
        (Poisonable.poison_gradients, "the norm of the gradient is (inf|nan) at step 5"),
    ],
)
def test_what_is_not_finite_ends_the_training_with_its_step(
    procedure: Procedure,
    cfg: ModelConfig,
    state: State,
    training: TrainingConfig,
    poison: Callable[[], None],
    message: str,
) -> None:
    sink = MemorySink()
    with pytest.raises(TrainingError, match=message):
        train(procedure, cfg, state, training, 0, sink=sink, progress=at(5, poison), engine=Poisonable)
    assert [row["step"] for row in sink.rows] == [0, 4] and sorted(sink.checkpoints) == [0, 1, 3]


def test_what_cannot_work_is_said_at_once(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig
) -> None:
    with pytest.raises(ConfigError, match=r"n_ctx = 4 is not allowed: at least 9"):
        train(procedure, cfg.replace(n_ctx=4), state, training, 0)
    with pytest.raises(ConfigError, match=r"d_vocab = 5 is not allowed: at least 8"):
        train(procedure, cfg.replace(d_vocab=5), state, training, 0)
    with pytest.raises(StoreError, match=r"ln_final\.w"):
        train(procedure, cfg, {n: t for n, t in state.items() if n != "ln_final.w"}, training, 0)
    nothing_to_test = Identity(lengths=Fixed(1), n_symbols=4)
    assert len(nothing_to_test.items(4, split="train")) == 4
    cfg = cfg.replace(n_ctx=3, d_vocab=6)
    with pytest.raises(ConfigError, match=r"too few different items: the (test|validation) split is empty"):
        train(nothing_to_test, cfg, init_state(cfg, 0), training, 0, progress=at(1, crash))


def test_test_items_that_cannot_be_drawn_are_said_before_the_first_step(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = loop.evaluation_items

    def none_to_test(procedure: Procedure, n_items: int, split: str, *rest: Any) -> Any:
        if split == "test":
            raise ConfigError("the test split is empty")
        return draw(procedure, n_items, split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "evaluation_items", none_to_test)
    with pytest.raises(ConfigError, match="the test split is empty"):
        train(procedure, cfg, state, training, 0, progress=at(1, crash))


# ---- interruptions ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_refused(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig, dtype: torch.dtype
) -> None:
    half = {name: tensor.to(dtype) for name, tensor in state.items()}
    with pytest.raises(ConfigError, match=f"dtype of the weights = {dtype}"):
        train(procedure, cfg, half, training, 0)


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
