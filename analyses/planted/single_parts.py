"""Which single part of a donor helps a fresh model: trainings with each part, against a training with none.

All arms of a fresh seed share embeddings, positions, LayerNorms and unembedding (the donor's), the fresh weights of
what is not moved, and the order of the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses.planted.planting import Planting
from mechproc.model.parts import components
from mechproc.training.config import TrainingConfig
from mechproc.training.engines.choice import choose
from mechproc.training.loop import train
from mechproc.training.sinks import MemorySink
from mechproc.transfer.recipe import Recipe, assemble

TRAINING = TrainingConfig(
    steps=1000,
    batch_size=64,
    learning_rate=3e-3,
    schedule="constant",
    warmup_steps=0,
    evaluate_every=50,
    n_validation=256,
    n_test=16,
    checkpoints_per_decade=None,
)


def single_part_transfer(
    planting: Planting,
    seeds: Sequence[int] = (0, 1, 2),
    training: TrainingConfig = TRAINING,
    parts: Sequence[str] | None = None,
) -> dict[str, float]:
    """How much lower the mean validation loss over a training is with each part of the donor (nats).

    Of ``parts``, or of all heads and MLPs.
    Positive: the part helps. The median over the fresh ``seeds``: a random head of large norm can help in one of them.
    """
    chosen = components(planting.cfg) if parts is None else parts
    curves = {part: [_loss(planting, part, seed, training) for seed in seeds] for part in chosen}
    without = [_loss(planting, None, seed, training) for seed in seeds]
    return {part: float(np.median(np.subtract(without, losses))) for part, losses in curves.items()}


def _loss(planting: Planting, part: str | None, seed: int, training: TrainingConfig) -> float:
    """The mean validation loss over a training that starts with one part of the donor, or with none."""
    recipe = Recipe(
        parts={} if part is None else {part: "donor"},
        embedding="copy",
        positions="donor",
        layernorm="donor",
        donor="donor",
    )
    cfg, sink = planting.cfg, MemorySink()
    state = assemble(recipe, cfg, seed, {"donor": (cfg, planting.state)}, start="fresh")
    train(planting.procedure, cfg, state, training, seed, sink=sink, engine=choose("auto", cfg).make)
    return float(np.mean([row["loss"] for row in sink.rows]))
