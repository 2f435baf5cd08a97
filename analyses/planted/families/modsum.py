"""A head and an MLP: the head fetches the first summand, the MLP holds the table of sums."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.codes import circle, gap, spherical_code
from analyses.planted.design import ANY, BALLAST, Axes, Design, HeadPlan, MLPPlan, looks_back
from analyses.planted.family import Family
from analyses.planted.roles import Role
from analyses.planted.rules.modsum import ModSum
from mechproc.procedures.base import Items, Procedure


@dataclasses.dataclass(frozen=True)
class ModSumFamily(Family):
    """Head and MLP, in one layer or in two; the offset of the first summand (1 to 3) is random too."""

    kind: ClassVar[str] = "modsum"

    def design(self, rng: np.random.Generator) -> Design:
        rule = ModSum(offset=int(rng.integers(1, 4)))
        axes, dim = Axes(self.d_model), self.code_dim
        ballast, numbers, place = axes.take(1)[0], axes.take(dim), axes.take(2)
        fetched, out = axes.take(dim), axes.take(dim)
        code = spherical_code(rule.modulus, dim, rng)
        embed, logits = np.zeros((2, rule.d_vocab, self.d_model))
        embed[1:] = code @ numbers + BALLAST * ballast
        logits[1:] = self.margin / gap(code) * code @ out
        positions = circle(rule.n_ctx)

        def targets(items: Items) -> np.ndarray:
            first = np.roll(items.tokens, rule.offset, axis=1)
            known = np.arange(items.tokens.shape[1]) >= rule.offset
            written = (code @ out)[rule.sums(first, items.tokens) - 1]
            return np.where((known & (items.tokens > 0))[..., None], written, np.nan)

        head, mlp = self.place(rng, "head", "mlp")
        plans = {
            head: HeadPlan(looks_back(place, ballast, rule.n_ctx, rule.offset), numbers, fetched),
            mlp: MLPPlan(np.concatenate([numbers, fetched]), targets),
        }
        both = {head: Role.CARRIES, mlp: Role.CARRIES}
        roles = {ANY: both, "first": both, "second": {**both, head: Role.NEEDED}}
        return Design(rule, axes, embed, positions @ place, plans, logits, roles, {head: "first", mlp: "sum"})

    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        if variable == "sum":
            return source.targets[source.scored]
        assert isinstance(procedure, ModSum)
        (row, last), first = np.nonzero(base.scored), np.nonzero(source.scored)[1] - procedure.offset
        return procedure.sums(source.tokens[row, first], base.tokens[row, last])
