"""AdamW over one flat vector of weights.

A small model has dozens of small tensors, and an optimizer that visits each of them spends its time on the visits. Here
all weights are slices of one vector and their gradients slices of another, so that clearing, clipping and the update
are a few operations on the whole (Loshchilov and Hutter 2019). The arithmetic is that of ``torch.optim.AdamW``, whose
first use would also load seconds' worth of modules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mechproc.errors import ConfigError, require
from mechproc.model.state import State
from mechproc.training.config import TrainingConfig

Frozen = Mapping[str, Bool[Tensor, "..."]]
"""For some tensors, which of their entries must not change: True is frozen."""


VERSION = "2"
"""Raised when an update changes its bits: part of a run's provenance. 1 took torch's square roots (``rooted_``)."""


def is_decayed(name: str) -> bool:
    """Weight decay acts on matrices, which are called ``W_*``, and never on biases or LayerNorms."""
    return name.rsplit(".", 1)[-1].startswith("W_")


def rooted_(numbers: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Replace each number by its square root, correctly rounded on every CPU.

    On CPUs torch's own asks Intel's MKL, which takes an approximation by the processor's make: a few in a thousand
    roots, or one in six, are off by a last bit, and trainings on two machines with one instruction set part.
    """
    if numbers.device.type != "cpu":
        return numbers.sqrt_()
    array = numbers.numpy()
    np.sqrt(array, out=array)
    return numbers


class FlatLayout:
    """Where the tensors of a model stand in one vector: those that weight decay acts on first, in their order."""

    def __init__(self, state: State) -> None:
        names = sorted(state, key=lambda name: not is_decayed(name))  # stable
        self.shapes = {name: state[name].shape for name in names}
        self.n_decayed = sum(state[name].numel() for name in names if is_decayed(name))

    def named(self, flat: Shaped[Tensor, "*member n"]) -> State:
        """Views into ``flat``, each [*member, *shape]."""
        pieces = flat.split([shape.numel() for shape in self.shapes.values()], dim=-1)
        named = zip(self.shapes.items(), pieces, strict=True)
        return {name: piece.view(*piece.shape[:-1], *shape) for (name, shape), piece in named}

    def flattened(self, state: State) -> Float[Tensor, " n"]:
        """The numbers of one model's tensors, one after the other."""
        return torch.cat([state[name].detach().flatten() for name in self.shapes])

    def mask(self, frozen: Frozen, device: torch.device) -> Bool[Tensor, " n"]:
        """On ``device``, True where an entry is frozen. Errors: ``ConfigError`` for a mask that fits no tensor."""
        for name, mask in frozen.items():
            if name not in self.shapes:
                raise ConfigError(f"frozen tensor {name} is not one of this model's")
            shape = self.shapes[name]
            require(
                mask.shape == shape and mask.dtype == torch.bool,
                f"frozen[{name}]",
                mask.shape,
                f"a bool mask of {list(shape)}",
            )
        masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in self.shapes.items()} | dict(frozen)
        return torch.cat([masks[name].flatten().to(device) for name in self.shapes])


class AdamW:
    """The weights of a training, their gradients and their moments.

    ``flat`` and ``gradient`` are the vectors. ``weights`` are views into them: leaf tensors whose ``.grad`` is filled
    by ``backward``; ``update`` then makes one step. Frozen entries keep their exact bits: their gradients are cleared,
    so their moments stay zero and they do not count for clipping, and decay does not reach them.
    """

    def __init__(self, state: State, training: TrainingConfig, frozen: Frozen | None = None) -> None:
        self.training = training
        self._layout = FlatLayout(state)
        self.flat = self._layout.flattened(state)
        self.gradient = torch.zeros_like(self.flat)
        self._exp_avg, self._exp_avg_sq = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._n_updates = 0
        self._decayed = self.flat[: self._layout.n_decayed]
        self._frozen = self._layout.mask(frozen, self.flat.device) if frozen else None
        self._first = self.flat.clone() if frozen else self.flat
        self.weights = self._layout.named(self.flat)
        for name, gradient in self._layout.named(self.gradient).items():
            self.weights[name].requires_grad_().grad = gradient

    def clear(self) -> None:
        """Set all gradients to zero, before ``backward`` adds to them."""
        self.gradient.zero_()

    @torch.no_grad()
    def update(self, learning_rate: float) -> float:
        """Make one step with the gradients that are there; return their norm before clipping.

        Nothing is changed when the norm is not finite.
        """
        gradient, (beta1, beta2) = self.gradient, self.training.betas
        if self._frozen is not None:
            gradient.masked_fill_(self._frozen, 0.0)
        norm = gradient.norm().item()
        if not math.isfinite(norm):
            return norm
        clip_norm = self.training.clip_norm
        if clip_norm is not None and norm > clip_norm:
            gradient.mul_(clip_norm / norm)
        self._n_updates += 1
        self._decayed.mul_(1 - learning_rate * self.training.weight_decay)
        self._exp_avg.lerp_(gradient, 1 - beta1)
        self._exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # Adam's two corrections for moments that started at zero
        deviation = rooted_(self._exp_avg_sq / (1 - beta2**self._n_updates)).add_(self.training.adam_eps)
        self.flat.addcdiv_(self._exp_avg, deviation, value=-learning_rate / (1 - beta1**self._n_updates))
        if self._frozen is not None:
            torch.where(self._frozen, self._first, self.flat, out=self.flat)
        return norm

    def order_of(self, names: Iterable[str]) -> Int[Tensor, " n"]:
        """Where the numbers of the tensors of these names, one after the other, stand in ``flat`` and ``gradient``."""
        places = self._layout.named(torch.arange(len(self.flat)))
        return torch.cat([places[name].flatten() for name in names])

    def moments(self) -> tuple[State, State]:
        """Copies of Adam's first and second moments, named like the weights."""
        return self._layout.named(self._exp_avg.clone()), self._layout.named(self._exp_avg_sq.clone())

    @torch.no_grad()
    def load(self, weights: State, exp_avg: State, exp_avg_sq: State, n_updates: int) -> None:
        """Go on from these weights and moments as after ``n_updates`` updates."""
        self.flat.copy_(self._layout.flattened(weights))
        moments = (self._layout.flattened(moment).to(self.flat.device) for moment in (exp_avg, exp_avg_sq))
        self._exp_avg, self._exp_avg_sq = moments
        self._n_updates = n_updates
