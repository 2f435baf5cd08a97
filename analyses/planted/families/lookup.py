"""One MLP that holds a table: the class of each symbol."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from analyses.planted.codes import circle, gap, spherical_code
from analyses.planted.design import ANY, BALLAST, Axes, Design, MLPPlan
from analyses.planted.family import Family
from analyses.planted.roles import Role
from analyses.planted.rules.lookup import Lookup
from mechproc.procedures.base import Items, Procedure

N_SYMBOLS, N_CLASSES = 12, 4


@dataclasses.dataclass(frozen=True)
class LookupFamily(Family):
    """One MLP; its layer and the table (12 symbols in 4 classes of 3) are random."""

    kind: ClassVar[str] = "lookup"

    def design(self, rng: np.random.Generator) -> Design:
        rule = Lookup(table=tuple(rng.permutation(np.arange(N_SYMBOLS) % N_CLASSES).tolist()))
        axes = Axes(self.d_model)
        ballast, symbols, place, out = axes.take(1)[0], axes.take(self.code_dim), axes.take(2), axes.take(3)
        code, answers = spherical_code(N_SYMBOLS, self.code_dim, rng), spherical_code(N_CLASSES, 3, rng)
        embed, logits = np.zeros((2, rule.d_vocab, self.d_model))
        embed[1 : 1 + N_SYMBOLS] = code @ symbols
        embed[1:] += BALLAST * ballast
        logits[1 + N_SYMBOLS :] = self.margin / gap(answers) * answers @ out

        def targets(items: Items) -> np.ndarray:
            classes = rule.classes(items.tokens)
            written = (answers @ out)[classes]
            return np.where((classes >= 0)[..., None], written, np.nan)

        (mlp,) = self.place(rng, "mlp")
        roles = {mlp: Role.CARRIES}
        plans = {mlp: MLPPlan(symbols, targets)}
        positions = circle(rule.n_ctx) @ place
        return Design(rule, axes, embed, positions, plans, logits, {ANY: roles, "last": roles}, {mlp: "class"})

    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        return source.targets[source.scored]
