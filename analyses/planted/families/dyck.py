"""Head, MLP, head: brackets of bounded depth.

A head that attends to everything writes the mean of +1 for opening and -1 for closing brackets, which is depth divided
by position; the MLP turns mean and position into a code of the depth; a head of a later layer attends to the last
opening bracket of the same depth, which is the innermost open one.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.codes import arc, gap, spherical_code
from analyses.planted.design import ANY, BALLAST, SHARPNESS, Axes, Channel, Design, HeadPlan, MLPPlan, match, prefer
from analyses.planted.family import Family
from analyses.planted.roles import Role
from analyses.planted.rules.dyck import BoundedDyck
from mechproc.procedures.base import Items, Procedure
from mechproc.procedures.items import UNDEFINED

MEAN_GAIN = 3.0
"""What the first head writes for a mean of 1, in units of a code's length."""


@dataclasses.dataclass(frozen=True)
class DyckFamily(Family):
    """A head of uniform attention, an MLP of its layer or a later one, and a matching head in a layer after that."""

    kind: ClassVar[str] = "dyck"

    def design(self, rng: np.random.Generator) -> Design:
        rule = BoundedDyck()
        axes = Axes(self.d_model)
        ballast, sign, mean = axes.take(1)[0], axes.take(1), axes.take(1)
        place, kinds, depth, out = axes.take(2), axes.take(rule.k - 1), axes.take(3), axes.take(rule.k - 1)
        code, depths = spherical_code(rule.k, rule.k - 1, rng), spherical_code(rule.depth + 1, 3, rng)
        positions = arc(rule.n_ctx - 1)

        def targets(items: Items) -> np.ndarray:
            context = np.arange(items.tokens.shape[1]) < items.n_tokens[:, None] - 1
            written = (depths @ depth)[np.clip(rule.depths(items.tokens), 0, rule.depth)]
            return np.where(context[..., None], written, np.nan)

        first, mlp, second = self.place(rng, "head", "mlp", "head")
        # Uniform: what keys read is the same at all of them.
        evenly = Channel(place[:1], ballast[None])
        later = positions[:, 1]
        # Openers of one depth are two places apart at least. A match outweighs a flag, a flag outweighs recency.
        recency = SHARPNESS / float((later[2:] - later[:-2]).min())
        spread = recency * float(later[-1] - later[0]) + SHARPNESS
        kinds_of_key = {"opens": (sign[0], spread / 2), "late": (place[1], recency)}
        opens_late = prefer(ballast, spread / gap(depths) + spread / 2, **kinds_of_key)
        plans = {
            first: HeadPlan((evenly,), sign, MEAN_GAIN * mean),
            mlp: MLPPlan(np.concatenate([3 * place, 5 * mean, 0.3 * ballast[None]]), targets),
            second: HeadPlan((match(depth, depth, spread / gap(depths)), opens_late), kinds, out),
        }
        embed, logits = np.zeros((2, rule.d_vocab, self.d_model))
        embed[1 : 1 + rule.k], embed[1 + rule.k :] = code @ kinds + sign, code @ kinds - sign
        embed[1:] += BALLAST * ballast
        logits[1 + rule.k :] = self.margin / gap(code) * code @ out
        everything = {first: Role.CARRIES, mlp: Role.CARRIES, second: Role.CARRIES}
        kind_only = {**everything, first: Role.NEEDED, mlp: Role.NEEDED}
        roles = {ANY: everything, "depth": everything, "kind": kind_only}
        variables = {first: "depth", mlp: "depth", second: "kind"}
        table = np.concatenate([positions, positions[-1:]]) @ place
        return Design(rule, axes, embed, table, plans, logits, roles, variables)

    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        if variable == "kind":
            return source.targets[source.scored]
        assert isinstance(procedure, BoundedDyck)
        at = procedure.innermost(base.tokens, procedure.depths(source.tokens), base.n_tokens - 1)
        return np.where(at == UNDEFINED, UNDEFINED, base.tokens[np.arange(len(base)), at] + procedure.k)
