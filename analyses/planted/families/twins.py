"""Two heads that do the same, either of which is enough."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, Design
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role


@dataclasses.dataclass(frozen=True)
class TwinsFamily(TrapFamily):
    """Removing one twin halves the margin, which is then still ``margin``: neither accuracy nor loss shows it."""

    kind: ClassVar[str] = "twins"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        heads = self.scattered(2, rng)
        roles = dict.fromkeys(heads, Role.REDUNDANT)
        plans = {head: scene.copier(scene.procedure.offset) for head in heads}
        return scene.design(plans, {ANY: roles, "answer": roles}, {})
