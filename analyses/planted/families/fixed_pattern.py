"""One head whose attention pattern is essential and the same in every item."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, Design
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role


@dataclasses.dataclass(frozen=True)
class FixedPatternFamily(TrapFamily):
    """The model of the family ``offset``, with roles for the head's QK and OV apart.

    The pattern of items of one length is fixed by position. Its mean and another item's are the pattern itself, so that
    ablating the QK by them shows nothing; a uniform pattern in its place shows that it is needed.
    """

    kind: ClassVar[str] = "fixed pattern"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        (head,) = self.place(rng, "head")
        roles = {head: Role.CARRIES, f"{head}.QK": Role.CONSTANT, f"{head}.OV": Role.CARRIES}
        plans = {head: scene.copier(scene.procedure.offset)}
        return scene.design(plans, {ANY: roles, "answer": roles}, {head: "symbol", f"{head}.OV": "symbol"})
