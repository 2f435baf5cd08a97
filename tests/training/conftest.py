"""A copying task of a few symbols, and a model that is just large enough for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.state import State, init_state
from mechproc.procedures.base import Procedure
from mechproc.procedures.lengths import Curriculum, Uniform
from mechproc.procedures.sequences import Identity
from mechproc.training.config import TrainingConfig


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def procedure() -> Procedure:
    return Identity(lengths=Uniform(2, 4), n_symbols=6)


@pytest.fixture
def cfg(procedure: Procedure) -> ModelConfig:
    return ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=procedure.n_ctx + 3, d_vocab=procedure.d_vocab)


@pytest.fixture
def training() -> TrainingConfig:
    return TrainingConfig(
        steps=12, batch_size=40, learning_rate=1e-2, warmup_steps=2, evaluate_every=4, n_validation=60, n_test=70
    )


@pytest.fixture
def state(cfg: ModelConfig) -> State:
    """Random weights, none of them zero, so that nothing is right by accident."""
    rng = torch.Generator().manual_seed(1)
    return {name: t + 0.05 * torch.randn(t.shape, generator=rng) for name, t in init_state(cfg, 0).items()}


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


def curriculum() -> tuple[Procedure, ModelConfig, TrainingConfig]:
    procedure = Identity(lengths=Curriculum(2, 6, threshold=0.35, cumulative=False), n_symbols=6)
    cfg = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=procedure.n_ctx, d_vocab=procedure.d_vocab)
    settings = TrainingConfig(
        steps=120, batch_size=40, learning_rate=2e-2, schedule="constant", warmup_steps=0, evaluate_every=5,
        n_validation=60, n_test=30, dropout=0.05, patience=2,
    )  # fmt: skip
    return procedure, cfg, settings
