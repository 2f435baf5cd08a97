"""A head, and a second one in a later layer that does its work when the first writes nothing."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, BALLAST, SHARPNESS, Design, HeadPlan, match
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role


@dataclasses.dataclass(frozen=True)
class BackupFamily(TrapFamily):
    """The main head also writes a constant that says "done"; where that is, the backup attends to the first token,
    which has no symbol to copy. Zeros take the constant away, a mean or another item's activation does not."""

    kind: ClassVar[str] = "backup"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        main, backup = self.place(rng, "head", "head")
        done, offset = scene.axes.take(1), scene.procedure.offset
        copier = scene.copier(offset)
        reads = np.concatenate([copier.reads, scene.ballast[None] / BALLAST])
        looks = copier.channels
        strength = 2 * scene.strength + SHARPNESS  # above anything that the offset is worth
        plans = {
            main: HeadPlan(looks, reads, np.concatenate([copier.writes, done])),
            backup: scene.copier(offset, match(done, scene.start[None], strength)),
        }
        roles = {main: Role.BACKED_UP, backup: Role.BACKUP}
        return scene.design(plans, {ANY: roles, "answer": roles}, {main: "symbol"})
