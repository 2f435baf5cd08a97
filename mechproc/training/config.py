"""The settings of a training. The defaults are the paper's protocol for tasks; two presets are its pretraining."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from mechproc.config import Config, at_most
from mechproc.errors import require

TRAINING_VERSION = "1.0.0"
"""Semantic version of what the settings mean: raised when they make other updates, or a default changes."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Config):
    """How a model is trained on a procedure. A step is one update; losses are in nats, accuracies from 0 to 1."""

    largest: ClassVar[int] = 1_000_000_000

    steps: int = 10_000
    """Updates of the learning-rate schedule, and the maximum number of updates made."""
    batch_size: int = at_most(1_000_000, 1_000)
    """Items in one update; they are new in every step."""
    learning_rate: float = 1e-3
    """The highest learning rate, reached at the end of the warm-up."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """The learning rate after the warm-up: a cosine or a line to zero, or constant."""
    warmup_steps: int = 500
    """Steps before the learning rate is at its highest."""
    weight_decay: float = 1e-3
    """AdamW's decoupled decay, on the matrices ``W_*`` alone."""
    betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-8
    clip_norm: float | None = 1.0
    """Gradients with a larger norm over all weights are scaled down to it; ``None``: no clipping."""
    dropout: float = 0.0
    """Probability of dropping an activation: after the embedding, in the patterns, and where each layer writes."""
    evaluate_every: int = 100
    """Steps between validations; there is one before the first step and one after the last."""
    n_validation: int = at_most(1_000_000, 500)
    """Validation items; the same at every step and for every seed."""
    n_test: int = at_most(1_000_000, 4_000)
    """Test items, scored once at the end; the same for every seed."""
    patience: int | None = None
    """Stop after this many validations without a better token accuracy; ``None``: no early stopping."""
    stop_at_accuracy: float | None = None
    """Stop when validation reaches this token accuracy, on the last stage of a curriculum; ``None``: no such
    stop."""
    checkpoints_per_decade: int | None = at_most(1_000, 2)
    """Weights are kept before step 0 and at this many steps in each factor of ten; ``None``: no checkpoints."""
    checkpoints_at: tuple[int, ...] = ()
    """Further steps at which weights are kept."""
    stop_after: int | None = None
    """Stop after this many updates, on the learning-rate schedule of ``steps``; ``None``: after ``steps``."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "n_validation", "n_test"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("patience", "checkpoints_per_decade"):
            require(
                getattr(self, name) is None or getattr(self, name) >= 1,
                name,
                getattr(self, name),
                "at least 1, or None",
            )
        require(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "above 0 and finite")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more, and finite")
        require(0 < self.adam_eps < math.inf, "adam_eps", self.adam_eps, "above 0 and finite")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            "betas",
            self.betas,
            "two numbers from 0 to below 1",
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        require(
            self.clip_norm is None or 0 < self.clip_norm < math.inf,
            "clip_norm",
            self.clip_norm,
            "above 0 and finite, or None",
        )
        known = ("cosine", "linear", "constant")
        require(self.schedule in known, "schedule", self.schedule, f"one of {', '.join(known)}")
        require(
            0 <= self.warmup_steps < self.steps, "warmup_steps", self.warmup_steps, f"0 to below steps = {self.steps}"
        )
        for step in self.checkpoints_at:
            require(0 <= step <= self.steps, "checkpoints_at", step, f"0 to steps = {self.steps}")
        end = self.stop_after
        require(end is None or 1 <= end <= self.steps, "stop_after", end, f"1 to steps = {self.steps}, or None")
        target = self.stop_at_accuracy
        require(target is None or 0 < target <= 1, "stop_at_accuracy", target, "above 0, at most 1, or None")

    @property
    def last_step(self) -> int:
        """Most updates that are made."""
        return self.steps if self.stop_after is None else self.stop_after


TASK = TrainingConfig()
"""The paper's protocol for tasks (arXiv 2505.22308)."""

RULE = TrainingConfig(
    steps=20_000,
    batch_size=64,
    learning_rate=5e-5,
    warmup_steps=1_000,
    weight_decay=0.01,
    dropout=0.1,
    evaluate_every=200,
    patience=20,
)
"""The paper's pretraining on rules, as far as it is known; weight decay (0.01 to 0.1) and patience are our choice."""

RULE_FOLLOW_UP = RULE.replace(learning_rate=5e-4, schedule="constant", warmup_steps=0)
"""The pretraining of the follow-up (arXiv 2601.21725): a constant, ten times higher learning rate."""
