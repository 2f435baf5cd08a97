"""A head that finds the answer and writes it where nothing reads."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, Design
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role


@dataclasses.dataclass(frozen=True)
class DecoyFamily(TrapFamily):
    """The decoy attends as the head that carries does, and holds the answer: no probe, no pattern tells them apart."""

    kind: ClassVar[str] = "decoy"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        main, decoy = self.scattered(2, rng)
        aside, offset = scene.axes.take(self.code_dim), scene.procedure.offset
        plans = {main: scene.copier(offset), decoy: scene.copier(offset, to=aside)}
        roles = {main: Role.CARRIES, decoy: Role.DECOY}
        return scene.design(plans, {ANY: roles, "answer": roles}, {main: "symbol"})
