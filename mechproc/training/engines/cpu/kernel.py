"""The CPU kernel as a Python object: slices of a batch on threads, summed in a fixed order."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, n_parameters, tensor_shapes
from mechproc.training.dropout import PhiloxDropout
from mechproc.training.engines.cpu.build import library

SLICES, GROUPS_IN_SLICE = 4, 4
"""Most slices that a batch is cut into, and fewest groups of lanes in each: a slice packs the weights and unpacks its
gradients anew, which costs as much as a few groups. The cut depends only on the batch and the SIMD width, and the
slices' gradients are added in their order, so the bits are the same for any number of threads."""
HEAD_WIDTHS = (4, 8, 16, 32)
_ACTIVATIONS = ("gelu_new", "gelu", "relu")
_REFUSALS = {
    1: "a token lies outside 0..d_vocab-1",
    2: "a scored position lies outside the sequence",
    3: "a target lies outside 0..d_vocab-1",
}

Array = npt.NDArray[Any]


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab")),
        *((name, ctypes.c_int64) for name in ("activation", "norm", "tied", "unembed_bias")),
        ("eps", ctypes.c_double),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "targets", "real")),
        *((name, ctypes.c_int64) for name in ("n_pos", "n_places")),
    ]


class _Dropout(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_uint32) for name in ("key0", "key1", "step", "threshold")), ("scale", ctypes.c_float)]


def refusal(cfg: ModelConfig) -> str | None:
    """Why the kernel cannot compute this model, in one line; ``None`` when it can."""
    if cfg.input != "tokens":
        return "the CPU kernel reads tokens, not vectors"
    if cfg.normalization_type == "LNPre":
        return "the CPU kernel has LayerNorms with weight and bias, or none"
    if cfg.d_head not in HEAD_WIDTHS:
        return f"the CPU kernel has heads of width {', '.join(map(str, HEAD_WIDTHS))}, not {cfg.d_head}"
    return None


def flatten(state: State, cfg: ModelConfig) -> Float[Tensor, " n"]:
    """All weights in one float32 vector, in the order of ``tensor_shapes``."""
    return torch.cat([state[name].detach().flatten() for name in tensor_shapes(cfg)]).float()


