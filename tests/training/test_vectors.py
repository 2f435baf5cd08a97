"""Training on vectors: a state at each position, one logit for each cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import loss_and_correct
from mechproc.model.state import init_state
from mechproc.procedures import EcaVectors, Identity, Uniform
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.engines import choose
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.evaluate import evaluate
from mechproc.training.loop import train
from mechproc.transfer.arms import full
from mechproc.transfer.recipe import assemble

RULE = EcaVectors(lengths=Uniform(1, 3), width=8)
CFG = ModelConfig(2, 4, 16, RULE.n_ctx, d_vocab=8, input="vectors", d_input=8, d_head=4)


def test_a_batch_of_vectors_by_hand():
    procedure = EcaVectors(lengths=Uniform(1, 2), width=3)
    batch = Batch.of(procedure.encode(["001 011", "011 111 000"]))
    assert batch.inputs.tolist() == [[[0, 0, 1], [0, 1, 1]], [[0, 1, 1], [1, 1, 1]]]
    assert batch.targets.tolist()[1] == [[1, 1, 1], [0, 0, 0]]
    assert batch.real.tolist() == [[True, False], [True, True]]


def test_the_loss_is_the_binary_cross_entropy_of_the_real_cells():
    logits, targets = torch.randn(2, 3, 4), torch.randint(0, 2, (2, 3, 4))
    real = torch.tensor([[True, True, False], [True, False, False]])
    loss, correct = loss_and_correct(logits, targets, real)
    p = torch.sigmoid(logits)
    expected = -torch.where(targets == 1, p.log(), (1 - p).log())[real].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(correct[real], (p > 0.5)[real] == (targets == 1)[real]) and not correct[~real].any()


def test_scores_count_cells():
    batch = Batch.of(RULE.items(20))
    score = evaluate(init_state(CFG, 0), CFG, [batch])
    assert np.array_equal(score.n_scored, 8 * batch.real.sum(1).numpy())
    assert score.loss == pytest.approx(np.log(2), abs=0.02)


@pytest.mark.parametrize("engine", ["reference", "auto"])
def test_the_next_state_is_learned_without_attention_to_the_past(engine: str):
    training = TrainingConfig(
        steps=400, batch_size=64, learning_rate=1e-2, warmup_steps=20, evaluate_every=100, n_validation=100, n_test=100
    )
    chosen = choose(engine, CFG)
    result = train(RULE, CFG, init_state(CFG, 0), training, 0, engine=chosen.make)
    block = RULE.items(100)
    assert result.test.token_accuracy > max(RULE.baselines(block).values()) + 0.1
    if engine == "auto":
        assert chosen.name == "torch" and chosen.hint == "the CPU kernel reads tokens, not vectors"


@pytest.mark.parametrize(
    ("procedure", "changes", "said"),
    [
        (Identity(lengths=Uniform(1, 1), n_symbols=3), {}, "input = 'vectors' is not allowed: 'tokens' for identity"),
        (RULE, {"d_input": 7}, "d_input = 7 is not allowed: 8, the cells of a vector"),
        (RULE, {"d_vocab": 9}, "d_vocab = 9 is not allowed: 8, one logit for each cell"),
        (RULE, {"input": "tokens", "d_input": None}, "input = 'tokens' is not allowed: 'vectors' for eca-vectors"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(procedure, changes, said):
    cfg = CFG.replace(**changes)
    with pytest.raises(ConfigError, match=said):
        train(procedure, cfg, init_state(cfg, 0), TrainingConfig(steps=2, warmup_steps=0), 0, engine=ReferenceEngine)


def test_a_mean_embedding_of_vectors_is_refused():
    with pytest.raises(ConfigError, match="'tokens', where embedding is 'mean'"):
        assemble(full("d"), CFG, 0, {"d": (CFG, init_state(CFG, 1))})
