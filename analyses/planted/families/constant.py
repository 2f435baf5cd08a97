"""A part that writes the same in every item, without which no answer is right."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.design import ANY, BALLAST, Design, HeadPlan, MLPPlan
from analyses.planted.families.offset import Scene
from analyses.planted.families.trap import TrapFamily
from analyses.planted.roles import Role
from mechproc.procedures.base import Items

EXCESS = 3.0
"""The padding's logit without the constant, in units of the right answer's."""


@dataclasses.dataclass(frozen=True)
class ConstantFamily(TrapFamily):
    """A head or an MLP writes a constant that holds the logit of the padding down; what else it writes is not read."""

    kind: ClassVar[str] = "constant"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        (main,) = self.place(rng, "head")
        level, aside = scene.axes.take(1)[0], scene.axes.take(2)
        rule, constant = scene.procedure, scene.ballast / BALLAST
        seen = scene.code[:, :2]

        def targets(items: Items) -> np.ndarray:
            known = (items.tokens >= 2)[..., None]
            return level + np.where(known, seen[np.maximum(items.tokens - 2, 0)], 0.0) @ aside

        if rng.random() < 0.5:
            (steady,) = self.place(rng, "mlp")
            plan = MLPPlan(scene.symbols, targets)
        else:
            steady = str(rng.choice([head for head in self.scattered(99, rng) if head != main]))
            reads = np.concatenate([constant[None], scene.symbols[:2]])
            looks = scene.copier(int(rng.integers(1, 5))).channels
            plan = HeadPlan(looks, reads, np.concatenate([level[None], aside]))
        plans = {main: scene.copier(rule.offset), steady: plan}
        roles = {main: Role.CARRIES, steady: Role.CONSTANT}
        padding = np.zeros((rule.d_vocab, self.d_model))
        padding[rule.pad] = EXCESS * scene.logit * (constant - level)
        return scene.design(plans, {ANY: roles, "answer": roles}, {main: "symbol"}, padding)
