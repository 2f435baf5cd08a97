from __future__ import annotations

import functools
import math

import pytest
import torch

from mechproc.errors import ConfigError, TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.procedures.base import Procedure
from mechproc.training.config import TrainingConfig
from mechproc.training.data import TrainStream, evaluation_batches, evaluation_items
from mechproc.training.engines import CpuEngine, choice, choose
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.engines.cpu import build
from mechproc.training.evaluate import evaluate
from mechproc.training.loop import train


def biggest_difference(one: State, other: State) -> float:
    """Over all tensors but b_K, whose true gradient is zero and whose updates are rounding errors in PyTorch."""
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one if not name.endswith("b_K"))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_steps_are_those_of_the_reference(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, dropout: float, lanes: int
):
    training = training.replace(dropout=dropout, clip_norm=0.5)
    frozen = {"pos_embed.W_pos": torch.ones_like(state["pos_embed.W_pos"], dtype=torch.bool)}
    reference = ReferenceEngine(cfg, state, training, 3, frozen)
    engine = CpuEngine(cfg, state, training, 3, frozen, lanes=lanes)
    stream = TrainStream(procedure, 0, training.batch_size)
    for step in range(4):
        batch = stream.batch(step, None)
        assert engine.step(batch, step) == pytest.approx(reference.step(batch, step), rel=1e-4)
    assert biggest_difference(engine.weights, state) > 1e-3  # they did move
    assert biggest_difference(engine.weights, reference.weights) < 1e-4
    assert torch.equal(engine.weights["pos_embed.W_pos"], state["pos_embed.W_pos"])


def test_evaluation_is_that_of_the_reference(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, lanes: int
):
    batches = evaluation_batches(evaluation_items(procedure, 300, "test"))
    one = CpuEngine(cfg, state, training, 0, lanes=lanes).evaluate(batches)
    other = evaluate(state, cfg, batches)
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert (one.n_correct == other.n_correct).all() and (one.n_scored == other.n_scored).all()
    for counts in ("correct_by_position", "scored_by_position"):
        assert getattr(one, counts).tolist() == getattr(other, counts).tolist() != []


def test_a_snapshot_goes_on_with_the_same_bits(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, lanes: int
):
    stream, engine = TrainStream(procedure, 0, 40), CpuEngine(cfg, state, training, 0, lanes=lanes)
    for step in range(3):
        engine.step(stream.batch(step, None), step)
    snapshot, other = engine.snapshot(), CpuEngine(cfg, state, training, 0, lanes=lanes, threads=2)
    other.restore(snapshot, 3)
    results = [e.step(stream.batch(3, None), 3) for e in (engine, other)]
    assert results[0] == results[1]
    assert all(torch.equal(engine.weights[name], other.weights[name]) for name in state)
    assert not all(torch.equal(engine.weights[name], snapshot.weights[name]) for name in state)


def test_the_loop_trains_with_it(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, lanes: int
):
    training = training.replace(steps=60, evaluate_every=20)
    engine = functools.partial(CpuEngine, lanes=lanes, threads=2)
    result = train(procedure, cfg, state, training, 0, engine=engine)
    reference = train(procedure, cfg, state, training, 0)
    assert result.test_items.tokens.tolist() == procedure.items(training.n_test, split="test").tokens.tolist()
    assert result.test.loss < 0.9 * evaluate(state, cfg, evaluation_batches(result.test_items)).loss
    assert result.test.loss == pytest.approx(reference.test.loss, rel=1e-2)


@pytest.mark.parametrize(("name", "said"), [("embed.W_E", "weight"), ("ln_final.b", "weight")])
def test_what_is_not_finite_ends_the_training_with_the_step(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, name: str, said: str, lanes: int
):
    state[name].view(-1)[0] = math.inf
    engine = CpuEngine(cfg, state, training, 0, lanes=lanes)
    before = engine.snapshot().weights
    with pytest.raises(TrainingError, match=rf"{said}.* step 7"):
        engine.step(TrainStream(procedure, 0, 40).batch(0, None), 7)
    assert all(torch.equal(tensor, engine.weights[n]) for n, tensor in before.items())


def test_an_overflowing_loss_ends_the_training_with_the_step(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, lanes: int
):
    state["unembed.W_U"].fill_(3e38)
    with pytest.raises(TrainingError, match=r"the loss is .* at step 7"):
        CpuEngine(cfg, state, training, 0, lanes=lanes).step(TrainStream(procedure, 0, 40).batch(0, None), 7)


def test_auto_takes_the_kernel_where_it_works(cfg: ModelConfig, lanes: int):
    chosen = choose("auto", cfg)
    assert (chosen.name, chosen.hint) == ("cpu", None) and chosen.lanes in (8, 16)
    assert choose("reference", cfg).make is ReferenceEngine


def test_auto_falls_back_with_a_reason_and_cpu_does_not(cfg: ModelConfig, monkeypatch: pytest.MonkeyPatch):
    odd = ModelConfig(1, 2, 10, 8, 9)
    assert choose("auto", odd).name == "torch"
    assert "not 5" in str(choose("auto", odd).hint)
    monkeypatch.setattr(build, "cpu_flags", set)
    chosen = choose("auto", cfg)
    assert chosen.name == "torch" and "AVX2" in str(chosen.hint)
    with pytest.raises(ConfigError, match=r"engine = 'cpu' is not allowed: .*AVX2"):
        choose("cpu", cfg)


def test_a_device_or_engine_that_is_not_there_is_refused(cfg: ModelConfig, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match="engine = 'gpu' is not allowed: one of auto, reference, torch, cpu"):
        choose("gpu", cfg)
    with pytest.raises(ConfigError, match="device = 'nowhere' is not allowed"):
        choose("auto", cfg, device="nowhere")
    monkeypatch.setattr(choice, "_check_device", lambda device: None)  # as if there were one
    with pytest.raises(ConfigError, match="engine = 'cpu' is not allowed: 'torch' on device 'cuda'"):
        choose("cpu", cfg, device="cuda")


def test_weights_in_float64_are_refused_rather_than_rounded(
    cfg: ModelConfig, training: TrainingConfig, state: State, lanes: int
):
    with pytest.raises(ConfigError, match=r"dtype of the weights = torch\.float64 is not allowed: torch\.float32"):
        CpuEngine(cfg, {name: tensor.double() for name, tensor in state.items()}, training, 0, lanes=lanes)
