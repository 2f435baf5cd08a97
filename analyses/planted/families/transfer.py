"""A donor in which one head alone has structure: the first of the two that solve ``haystack``.

The donor does not solve its task. Its embeddings, positions, LayerNorms and unembedding come along in every arm of a
transfer; of its parts, only the previous-token head is worth moving (``analyses.planted.single_parts``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from analyses.planted.design import Design
from analyses.planted.families.haystack import HaystackFamily
from analyses.planted.interchange import hooks_of, record
from analyses.planted.roles import Role
from mechproc.model.config import ModelConfig
from mechproc.model.parts import components, select
from mechproc.model.state import State
from mechproc.procedures.base import Items, Procedure

if TYPE_CHECKING:
    from analyses.planted.planting import Planting

TRANSFER = "transfer"
"""The contrast of a training with a part of the donor and one without."""
LOOKS_BACK = 0.9
"""The least share of its attention that the planted head puts on the token before."""


@dataclasses.dataclass(frozen=True)
class TransferFamily(HaystackFamily):
    """The previous-token head of ``haystack``; all other parts are random, with the norms that they had."""

    kind: ClassVar[str] = "transfer"
    idle_role: ClassVar[Role | None] = Role.RANDOM

    def design(self, rng: np.random.Generator) -> Design:
        design = super().design(rng)
        first, second = design.plans
        return dataclasses.replace(
            design, roles={TRANSFER: {first: Role.CARRIES, second: Role.RANDOM}}, variables={first: "keys"}
        )

    def finish(self, design: Design, cfg: ModelConfig, state: State, rng: np.random.Generator) -> State:
        (planted,) = design.variables
        for part in components(cfg):
            if part != planted:
                selection = select(part, cfg)
                values = {name: _random_of_norm(value, rng) for name, value in selection.read(state).items()}
                state = selection.write(state, values)
        return state

    def pairs(self, contrast: str, procedure: Procedure, n: int, rng: np.random.Generator) -> tuple[Items, Items]:
        return super().pairs("keys", procedure, n, rng)

    def describe(self, contrast: str, procedure: Procedure) -> str:
        return "a training that starts with a part of the donor, and one that starts without"

    def failures(self, planting: Planting) -> list[str]:
        """The planted head looks at the token before; how much that is worth, only trainings show."""
        (planted,) = planting.variables
        _, own = record(planting.model, planting.items, [f"{planted}.QK"])
        (hook,) = hooks_of(planting.model, [f"{planted}.QK"])
        pattern = own[hook][:, int(planted.rpartition("H")[2])]
        share = float(pattern.diagonal(-1, 1, 2)[:, :-1].mean())  # the last token is no one's context
        return [] if share >= LOOKS_BACK else [f"{planted} looks back with {share:.3f}"]


def _random_of_norm(value: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Normal numbers of the same shape and Frobenius norm."""
    drawn = torch.from_numpy(rng.normal(size=tuple(value.shape))).to(value)
    return drawn * value.norm() / drawn.norm().clamp_min(1e-12)
