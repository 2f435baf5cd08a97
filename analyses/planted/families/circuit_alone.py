"""A circuit that is right and complete, and breaks when all other parts are zeroed at once."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from analyses.planted.design import Design, Loud, MLPPlan
from analyses.planted.families.modsum import ModSumFamily
from analyses.planted.roles import Role
from mechproc.errors import require
from mechproc.model.parts import components

STEADY = 10.0
"""The norm of the constant that each inert part writes where nothing reads, in units of a code's length."""
BRITTLE = 1e-6
"""The ridge penalty of the MLP: small, so that it is right only for inputs of the size that it was fitted to."""


@dataclasses.dataclass(frozen=True)
class CircuitAloneFamily(ModSumFamily):
    """The circuit of ``modsum``; every other part also writes a constant that only LayerNorms' scales depend on.

    Without one of them a scale changes by some percent; without all of them at once the MLP reads inputs of another
    size than those it was made for. With other items' activations in their place the circuit stays as it was.
    """

    kind: ClassVar[str] = "circuit alone"
    trap: ClassVar[bool] = True
    min_width: ClassVar[int] = 32

    d_model: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.distractors != "ones", "distractors", self.distractors, "'mixed' or 'junk': parts that write a norm"
        )

    def design(self, rng: np.random.Generator) -> Design:
        design = super().design(rng)
        idle = [part for part in components(self.config(design.procedure)) if part not in design.plans]
        roles = {
            contrast: {**parts, **dict.fromkeys(idle, Role.INERT_NORM), " + ".join(idle): Role.INERT_NORM}
            for contrast, parts in design.roles.items()
        }
        fitted = {
            part: dataclasses.replace(plan, ridge=BRITTLE) if isinstance(plan, MLPPlan) else plan
            for part, plan in design.plans.items()
        }
        plans = {**fitted, **dict.fromkeys(idle, Loud(steady=STEADY))}
        return dataclasses.replace(design, plans=plans, roles=roles)

    def place(self, rng: np.random.Generator, *kinds: Literal["head", "mlp"]) -> list[str]:
        """The MLP is in the last layer, behind most of the inert parts."""
        while True:
            parts = super().place(rng, *kinds)
            if parts[-1] == f"L{self.n_layers - 1}.mlp":
                return parts
