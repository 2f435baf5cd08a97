"""The CPU kernel as an engine."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, dtype_of, tensor_shapes
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.engines.base import Engine
from mechproc.training.engines.cpu.kernel import CpuKernel
from mechproc.training.evaluate import Score
from mechproc.training.optimizer import Frozen


class CpuEngine(Engine):
    """An engine whose losses and gradients come from C++; clipping and AdamW are those of every engine.

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
        dtype = dtype_of(state)
        require(dtype == torch.float32, "dtype of the weights", dtype, "torch.float32 with the CPU kernel")
        super().__init__(cfg, state, training, seed, frozen)
        self.kernel = CpuKernel(cfg, threads, lanes)
        # the optimizer's order of the weights (decayed first) to the kernel's, and back
        self._to_kernel = self.adamw.order_of(tensor_shapes(cfg))
        self._from_kernel = self._to_kernel.argsort()

    def loss_and_gradient(self, batch: Batch, step: int) -> float:
        total, _, gradient = self.kernel.loss_and_gradient(
            self._flat(), batch.inputs, batch.positions, batch.targets, batch.real, self.dropout(step)
        )
        n_scored = int(np.count_nonzero(batch.real.numpy()))
        torch.index_select(gradient.div_(n_scored), 0, self._from_kernel, out=self.adamw.gradient)
        return total / n_scored

    def evaluate(self, batches: Iterable[Batch]) -> Score:
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
