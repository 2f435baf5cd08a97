"""Two heads that write the same with opposite signs, beside the one that carries the answer."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, Design
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role

GAIN = 2.0
"""What each of the pair writes, in units of what the head that carries writes."""


@dataclasses.dataclass(frozen=True)
class CancellingFamily(TrapFamily):
    """Both of the pair copy another symbol to the readout, one of them with a minus sign."""

    kind: ClassVar[str] = "cancelling"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        main, plus, minus = self.scattered(3, rng)
        other = int(rng.choice([offset for offset in range(1, 5) if offset != scene.procedure.offset]))
        plans = {
            main: scene.copier(scene.procedure.offset),
            plus: scene.copier(other, gain=GAIN),
            minus: scene.copier(other, gain=-GAIN),
        }
        roles = {main: Role.CARRIES, plus: Role.CANCELLING, minus: Role.CANCELLING}
        return scene.design(plans, {ANY: roles, "answer": roles}, {main: "symbol"})
