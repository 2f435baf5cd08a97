"""One head that copies the symbol a fixed number of places back."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.codes import circle, gap, spherical_code
from analyses.planted.design import ANY, BALLAST, Axes, Channel, Design, HeadPlan, look_back_strength, looks_back
from analyses.planted.family import Family
from analyses.planted.roles import Role
from analyses.planted.rules.offset import Offset
from mechproc.procedures.base import Items, Procedure


class Scene:
    """What all designs for the rule ``Offset`` share: codes of symbols and of positions, and the readout."""

    def __init__(self, family: Family, rng: np.random.Generator) -> None:
        self.procedure = Offset(offset=int(rng.integers(1, 5)))
        self.axes = Axes(family.d_model)
        self.ballast, self.start = self.axes.take(1)[0], self.axes.take(1)[0]
        self.symbols, self.place = self.axes.take(family.code_dim), self.axes.take(2)
        self.out = self.axes.take(family.code_dim)
        self.code = spherical_code(self.procedure.n_symbols, family.code_dim, rng)
        self.n_pos = self.procedure.n_ctx
        self.strength = look_back_strength(self.n_pos)
        self.logit = family.margin / gap(self.code)
        """The right answer's logit, nats."""

    def copier(self, offset: int, *more: Channel, gain: float = 1.0, to: np.ndarray | None = None) -> HeadPlan:
        """A head that copies the symbol ``offset`` places back, ``gain`` times, to the readout or elsewhere."""
        channels = (*looks_back(self.place, self.ballast, self.n_pos, offset), *more)
        return HeadPlan(channels, self.symbols, gain * (self.out if to is None else to))

    def design(self, plans: dict, roles: dict, variables: dict, unembed: np.ndarray | None = None) -> Design:
        """The design with these parts; ``unembed`` is added to the readout of the symbols."""
        rule = self.procedure
        embed = np.zeros((rule.d_vocab, len(self.ballast)))
        embed[2:] = self.code @ self.symbols
        embed[rule.start] = self.start
        embed[1:] += BALLAST * self.ballast
        logits = np.zeros_like(embed)
        logits[2:] = self.logit * self.code @ self.out
        if unembed is not None:
            logits += unembed
        positions = circle(self.n_pos) @ self.place
        return Design(rule, self.axes, embed, positions, plans, logits, roles, variables)


@dataclasses.dataclass(frozen=True)
class OffsetFamily(Family):
    """One head; its layer, its place in it and the offset (1 to 4) are random."""

    kind: ClassVar[str] = "offset"

    def design(self, rng: np.random.Generator) -> Design:
        scene = Scene(self, rng)
        (head,) = self.place(rng, "head")
        roles = {head: Role.CARRIES}
        plans = {head: scene.copier(scene.procedure.offset)}
        return scene.design(plans, {ANY: roles, "answer": roles}, {head: "symbol"})

    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        return source.targets[source.scored]
