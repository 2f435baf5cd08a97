"""Does an engine compute what the reference computes, here and now? One update of a tiny model answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mechproc.model.config import ModelConfig
from mechproc.model.state import tensor_shapes
from mechproc.procedures import Identity, Uniform
from mechproc.training.config import TrainingConfig
from mechproc.training.data import TrainStream
from mechproc.training.engine import Engine, ReferenceEngine

TOLERANCE = 1e-4
"""Of a tensor's largest gradient: float32 rounding stays below a hundredth of it, a wrong term is far above."""
CFG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=13, d_vocab=10)


def fault(make: Callable[..., Engine]) -> str | None:
    """In one line, where the engine departs from the reference; ``None`` where it does not."""
    procedure = Identity(lengths=Uniform(2, 6), n_symbols=8)
    training = TrainingConfig(steps=2, batch_size=40, warmup_steps=0, clip_norm=None)
    rng = np.random.default_rng(0)
    state = {
        name: torch.from_numpy(rng.normal(float(name.endswith(".w")), 0.3, shape).astype(np.float32))
        for name, shape in tensor_shapes(CFG).items()
    }
    with TrainStream(procedure, 0, training.batch_size) as stream:
        batch = stream.batch(0, None)
    reference, engine = (each(CFG, state, training, 0, None) for each in (ReferenceEngine, make))
    expected, seen = reference.step(batch, 0)[0], engine.step(batch, 0)[0]
    if not abs(seen - expected) < TOLERANCE * abs(expected):
        return f"its loss on a tiny model is {seen:.6f}, the reference's {expected:.6f}"
    gradients = {name: (w.grad, engine.weights[name].grad) for name, w in reference.weights.items()}
    largest = max(float(g.abs().max()) for g, _ in gradients.values() if g is not None)
    for name, (wanted, got) in gradients.items():
        if wanted is None or got is None:
            return f"its gradient of {name} is missing"
        apart = float((got.cpu() - wanted).abs().max())
        if not apart < TOLERANCE * max(float(wanted.abs().max()), 1e-3 * largest):
            return f"its gradient of {name} on a tiny model is off by {apart:.2g}"
    return None
