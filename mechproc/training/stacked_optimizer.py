"""AdamW for several trainings of one shape, whose numbers are the rows of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechproc.errors import require
from mechproc.model.state import State, dtype_of
from mechproc.training.config import TrainingConfig
from mechproc.training.optimizer import FlatLayout, Frozen, rooted_


class StackedAdamW:
    """The arithmetic of ``mechproc.training.optimizer.AdamW`` for each row by itself.

    ``flat`` [member, n] has the weights; each row is clipped by its own norm, has its own number of updates and its own
    frozen entries, which keep their exact bits. Rows come and go: ``append`` adds one at the end, ``remove`` moves
    those behind it up by one.
    """

    def __init__(self, state: State, training: TrainingConfig, device: torch.device) -> None:
        """Without rows, for models of the names, shapes and dtype of ``state``."""
        self.training, self.layout, self.dtype = training, FlatLayout(state), dtype_of(state)
        n = sum(tensor.numel() for tensor in state.values())
        self.flat = torch.zeros(0, n, dtype=self.dtype, device=device)
        self.exp_avg, self.exp_avg_sq, self.first = (torch.zeros_like(self.flat) for _ in range(3))
        self.frozen = torch.zeros(0, n, dtype=torch.bool, device=device)
        self.n_updates: list[int] = []
        self._any_frozen = False

    def append(self, state: State, frozen: Frozen | None) -> None:
        """Add a row that has made no update. Errors: ``ConfigError`` for another dtype or a mask that does not fit."""
        require(dtype_of(state) == self.dtype, "dtype of the weights", dtype_of(state), f"{self.dtype}, as the others")
        device = self.flat.device
        row, mask = self.layout.flattened(state)[None].to(device), self.layout.mask(frozen or {}, device)[None]
        zero = torch.zeros_like(row)
        ends = (row, row, zero, zero, mask)
        self._set([torch.cat([stack, end]) for stack, end in zip(self._stacks, ends, strict=True)])
        self.n_updates.append(0)
        self._any_frozen = self._any_frozen or bool(frozen)

    def remove(self, row: int) -> None:
        """Forget a row."""
        kept = torch.arange(len(self.flat), device=self.flat.device) != row
        self._set([stack[kept] for stack in self._stacks])
        del self.n_updates[row]
        self._any_frozen = bool(self.frozen.any())

    def load(self, row: int, weights: State, exp_avg: State, exp_avg_sq: State, n_updates: int) -> None:
        """Go on in this row from these weights and moments, as after ``n_updates`` updates."""
        tensors = (self.flat, self.exp_avg, self.exp_avg_sq)
        for tensor, state in zip(tensors, (weights, exp_avg, exp_avg_sq), strict=True):
            tensor[row] = self.layout.flattened(state).to(self.flat.device)
        self.n_updates[row] = n_updates

    @torch.no_grad()
    def norms(self, places: Sequence[int], gradient: Float[Tensor, "row n"]) -> Float[Tensor, " row"]:
        """Clear the gradient of frozen entries of the rows at ``places``, in place; the norm of each."""
        if self._any_frozen:
            gradient.masked_fill_(self.frozen[self.rows(places)], 0.0)
        return gradient.norm(dim=1)

    @torch.no_grad()
    def update(
        self,
        places: Sequence[int],
        gradient: Float[Tensor, "row n"],
        norms: Sequence[float],
        rates: Sequence[float],
    ) -> None:
        """Make one step of the rows at ``places``, ascending, at their learning rates.

        ``gradient``, which is overwritten, is the one that ``norms`` was given, and its norms are finite.
        """
        clip_norm, (beta1, beta2) = self.training.clip_norm, self.training.betas
        if clip_norm is not None and max(norms) > clip_norm:
            gradient.mul_(self._column([min(1.0, clip_norm / norm) if norm else 1.0 for norm in norms]))
        for row in places:
            self.n_updates[row] += 1
        n_updates = [self.n_updates[row] for row in places]
        rows, everything = self.rows(places), len(places) == len(self.flat)
        stacks = (self.flat, self.exp_avg, self.exp_avg_sq)
        flat, exp_avg, exp_avg_sq = stacks if everything else (stack[rows] for stack in stacks)
        decay = self.training.weight_decay
        flat[:, : self.layout.n_decayed].mul_(self._column([1 - rate * decay for rate in rates]))
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        deviation = rooted_(exp_avg_sq / self._column([1 - beta2**n for n in n_updates])).add_(self.training.adam_eps)
        steps = [-rate / (1 - beta1**n) for rate, n in zip(rates, n_updates, strict=True)]
        flat.addcdiv_(exp_avg * self._column(steps), deviation)
        if self._any_frozen:
            torch.where(self.frozen[rows], self.first[rows], flat, out=flat)
        if not everything:
            for stack, changed in zip(stacks, (flat, exp_avg, exp_avg_sq), strict=True):
                stack[rows] = changed

    def rows(self, places: Sequence[int]) -> Int[Tensor, " row"]:
        """``places`` as an index on the device."""
        return torch.tensor(places, device=self.flat.device)

    @property
    def _stacks(self) -> tuple[Tensor, ...]:
        return self.flat, self.first, self.exp_avg, self.exp_avg_sq, self.frozen

    def _set(self, stacks: Sequence[Tensor]) -> None:
        """Replace the stacks, all of which have been made: what ran out of memory before has changed none."""
        self.flat, self.first, self.exp_avg, self.exp_avg_sq, self.frozen = stacks

    def _column(self, values: Sequence[float]) -> Float[Tensor, "row 1"]:
        return torch.tensor(values, dtype=self.dtype, device=self.flat.device)[:, None]
