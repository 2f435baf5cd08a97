"""The weight side of a part: a set of slices of tensors."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mechproc.errors import PartError
from mechproc.model.config import ModelConfig
from mechproc.model.parts.table import sliced_by
from mechproc.model.state import State, tensor_shapes


class Slice(NamedTuple):
    """The finest piece of a tensor that has an owner."""

    tensor: str
    index: int | None
    """Which head or neuron, along the tensor's slice axis; ``None`` for a tensor that is owned as a whole."""

    def view(self, state: State) -> Tensor:
        """This slice of ``state``, sharing its memory: ``W_Q`` at a head is [d_model, d_head]."""
        tensor = state[self.tensor]
        return tensor if self.index is None else tensor.select(slice_axis(self.tensor), self.index)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Some of the weights of a model of shape ``cfg``: an immutable set with the algebra of sets, ``| & - <=``."""

    cfg: ModelConfig
    slices: frozenset[Slice]

    def __or__(self, other: Selection) -> Selection:
        return Selection(self.cfg, self.slices | self._slices_of(other))

    def __and__(self, other: Selection) -> Selection:
        return Selection(self.cfg, self.slices & self._slices_of(other))

    def __sub__(self, other: Selection) -> Selection:
        return Selection(self.cfg, self.slices - self._slices_of(other))

    def __le__(self, other: Selection) -> bool:
        return self.slices <= self._slices_of(other)

    def __bool__(self) -> bool:
        return bool(self.slices)

    def __iter__(self) -> Iterator[Slice]:
        """The slices, in the order of the forward pass."""
        for tensor, indices in self.tensors().items():
            yield from (Slice(tensor, index) for index in indices or (None,))

    def tensors(self) -> dict[str, tuple[int, ...] | None]:
        """The selected indices of each tensor along its slice axis, ascending; ``None`` for a tensor without one.

        Tensors come in the order of the forward pass; those with nothing selected are left out.
        """
        indices: dict[str, list[int]] = {}
        for tensor, index in self.slices:
            indices.setdefault(tensor, []).extend(() if index is None else (index,))
        return {name: tuple(sorted(indices[name])) or None for name in shapes_of(self.cfg) if name in indices}

    @property
    def n_parameters(self) -> int:
        """How many numbers are selected."""
        total = 0
        for name, indices in self.tensors().items():
            shape = shapes_of(self.cfg)[name]
            share = 1.0 if indices is None else len(indices) / shape[slice_axis(name)]
            total += round(math.prod(shape) * share)
        return total

    def masks(self) -> dict[str, Tensor]:
        """For each tensor with something selected, a bool tensor of its shape, True at what is selected."""
        nothing = {name: torch.zeros(shapes_of(self.cfg)[name], dtype=torch.bool) for name in self.tensors()}
        return self.write(nothing, {name: ~values for name, values in self.read(nothing).items()})

    def read(self, state: State) -> State:
        """A copy of the selected weights: for each tensor, its selected slices along its slice axis, ascending.

        ``W_Q`` [n_heads, d_model, d_head] at heads 0 and 2 is read as [2, d_model, d_head]. A ``PartError`` names a
        tensor of ``state`` that is missing or of another shape than in ``cfg``.
        """
        values: State = {}
        for name, indices in self.tensors().items():
            self._check(name, state)
            tensor = state[name].detach()
            if indices is None:
                values[name] = tensor.clone()
            else:
                values[name] = tensor.index_select(slice_axis(name), torch.tensor(indices, device=tensor.device))
        return values

    def write(self, state: State, values: State) -> State:
        """A new state, equal to ``state`` but for the selected weights: these are ``values``, in the form of ``read``.

        Tensors with nothing selected are shared with ``state``; those with something selected are copies. A
        ``PartError`` names a tensor whose values have another dtype, as they would be rounded.
        """
        written = dict(state)
        for name, indices in self.tensors().items():
            self._check(name, state)
            tensor = state[name].detach().clone()
            if values[name].dtype != tensor.dtype:
                raise PartError(f"tensor {name} is {values[name].dtype} and would be rounded to {tensor.dtype}")
            if indices is None:
                tensor.copy_(values[name])
            else:
                index = torch.tensor(indices, device=tensor.device)
                tensor.index_copy_(slice_axis(name), index, values[name].to(tensor))
            written[name] = tensor
        return written

    def _slices_of(self, other: Selection) -> frozenset[Slice]:
        if other.cfg != self.cfg:
            raise PartError("parts of models of different shapes cannot be combined")
        return other.slices

    def _check(self, name: str, state: State) -> None:
        shape = shapes_of(self.cfg)[name]
        if name not in state:
            raise PartError(f"tensor {name} of shape {list(shape)} is missing")
        if tuple(state[name].shape) != shape:
            raise PartError(f"tensor {name} has shape {list(state[name].shape)}, not {list(shape)}")


def slice_axis(tensor: str) -> int:
    """The axis along which heads or neurons own their slices of this tensor."""
    address = sliced_by(tensor)
    if address is None or address.axis is None:
        raise ValueError(f"{tensor} is owned as a whole")
    return address.axis


@functools.lru_cache(maxsize=64)
def shapes_of(cfg: ModelConfig) -> dict[str, tuple[int, ...]]:
    """``tensor_shapes``, remembered: selections of many neurons ask for it often. Not to be changed."""
    return tensor_shapes(cfg)
