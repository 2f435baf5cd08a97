"""The CPU kernel behind the training loop's ``Engine``."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch

from mechproc.errors import TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.dropout import PhiloxDropout
from mechproc.training.engines.base import Snapshot
from mechproc.training.engines.cpu.kernel import CpuKernel, flatten
from mechproc.training.evaluate import Score
from mechproc.training.optimizer import AdamW, Frozen
from mechproc.training.schedule import learning_rate


class CpuEngine:
    """An ``Engine`` whose losses and gradients come from C++; clipping and AdamW are the reference's.

    For a number of threads or a SIMD width of its own, give the loop ``functools.partial(CpuEngine, threads=2)``.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        state: State,
        training: TrainingConfig,
        seed: int,
        frozen: Frozen | None = None,
        *,
        threads: int = 1,
        lanes: int | None = None,
    ) -> None:
        self.cfg, self.training, self.seed = cfg, training, seed
        self.adamw = AdamW(state, training, frozen)
        self.kernel = CpuKernel(cfg, threads, lanes)

    @property
    def weights(self) -> State:
        return self.adamw.weights

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        flat = flatten(self.weights, self.cfg)
        if not bool(flat.isfinite().all()):
            raise TrainingError(f"a weight is not finite at step {step}")
        rate = self.training.dropout
        dropout = PhiloxDropout(rate, self.seed, step, self.cfg.n_ctx) if rate else None
        total, _, gradients = self.kernel.loss_and_gradients(
            flat, batch.inputs, batch.positions, batch.targets, batch.real, dropout
        )
        n_scored = int(batch.real.sum())
        loss = total / n_scored if n_scored else math.nan  # as the reference: no mean over nothing
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step}")
        for name, weight in self.weights.items():
            torch.div(gradients[name], n_scored, out=weight.grad)
        norm = self.adamw.update(learning_rate(self.training, step))
        if not math.isfinite(norm):
            raise TrainingError(f"the norm of the gradient is {norm} at step {step}")
        return loss, norm

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """What ``mechproc.training.evaluate.evaluate`` returns for the weights as they are now."""
        flat, total, correct, scored = flatten(self.weights, self.cfg), 0.0, [], []
        for batch in batches:
            loss, hits = self.kernel.evaluate(flat, batch.inputs, batch.positions, batch.targets, batch.real)
            total += loss
            correct.append(hits.sum(1).numpy())
            scored.append(batch.real.sum(1).numpy())
        n_scored = np.concatenate(scored)
        return Score(total / float(n_scored.sum()), np.concatenate(correct), n_scored)

    def snapshot(self) -> Snapshot:
        weights = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        return Snapshot(weights, *self.adamw.moments())

    def restore(self, snapshot: Snapshot, step: int) -> None:
        self.adamw.load(snapshot.weights, snapshot.exp_avg, snapshot.exp_avg_sq, step)
