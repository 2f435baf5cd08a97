"""What a training reads: batches that are a pure function of (procedure, seed, stage, step)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.procedures.base import BLOCK_ITEMS, Items, Procedure, Split

EVALUATION_SEED = 0
"""Validation and test items are those of this seed in every run: they are crossed with the seeds of the models."""

EVALUATION_BATCH = 256
"""Items that are evaluated at once; small enough for the cache."""

LARGE_BATCH = 250
"""Items of a batch that a thread of its own makes; smaller ones are made where they are asked for."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Items as the forward pass reads them, with what is scored."""

    inputs: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_input"]
    """Tokens or vectors, up to the last one from which something is predicted."""
    positions: Int[Tensor, "batch scored"]
    """Where predictions are made, left-aligned in each item."""
    targets: Int[Tensor, "batch scored"] | Int[Tensor, "batch scored d_vocab"]
    """The tokens to predict; of vectors each cell, 0 or 1."""
    real: Bool[Tensor, "batch scored"]
    """False where an item has fewer scored positions than others."""

    @classmethod
    def of(cls, block: Items) -> Batch:
        """The batch of all items of ``block``, no wider than it has to be.

        Columns after the last scored position are cut: attention is causal, so they reach no scored prediction.
        """
        positions, real = block.positions()
        read = block.tokens if block.vectors is None else block.vectors
        targets = read[np.arange(len(block))[:, None], positions + 1].astype(np.int64)  # the last is never scored
        inputs = np.ascontiguousarray(read[:, : int(positions.max()) + 1])
        return cls(*(torch.from_numpy(a) for a in (inputs, positions, targets, real)))

    def __len__(self) -> int:
        return len(self.inputs)


class BatchStream(Protocol):
    """Gives the batches of a training."""

    def batch(self, step: int, stage: int | None) -> Batch:
        """The batch of ``step`` when the curriculum is at ``stage`` (``None`` for procedures without one)."""
        ...


class TrainStream:
    """The endless training items of one seed, cut into batches: step s has items s B to (s + 1) B of its stage.

    A thread makes the batches to come while a step computes, where batches are so large (``LARGE_BATCH``) that this
    gains more than handing them over costs. A context manager: leaving it ends the thread.
    """

    def __init__(self, procedure: Procedure, seed: int, batch_size: int) -> None:
        self.procedure, self.seed, self.batch_size = procedure, seed, batch_size
        self._depth = 1 + -(-BLOCK_ITEMS // batch_size)
        """Batches made ahead: those of one block, so that the time it takes to draw the next is spread over them."""
        self._ahead: dict[tuple[int, int | None], Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mechproc-data")
        self._blocks: dict[tuple[int | None, int], Items] = {}

    def __enter__(self) -> TrainStream:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def batch(self, step: int, stage: int | None) -> Batch:
        """The batch of ``step`` when the curriculum is at ``stage`` (``None`` for procedures without one)."""
        if self.batch_size < LARGE_BATCH:
            return self._make(step, stage)
        wanted = [(step + i, stage) for i in range(self._depth + 1)]
        for key in self._ahead.keys() - set(wanted):
            self._ahead.pop(key).cancel()
        for key in wanted:
            if key not in self._ahead:
                self._ahead[key] = self._thread.submit(self._make, *key)
        return self._ahead.pop(wanted[0]).result()

    def _make(self, step: int, stage: int | None) -> Batch:
        """Of large batches runs in the thread, one step after another."""
        first, end = step * self.batch_size, (step + 1) * self.batch_size
        needed = [(stage, index) for index in range(first // BLOCK_ITEMS, (end - 1) // BLOCK_ITEMS + 1)]
        # only the blocks of this batch are kept: the next one needs the last of them, or a new one
        self._blocks = {key: self._blocks.get(key) or self.draw(*key) for key in needed}
        pieces = []
        for (_, index), block in self._blocks.items():
            start = index * BLOCK_ITEMS
            pieces.append(block.take(slice(max(first - start, 0), min(end - start, BLOCK_ITEMS))))
        return Batch.of(Items.join(pieces) if len(pieces) > 1 else pieces[0])

    def draw(self, stage: int | None, index: int) -> Items:
        return self.procedure.block(self.seed, "train", index, stage, latents=False)


def check_fit(cfg: ModelConfig, procedure: Procedure, prefix: str = "") -> None:
    """Raise a ``ConfigError`` unless a model of this config can read and predict the items of ``procedure``."""
    n_cells, n_ctx = procedure.n_cells, procedure.n_ctx
    require(cfg.n_ctx >= n_ctx, f"{prefix}n_ctx", cfg.n_ctx, f"at least {n_ctx}, the longest item")
    expected = "tokens" if n_cells is None else "vectors"
    require(cfg.input == expected, f"{prefix}input", cfg.input, f"{expected!r} for {procedure.kind}")
    if n_cells is None:
        require(cfg.d_vocab >= procedure.d_vocab, f"{prefix}d_vocab", cfg.d_vocab, f"at least {procedure.d_vocab}")
    else:
        require(cfg.d_input == n_cells, f"{prefix}d_input", cfg.d_input, f"{n_cells}, the cells of a vector")
        require(cfg.d_vocab == n_cells, f"{prefix}d_vocab", cfg.d_vocab, f"{n_cells}, one logit for each cell")


def evaluation_items(procedure: Procedure, n_items: int, split: Split, stage: int | None = None) -> Items:
    """The first ``n_items`` of a split: the same items for every training, whatever its seed.

    Every validation and test draws its items here, so that a ceiling or a baseline of these items belongs to the
    scores of a model on them.
    """
    return procedure.items(n_items, seed=EVALUATION_SEED, split=split, stage=stage)


def evaluation_batches(items: Items) -> list[Batch]:
    """The items in batches that are evaluated at once, in their order."""
    return [Batch.of(items.take(slice(i, i + EVALUATION_BATCH))) for i in range(0, len(items), EVALUATION_BATCH)]


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """Validation or test items, and the batches that are made of them once they are asked for."""

    items: Items

    @functools.cached_property
    def batches(self) -> list[Batch]:
        """``evaluation_batches``."""
        return evaluation_batches(self.items)


def evaluation_set(procedure: Procedure, n_items: int, split: Split, stage: int | None = None) -> EvaluationSet:
    """``evaluation_items`` with their batches."""
    return EvaluationSet(evaluation_items(procedure, n_items, split, stage))


class Sources(NamedTuple):
    """Where a training gets its items."""

    stream: Callable[[Procedure, int, int], AbstractContextManager[BatchStream]]
    """From procedure, seed and batch size."""
    evaluation_set: Callable[..., EvaluationSet]
    """From procedure, number of items, split and stage."""


SOURCES = Sources(TrainStream, evaluation_set)
"""Those of a training by itself."""
