"""Batches: which items, which positions, and that cutting and caching change nothing."""

import time

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward, loss_and_correct
from mechproc.model.state import State
from mechproc.procedures.base import Items, Procedure
from mechproc.procedures.lengths import Curriculum
from mechproc.procedures.sequences import Identity
from mechproc.training.data import Batch, TrainStream, evaluation_batches, evaluation_items
from mechproc.training.evaluate import Score, evaluate


def equal(one: Batch, other: Batch) -> bool:
    names = ("inputs", "positions", "targets", "real")
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in names)


def test_a_batch_by_hand() -> None:
    procedure = Identity(n_symbols=3)
    batch = Batch.of(procedure.encode(["a | a", "b c | b c"]))  # _ 0, | 1, a 2, b 3, c 4
    # the last token is predicted at position 3 and never read; the shorter item fills up with position 0
    assert batch.inputs.tolist() == [[2, 1, 2, 0], [3, 4, 1, 3]]
    assert batch.positions.tolist() == [[1, 0], [2, 3]]
    assert batch.real.tolist() == [[True, False], [True, True]]
    assert batch.targets[batch.real].tolist() == [2, 3, 4]
    assert len(batch) == 2


@pytest.mark.parametrize("batch_size", [64, 1000, 1024, 2500])
def test_the_stream_is_the_items_in_order(procedure: Procedure, batch_size: int) -> None:
    with TrainStream(procedure, seed=5, batch_size=batch_size) as stream:
        for step in (0, 1, 2, 17, 3):  # jumping and going back, as a resumed training does
            items = procedure.items(batch_size, seed=5, split="train", start=step * batch_size)
            assert equal(stream.batch(step, None), Batch.of(items))


def test_blocks_are_drawn_once_ahead_of_use_and_without_latents(
    procedure: Procedure, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, bool]] = []
    block = Identity.block

    def counted(self: Identity, seed: int, split: str, index: int, *args: object, latents: bool = True) -> Items:
        drawn.append((index, latents))
        return block(self, seed, split, index, *args, latents=latents)  # type: ignore[arg-type]

    monkeypatch.setattr(Identity, "block", counted)
    with TrainStream(procedure, seed=0, batch_size=300) as stream:
        for step in range(7):  # 2100 items lie in blocks 0 to 2
            stream.batch(step, None)
    indices = [index for index, _ in drawn]
    assert indices in ([0, 1, 2], [0, 1, 2, 3])  # leaving ends what is being made ahead, if it has begun
    assert not any(latents for _, latents in drawn)


def test_batches_are_made_while_a_step_computes(procedure: Procedure) -> None:
    with TrainStream(procedure, seed=0, batch_size=300) as stream:
        stream.batch(0, None)
        deadline = time.monotonic() + 30
        while not all(future.done() for future in stream._ahead.values()) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert sorted(step for step, _ in stream._ahead) == [1, 2, 3, 4, 5]  # more than a block
        assert all(future.done() for future in stream._ahead.values())


def test_small_batches_are_made_without_a_thread(procedure: Procedure) -> None:
    with TrainStream(procedure, seed=0, batch_size=64) as stream:
        stream.batch(0, None)
        assert not stream._thread._threads


def test_what_fails_in_the_thread_is_raised_by_the_batch_that_needs_it(procedure: Procedure, monkeypatch) -> None:
    def failing(*_: object, **__: object) -> Items:
        raise ConfigError("too few different items")

    monkeypatch.setattr(Identity, "block", failing)
    with TrainStream(procedure, seed=0, batch_size=300) as stream, pytest.raises(ConfigError, match="too few"):
        stream.batch(0, None)


def test_leaving_ends_the_thread(procedure: Procedure) -> None:
    with TrainStream(procedure, seed=0, batch_size=300) as stream:
        stream.batch(0, None)
        (thread,) = stream._thread._threads
    assert not thread.is_alive()


def test_seeds_and_stages_differ() -> None:
    procedure = Identity(lengths=Curriculum(2, 6), n_symbols=8)
    batches = []
    for seed, stage in [(0, 0), (1, 0), (0, 1), (0, None)]:
        with TrainStream(procedure, seed, 50) as stream:
            batches.append(stream.batch(0, stage))
    assert len({b.inputs.numpy().tobytes() for b in batches}) == 4
    assert [b.inputs.shape[1] for b in batches] == [4, 4, 8, 12]  # narrow while items are short


def test_evaluation_items_are_those_of_seed_0(procedure: Procedure) -> None:
    batches = evaluation_batches(evaluation_items(procedure, 600, "test"))
    assert [len(b) for b in batches] == [256, 256, 88]
    items = procedure.items(600, seed=0, split="test")
    assert equal(batches[1], Batch.of(items.take(slice(256, 512))))


def test_cutting_columns_is_exact(procedure: Procedure, cfg: ModelConfig, state: State) -> None:
    state = {name: t.double() for name, t in state.items()}
    block = procedure.items(50)
    batch = Batch.of(block)
    whole = forward(state, cfg, torch.from_numpy(block.tokens), batch.positions)
    torch.testing.assert_close(forward(state, cfg, batch.inputs, batch.positions), whole, rtol=0, atol=1e-12)


def test_what_is_not_scored_has_no_gradient(procedure: Procedure, cfg: ModelConfig, state: State) -> None:
    batch = Batch.of(procedure.items(50))
    logits = forward(state, cfg, batch.inputs, batch.positions).detach().requires_grad_()
    loss_and_correct(logits, batch.targets, batch.real)[0].backward()
    assert logits.grad is not None and not batch.real.all()
    assert torch.equal((logits.grad != 0).any(-1), batch.real)
    tracked = {name: t.clone().requires_grad_() for name, t in state.items()}
    loss_and_correct(forward(tracked, cfg, batch.inputs, batch.positions), batch.targets, batch.real)[0].backward()
    reached = tracked["pos_embed.W_pos"].grad
    assert reached is not None
    assert (reached != 0).any(1).tolist() == [p < batch.inputs.shape[1] for p in range(cfg.n_ctx)]


def test_scores_by_counting(procedure: Procedure, cfg: ModelConfig, state: State) -> None:
    block = procedure.items(300)
    score = evaluate(state, cfg, [Batch.of(block.take(slice(0, 120))), Batch.of(block.take(slice(120, 300)))])
    log_p = forward(state, cfg, torch.from_numpy(block.tokens)).double().log_softmax(-1).numpy()
    loss, n_correct = [], np.zeros(300, dtype=int)
    for item, position in zip(*np.nonzero(block.scored), strict=True):
        target = block.tokens[item, position + 1]
        loss.append(-log_p[item, position, target])
        n_correct[item] += log_p[item, position].argmax() == target
    assert score.loss == pytest.approx(np.mean(loss), rel=1e-6)
    assert score.n_correct.tolist() == n_correct.tolist() and n_correct.any()
    assert score.correct_by_position.sum() == n_correct.sum()
    items = [int(n) for n in score.n_scored]
    assert score.scored_by_position.tolist() == [sum(n > p for n in items) for p in range(max(items))]
    assert score.n_scored.tolist() == block.scored.sum(1).tolist()


def test_accuracies_by_hand() -> None:
    score = Score(0.0, n_correct=np.array([2, 1, 0]), n_scored=np.array([2, 4, 2]))
    assert score.token_accuracy == 3 / 8
    assert score.item_accuracy == pytest.approx(1 / 3)
