"""Perturbations: what a transplanted part is compared with, to learn whether its arrangement or its scale matters.

A perturbation acts on one *block* of numbers at a time. For the tensors of the attention a block is one head's slice
(as in arXiv 2505.22308), for every other tensor it is all that is selected of that tensor, so that an MLP's matrix is
one block. Biases and LayerNorm vectors are blocks like any others: a bias left in place beside a permuted matrix would
keep some of the arrangement.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float64

from mechproc.config import Config
from mechproc.errors import require
from mechproc.model.parts.selection import Selection
from mechproc.model.parts.table import sliced_by
from mechproc.model.state import State, tensor_generator


@dataclasses.dataclass(frozen=True)
class Perturbation(Config):
    """Base of the perturbations."""

    registry: ClassVar[dict[str, type[Config]] | None] = {}

    @abstractmethod
    def of(self, block: Float64[np.ndarray, "*shape"], rng: np.random.Generator) -> Float64[np.ndarray, "*shape"]:
        """The perturbed form of one block."""


@dataclasses.dataclass(frozen=True)
class Permute(Perturbation):
    """The same numbers in random places: their distribution stays, their arrangement goes."""

    kind: ClassVar[str] = "permute"

    def of(self, block: Float64[np.ndarray, "*shape"], rng: np.random.Generator) -> Float64[np.ndarray, "*shape"]:
        return rng.permutation(block.ravel()).reshape(block.shape)


@dataclasses.dataclass(frozen=True)
class Noise(Perturbation):
    """Gaussian noise added to every number."""

    kind: ClassVar[str] = "noise"
    sigma: float
    """Standard deviation, in the units of the weights."""

    def __post_init__(self) -> None:
        require(0 < self.sigma < float("inf"), "sigma", self.sigma, "above 0 and finite")

    def of(self, block: Float64[np.ndarray, "*shape"], rng: np.random.Generator) -> Float64[np.ndarray, "*shape"]:
        return block + rng.normal(0.0, self.sigma, size=block.shape)


@dataclasses.dataclass(frozen=True)
class NormMatchedNoise(Perturbation):
    """Gaussian numbers instead, scaled to the block's Frobenius norm: only the scale stays."""

    kind: ClassVar[str] = "norm-matched-noise"

    def of(self, block: Float64[np.ndarray, "*shape"], rng: np.random.Generator) -> Float64[np.ndarray, "*shape"]:
        fresh = rng.normal(size=block.shape)
        return fresh * (np.linalg.norm(block) / np.linalg.norm(fresh))


@dataclasses.dataclass(frozen=True)
class Spectrum(Perturbation):
    """The block's singular values between random orthogonal bases; of a vector, its length in a random direction."""

    kind: ClassVar[str] = "spectrum"

    def of(self, block: Float64[np.ndarray, "*shape"], rng: np.random.Generator) -> Float64[np.ndarray, "*shape"]:
        matrix = block if block.ndim == 2 else block.reshape(-1, 1)
        values = np.linalg.svd(matrix, compute_uv=False)
        left, right = (_orthonormal(n, len(values), rng) for n in matrix.shape)
        return ((left * values) @ right.T).reshape(block.shape)


def perturbed(perturbation: Perturbation, selection: Selection, state: State, seed: int) -> State:
    """A new state in which the selected weights are perturbed.

    What happens to a block is a pure function of (seed, tensor, head) and of the block itself.
    """
    values = selection.read(state)
    for name, indices in selection.tensors().items():
        sliced = sliced_by(name)
        heads = indices if sliced is not None and sliced.variable == "head" else None
        blocks = [values[name]] if heads is None else values[name].unbind()
        changed = [
            perturbation.of(block.double().cpu().numpy(), tensor_generator(seed, "perturb", name, str(index)))
            for block, index in zip(blocks, heads or (None,), strict=True)
        ]
        array = changed[0] if heads is None else np.stack(changed)
        values[name] = torch.from_numpy(array).to(values[name])
    return selection.write(state, values)


def _orthonormal(n: int, k: int, rng: np.random.Generator) -> Float64[np.ndarray, "n k"]:
    """``k`` orthonormal columns, uniform over all such (QR of a Gaussian with signs fixed; Mezzadri 2007)."""
    q, r = np.linalg.qr(rng.normal(size=(n, k)))
    return q * np.sign(np.diag(r))
