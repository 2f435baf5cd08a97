"""The CPU kernel behind the training loop's ``Engine``."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechproc.errors import TrainingError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, tensor_shapes
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.dropout import PhiloxDropout
from mechproc.training.engines.base import Snapshot
from mechproc.training.engines.cpu.kernel import CpuKernel
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
        # the optimizer's order of the weights (decayed first) to the kernel's, and back
        self._to_kernel = self.adamw.order_of(tensor_shapes(cfg))
        self._from_kernel = self._to_kernel.argsort()

    @property
    def weights(self) -> State:
        return self.adamw.weights

    def step(self, batch: Batch, step: int) -> tuple[float, float]:
        flat = self._flat()
        if not np.isfinite(flat.numpy()).all():
            raise TrainingError(f"a weight is not finite at step {step}")
        rate = self.training.dropout
        dropout = PhiloxDropout(rate, self.seed, step, self.cfg.n_ctx) if rate else None
        total, _, gradient = self.kernel.loss_and_gradient(
            flat, batch.inputs, batch.positions, batch.targets, batch.real, dropout
        )
        n_scored = int(batch.real.sum())
        loss = total / n_scored if n_scored else math.nan  # as the reference: no mean over nothing
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {step}")
        torch.index_select(gradient.div_(n_scored), 0, self._from_kernel, out=self.adamw.gradient)
        norm = self.adamw.update(learning_rate(self.training, step))
        if not math.isfinite(norm):
            raise TrainingError(f"the norm of the gradient is {norm} at step {step}")
        return loss, norm

    def evaluate(self, batches: Iterable[Batch]) -> Score:
        """What ``mechproc.training.evaluate.evaluate`` returns for the weights as they are now."""
        flat, total, correct, scored = self._flat(), 0.0, [], []
        for batch in batches:
            loss, hits = self.kernel.evaluate(flat, batch.inputs, batch.positions, batch.targets, batch.real)
            total += loss
            correct.append(hits.long().numpy())
            scored.append(batch.real.long().numpy())
        return Score.of(total, correct, scored)

    def _flat(self) -> Float[Tensor, " n"]:
        """The weights as the kernel reads them."""
        return self.adamw.flat.detach().index_select(0, self._to_kernel).float()

    def snapshot(self) -> Snapshot:
        weights = {name: tensor.detach().clone() for name, tensor in self.weights.items()}
        return Snapshot(weights, *self.adamw.moments())

    def restore(self, snapshot: Snapshot, step: int) -> None:
        self.adamw.load(snapshot.weights, snapshot.exp_avg, snapshot.exp_avg_sq, step)
