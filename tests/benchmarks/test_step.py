"""One training step, each engine beside its peers on the same items; the paper's shapes. Run by ``make bench``."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.gpt2 import to_gpt2
from mechproc.model.state import init_state
from mechproc.procedures import Fixed, Haystack, Procedure, ReversedAddition
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch, TrainStream
from mechproc.training.engines import choose

ROUNDS = 5
SHAPES: dict[str, Procedure] = {
    "haystack": Haystack(),
    "reversed addition": ReversedAddition(lengths=Fixed(10), protocol="paper"),
}


@pytest.mark.bench
@pytest.mark.parametrize("task", SHAPES)
def test_a_step_beside_gpt2_of_transformers(task):
    """1,000 items, width 16, one thread: interleaved rounds, medians. A ratio is asserted nowhere; it is printed."""
    procedure = SHAPES[task]
    cfg = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=procedure.n_ctx + 1, d_vocab=256)
    state, training = init_state(cfg, 0), TrainingConfig()
    batch = TrainStream(procedure, 0, 1_000).batch(0, None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engines = {name: choose(name, cfg).make(cfg, state, training, 0) for name in ("auto", "reference")}
        steps = {name: lambda engine=engine: engine.step(batch, 0) for name, engine in engines.items()}
        steps["gpt2 of transformers, all logits"] = gpt2_step(cfg, state, batch)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS + 1):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    median = {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first round warms up
    print(f"\n{task}, 1,000 items, one thread")
    for name, value in median.items():
        print(f"  {name:36}{1e3 * value:8.1f} ms  {median['reference'] / value:6.1f} x the reference engine")
    assert all(value > 0 for value in median.values())


def gpt2_step(cfg, state, batch: Batch):
    """Forward over all positions with sdpa, backward, clipping, AdamW: as the protocol is usually run."""
    model = to_gpt2(cfg, state)
    model.train()
    model.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)

    def step() -> None:
        logits = model(batch.inputs).logits
        places = batch.positions[..., None].expand(-1, -1, logits.shape[-1])
        scored = logits.gather(1, places)[batch.real]
        loss = torch.nn.functional.cross_entropy(scored, batch.targets[batch.real])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step
