"""A batch in pieces makes the update of the whole batch."""

from __future__ import annotations

import pytest
import torch

from mechproc.errors import TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.procedures.base import Procedure
from mechproc.training.config import TrainingConfig
from mechproc.training.data import TrainStream, evaluation_batches, evaluation_items
from mechproc.training.engines import torch as torch_engine
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.engines.torch import TorchEngine


@pytest.fixture(params=[1, 2_000, 10**9], ids=["one item a piece", "some", "one piece"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "CACHE_NUMBERS", request.param)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_updates_are_those_of_the_reference(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State, dropout: float
):
    training = training.replace(dropout=dropout, clip_norm=0.5, adam_eps=1e-3)  # else b_K's rounding is amplified
    state = {name: tensor.double() for name, tensor in state.items()}
    frozen = {"pos_embed.W_pos": torch.ones_like(state["pos_embed.W_pos"], dtype=torch.bool)}
    reference = ReferenceEngine(cfg, state, training, 3, frozen)
    engine = TorchEngine(cfg, state, training, 3, frozen)
    stream = TrainStream(procedure, 0, training.batch_size)
    for step in range(3):
        batch = stream.batch(step, None)
        assert engine.step(batch, step) == pytest.approx(reference.step(batch, step), rel=1e-10)
    for name, weights in reference.weights.items():
        torch.testing.assert_close(engine.weights[name], weights, rtol=1e-9, atol=1e-11)
    assert not torch.equal(engine.weights["blocks.0.attn.W_Q"], state["blocks.0.attn.W_Q"])
    assert torch.equal(engine.weights["pos_embed.W_pos"], state["pos_embed.W_pos"])


@pytest.mark.usefixtures("pieces")
def test_a_snapshot_goes_on_with_the_same_bits(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State
):
    stream, engine = TrainStream(procedure, 0, 20), TorchEngine(cfg, state, training, 0)
    engine.step(stream.batch(0, None), 0)
    other = TorchEngine(cfg, state, training, 0)
    other.restore(engine.snapshot(), 1)
    for each in (engine, other):
        each.step(stream.batch(1, None), 1)
    assert all(torch.equal(engine.weights[name], other.weights[name]) for name in state)


def test_scores_are_those_of_the_reference(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State
):
    batches = evaluation_batches(evaluation_items(procedure, 100, "test"))
    one = TorchEngine(cfg, state, training, 0).evaluate(batches)
    other = ReferenceEngine(cfg, state, training, 0).evaluate(batches)
    assert one.loss == other.loss and (one.n_correct == other.n_correct).all()


def test_a_loss_that_is_not_finite_ends_the_training_and_changes_nothing(
    procedure: Procedure, cfg: ModelConfig, training: TrainingConfig, state: State
):
    state["unembed.W_U"].fill_(torch.nan)
    engine = TorchEngine(cfg, state, training, 0)
    with pytest.raises(TrainingError, match="a weight is not finite at step 7"):
        engine.step(TrainStream(procedure, 0, 20).batch(0, None), 7)
    assert torch.equal(engine.weights["blocks.0.mlp.W_in"], state["blocks.0.mlp.W_in"])


def test_what_is_frozen_is_marked_on_the_device(cfg: ModelConfig, training: TrainingConfig, state: State):
    """Also where only some tensors have a mask. Torch's meta device refuses what mixes it with another."""
    frozen = {"pos_embed.W_pos": torch.ones_like(state["pos_embed.W_pos"], dtype=torch.bool)}
    engine = TorchEngine(cfg, state, training, 0, frozen, device="meta")
    assert engine.adamw._frozen is not None and engine.adamw._frozen.device.type == "meta"
