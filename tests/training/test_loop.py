"""The loop: it learns, records, and stops when it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mechproc.errors import ConfigError, StoreError, TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, init_state
from mechproc.procedures.base import Procedure
from mechproc.procedures.lengths import Curriculum, Fixed
from mechproc.procedures.sequences import Identity
from mechproc.training import data
from mechproc.training.config import TrainingConfig
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.loop import train
from mechproc.training.schedule import learning_rate
from mechproc.training.sinks import MemorySink

from .conftest import at, bits_equal, crash, curriculum


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
    draw = data.evaluation_items

    def none_to_test(procedure: Procedure, n_items: int, split: str, *rest: Any) -> Any:
        if split == "test":
            raise ConfigError("the test split is empty")
        return draw(procedure, n_items, split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(data, "evaluation_items", none_to_test)
    with pytest.raises(ConfigError, match="the test split is empty"):
        train(procedure, cfg, state, training, 0, progress=at(1, crash))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_refused(
    procedure: Procedure, cfg: ModelConfig, state: State, training: TrainingConfig, dtype: torch.dtype
) -> None:
    half = {name: tensor.to(dtype) for name, tensor in state.items()}
    with pytest.raises(ConfigError, match=f"dtype of the weights = {dtype}"):
        train(procedure, cfg, half, training, 0)
