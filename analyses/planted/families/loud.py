"""An MLP that writes more than any other part, where nothing reads."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, Design, Loud
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role

TIMES = 4.0
"""How much larger its output weights, and what it writes, are than a distractor's."""


@dataclasses.dataclass(frozen=True)
class LoudFamily(TrapFamily):
    """A head carries the answer; a loud MLP changes the scale of the LayerNorms after it and nothing else."""

    kind: ClassVar[str] = "loud"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        (main,), (mlp,) = self.place(rng, "head"), self.place(rng, "mlp")
        roles = {main: Role.CARRIES, mlp: Role.INERT_NORM}
        plans = {main: scene.copier(scene.procedure.offset), mlp: Loud(times=TIMES)}
        return scene.design(plans, {ANY: roles, "answer": roles}, {main: "symbol"})