def views(flat: Float[Tensor, " n"], cfg: ModelConfig) -> State:
    """The tensors of a model as views into a flat vector; what is written through one is seen through the other."""
    shapes = tensor_shapes(cfg)
    parts = flat.split([int(np.prod(shape)) for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


class CpuKernel:
    """Loss, correct predictions and gradients of one model shape, computed in C++ on ``threads`` threads.

    ``lanes`` is the SIMD width; see ``library`` for ``None``. The bits of a result depend on it but not on
    ``threads``. Raises ``KernelUnavailableError`` where the kernel cannot be built.
    """

    def __init__(self, cfg: ModelConfig, threads: int = 1, lanes: int | None = None) -> None:
        reason = refusal(cfg)
        require(reason is None, "engine", "cpu", str(reason))
        require(threads >= 1, "threads", threads, "at least 1")
        self.cfg, self.threads = cfg, threads
        self._library = library(lanes)
        self._library.mechproc_workspace.restype = ctypes.c_int64
        self.lanes: int = self._library.mechproc_lanes()
        sizes = (cfg.n_layers, cfg.n_heads, cfg.d_model, cfg.d_head, cfg.d_mlp, cfg.n_ctx, cfg.d_vocab)
        norm = cfg.normalization_type is not None
        kinds = (_ACTIVATIONS.index(cfg.act_fn), norm, cfg.tied_embeddings, cfg.unembed_bias)
        self._shape = _Shape(*sizes, *kinds, cfg.eps)
        self._n_parameters = n_parameters(cfg)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._spaces: list[Array] = []

    def loss_and_gradients(
        self,
        weights: State | Float[Tensor, " n"],
        tokens: Tensor,
        positions: Tensor,
        targets: Tensor,
        real: Tensor,
        dropout: PhiloxDropout | None = None,
    ) -> tuple[float, Bool[Tensor, "batch scored"], State]:
        """Summed cross-entropy (nats) over the real places, correct predictions [batch, scored], gradient of the *sum*.

        ``weights`` is a ``State`` or its flat float32 vector; ``tokens`` [batch, pos]; ``positions``, ``targets`` and
        ``real`` [batch, scored]. The gradients are views into one flat vector; that of ``b_K`` is exactly zero. Raises
        a ``ConfigError`` for a shape, token, position or target that this model does not have.
        """
        loss, correct, gradient = self.loss_and_gradient(weights, tokens, positions, targets, real, dropout)
        return loss, correct, views(gradient, self.cfg)

    def loss_and_gradient(
        self,
        weights: State | Float[Tensor, " n"],
        tokens: Tensor,
        positions: Tensor,
        targets: Tensor,
        real: Tensor,
        dropout: PhiloxDropout | None = None,
    ) -> tuple[float, Bool[Tensor, "batch scored"], Float[Tensor, " n"]]:
        """The same with the gradient as one flat vector, in the order of ``tensor_shapes``."""
        loss, correct, parts = self._run(weights, tokens, positions, targets, real, dropout, train=True)
        total = parts[0]
        for part in parts[1:]:
            total += part
        return loss, correct, torch.from_numpy(total)

    def evaluate(
        self,
        weights: State | Float[Tensor, " n"],
        tokens: Tensor,
        positions: Tensor,
        targets: Tensor,
        real: Tensor,
    ) -> tuple[float, Bool[Tensor, "batch scored"]]:
        """Summed cross-entropy (nats) over the real places and correct predictions [batch, scored]; no gradients."""
        loss, correct, _ = self._run(weights, tokens, positions, targets, real, None, train=False)
        return loss, correct

    def _run(
        self,
        weights: Any,
        tokens: Any,
        positions: Any,
        targets: Any,
        real: Any,
        dropout: PhiloxDropout | None,
        train: bool,
    ) -> tuple[float, Tensor, Array]:
        # shapes are checked here and not by annotations: what does not fit is the user's error, in one line
        flat = _contiguous(flatten(weights, self.cfg) if isinstance(weights, dict) else weights, np.float32)
        inputs = [_contiguous(x, np.int64) for x in (tokens, positions, targets)] + [_contiguous(real, np.bool_)]
        self._check(flat, inputs)
        n_pos, places = inputs[0].shape[1], inputs[1].shape
        slices = self._slices(inputs[1], inputs[3])
        gradients = np.empty((len(slices) if train else 0, self._n_parameters), np.float32)
        losses, correct = np.zeros(len(slices)), np.zeros(places, np.bool_)
        shape = ctypes.byref(self._shape)
        batch = ctypes.byref(_Batch(*(x.ctypes.data for x in inputs), n_pos, places[1]))
        drop = _c_dropout(dropout)
        sizes = ctypes.c_int64(n_pos), ctypes.c_int64(places[1])
        n_bytes = self._library.mechproc_workspace(shape, *sizes, int(train))

        def compute(k: int) -> int:
            items, gradient = slices[k], gradients[k].ctypes.data if train else None
            space = self._spaces.pop() if self._spaces else np.empty(0, np.uint8)
            if space.size < n_bytes:
                space = np.empty(n_bytes, np.uint8)
            pointers = (items.ctypes.data, space.ctypes.data, losses[k:].ctypes.data, correct.ctypes.data, gradient)
            at_items, at_space, at_loss, at_correct, at_gradient = map(ctypes.c_void_p, pointers)
            n_items, at_weights = ctypes.c_int64(len(items)), ctypes.c_void_p(flat.ctypes.data)
            status: int = self._library.mechproc_slice(
                shape, at_weights, batch, drop, at_items, n_items, at_space, at_loss, at_correct, at_gradient
            )
            self._spaces.append(space)
            return status

        mapped = (
            map(compute, range(len(slices))) if self.threads == 1 else self._workers().map(compute, range(len(slices)))
        )
        for status in list(mapped):
            require(status == 0, "batch", "...", _REFUSALS.get(status, ""))
        return float(losses.sum()), torch.from_numpy(correct), gradients

    def _check(self, flat: Array, inputs: list[Array]) -> None:
        tokens, positions = inputs[:2]
        require(flat.shape == (self._n_parameters,), "weights", flat.shape, f"{self._n_parameters} numbers")
        require(tokens.ndim == 2 and len(tokens) >= 1, "tokens", tokens.shape, "[batch, pos], one item or more")
        require(
            tokens.shape[1] <= self.cfg.n_ctx, "tokens", tokens.shape, f"at most n_ctx = {self.cfg.n_ctx} positions"
        )
        for name, x in zip(("positions", "targets", "real"), inputs[1:], strict=True):
            fits = x.shape == positions.shape and x.ndim == 2 and len(x) == len(tokens) and x.shape[1] >= 1
            require(fits, name, x.shape, "[batch, scored], one row for each item, alike for all three")

    def _slices(self, positions: Array, real: Array) -> list[Array]:
        """Which items each slice computes.

        Items of like length share a group of lanes, which stops at its last scored position. On haystack, where lengths
        are uniform, that spares half of the tokens (measured: 1.9 times as fast). A slice has groups of all lengths, so
        that slices take equally long.
        """
        order = np.argsort(np.where(real, positions, -1).max(1), kind="stable")
        groups = [order[i : i + self.lanes] for i in range(0, len(order), self.lanes)]
        n_slices = min(SLICES, max(1, len(groups) // GROUPS_IN_SLICE))
        return [np.concatenate(groups[k::n_slices]) for k in range(n_slices)]

    def _workers(self) -> ThreadPoolExecutor:
        """This process's threads; after a fork the child starts its own, because threads do not survive one."""
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), ThreadPoolExecutor(self.threads, thread_name_prefix="mechproc-kernel"))
        return self._pool[1]


def _c_dropout(dropout: PhiloxDropout | None) -> Any:
    if dropout is None or dropout.rate == 0:
        return None
    threshold = min(int(dropout.threshold), 2**32 - 1)
    return ctypes.byref(_Dropout(*dropout.key, dropout.step, threshold, 1 / (1 - dropout.rate)))


def _contiguous(x: Tensor, dtype: Any) -> Array:
    return np.ascontiguousarray(x.detach().cpu().numpy(), dtype=dtype)
