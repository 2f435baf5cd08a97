"""A check that an engine computes what the reference computes on this machine: two updates of a tiny model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mechproc.errors import first_line
from mechproc.model.config import ModelConfig
from mechproc.model.state import tensor_shapes
from mechproc.procedures import Identity, Uniform
from mechproc.training.config import TrainingConfig
from mechproc.training.data import TrainStream
from mechproc.training.engines.base import Engine, ReferenceEngine

TOLERANCE = 1e-4
"""Of a tensor's largest gradient: float32 rounding stays below a hundredth of it, a wrong term is far above."""
UPDATE_TOLERANCE = 1e-2
"""Of an update: where a gradient is not itself rounding, Adam's first update is far more exact."""
CFG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=13, d_vocab=10)


def mismatch(make: Callable[..., Engine]) -> str | None:
    """One line that says where the engine differs from the reference or fails; ``None`` if it does neither."""
    try:
        return _first_difference(make)
    except Exception as error:  # of a device: out of memory, an operation that it lacks, a driver that is broken
        return f"it fails with {type(error).__name__}: {first_line(error)}"


def _first_difference(make: Callable[..., Engine]) -> str | None:
    procedure = Identity(lengths=Uniform(2, 6), n_symbols=8)
    training = TrainingConfig(steps=2, batch_size=40, warmup_steps=0, clip_norm=None)
    rng = np.random.default_rng(0)
    state = {
        name: torch.from_numpy(rng.normal(float(name.endswith(".w")), 0.3, shape).astype(np.float32))
        for name, shape in tensor_shapes(CFG).items()
    }
    with TrainStream(procedure, 0, training.batch_size) as stream:
        batches = [stream.batch(step, None) for step in range(training.steps)]
    reference, engine = (each(CFG, state, training, 0, None) for each in (ReferenceEngine, make))
    expected, seen = reference.step(batches[0], 0)[0], engine.step(batches[0], 0)[0]
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
    clear = {name: w.grad.abs() > 1e-2 * largest for name, w in reference.weights.items() if w.grad is not None}
    first = [each.snapshot().weights for each in (reference, engine)]
    for name, where in clear.items():
        wanted, got = (weights[name][where] - state[name][where] for weights in first)
        if not (got - wanted).abs().sum() <= UPDATE_TOLERANCE * wanted.abs().sum():
            return f"its update of {name} on a tiny model is not the one that follows from its gradient"
    for each in (reference, engine):
        each.step(batches[1], 1)
    for moment in ("exp_avg", "exp_avg_sq"):
        of_both = (getattr(each.snapshot(), moment) for each in (reference, engine))
        wanted, got = (torch.cat([moments[name].flatten() for name in state]) for moments in of_both)
        if not (got - wanted).norm() <= UPDATE_TOLERANCE * wanted.norm():
            return f"its {moment} after two updates of a tiny model is off"
    return None
