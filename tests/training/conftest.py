"""A copying task of a few symbols, and a model that is just large enough for it."""

import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.state import State, init_state
from mechproc.procedures.base import Procedure
from mechproc.procedures.lengths import Uniform
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
