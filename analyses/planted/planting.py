"""Plantings: models whose answer is known, because it was put there. Each is made from a seed; nothing is stored."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from analyses.interventions.items import derangement, layouts
from analyses.planted.accept import Trial, failures
from analyses.planted.assemble import SAMPLE_ITEMS, assemble
from analyses.planted.design import ANY, Contrast, Design, HeadPlan, MLPPlan
from analyses.planted.family import Family
from analyses.planted.roles import Role
from analyses.planted.symmetries import disguised
from mechproc.errors import MechprocError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import components
from mechproc.model.state import State
from mechproc.procedures.base import Items, Procedure

MAX_DRAWS = 40
"""How often a planting is drawn anew before its family gives up."""


class PlantingError(MechprocError, RuntimeError):
    """No planting was accepted; the message has the criterion that the last one failed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Planting:
    """A model, its task, and what each of its parts is to it."""

    family: Family
    seed: int
    procedure: Procedure
    cfg: ModelConfig
    state: State
    items: Items
    """Test items of its task."""
    roles_for: Mapping[str, Mapping[str, Role]]
    """For each contrast (``ANY`` and kinds of minimal pairs) the role of every head and MLP, and in some families of
    other parts, by address."""
    variables: Mapping[str, str]
    """What each part that carries computes."""
    draws: int
    """How many were drawn until this one was accepted."""

    @functools.cached_property
    def model(self) -> HookedTransformer:
        """The model, with its float32 weights in float64.

        Its reading weights are large and its MLPs are fitted: they multiply rounding errors of float32 by a hundred,
        more than the checks inside an analysis allow.
        """
        return HookedTransformer(self.cfg, self.state, dtype=torch.float64)

    @property
    def roles(self) -> dict[str, Role]:
        """What each part is in the family's first contrast: ``ANY``, but for donors."""
        return dict(next(iter(self.roles_for.values())))

    def parts(self, role: Role) -> list[str]:
        """The parts of one role, as in ``roles``."""
        return [part for part, mine in self.roles.items() if mine is role]

    def contrast(self, name: str = ANY) -> Contrast:
        """The pairs of a contrast, as many as there are items; the same at every call."""
        known = ", ".join(self.roles_for)
        require(name in self.roles_for, "contrast", name, f"one of {known}")
        if name not in self._contrasts:
            self._contrasts[name] = self._contrast(name)
        return self._contrasts[name]

    @functools.cached_property
    def _contrasts(self) -> dict[str, Contrast]:
        """Those that were asked for: drawing pairs takes as long as patching with them."""
        return {}

    def _contrast(self, name: str) -> Contrast:
        if name == ANY:
            other = self.items.take(derangement(layouts(self.items), 0))
            return Contrast("another item of the same layout", self.items, other, self.roles_for[name])
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        clean, corrupt = self.family.pairs(name, self.procedure, len(self.items), rng)
        return Contrast(self.family.describe(name, self.procedure), clean, corrupt, self.roles_for[name])


def plant(family: Family, seed: int) -> Planting:
    """The planting of a family and a seed: drawn until one is accepted.

    Raises ``PlantingError`` after ``MAX_DRAWS`` draws, and ``ConfigError`` where the family does not fit its width.
    """
    rng = np.random.default_rng([seed, zlib.crc32(family.kind.encode())])
    wrong: list[str] = []
    for draw, stream in enumerate(rng.spawn(MAX_DRAWS), 1):
        planting = _drawn(family, seed, stream, draw)
        wrong = check(planting)
        if not wrong:
            return planting
    raise PlantingError(f"{family.kind}, seed {seed}: none of {MAX_DRAWS} draws was accepted; the last: {wrong[0]}")


def plantings(family: Family, n: int, first_seed: int = 0) -> Iterator[Planting]:
    """The plantings of ``n`` seeds in a row."""
    for seed in range(first_seed, first_seed + n):
        yield plant(family, seed)


def check(planting: Planting) -> list[str]:
    """The criteria of ``analyses.planted.accept`` that a planting fails, or those of its family."""
    own = planting.family.failures(planting)
    if own is not None:
        return own
    trial = Trial(planting.model, planting.items, list(planting.roles))
    implied = {
        part: planting.family.interchanged(variable, planting.procedure, planting.items, trial.source)
        for part, variable in planting.variables.items()
    }
    return failures(trial, planting.roles, implied)


def _drawn(family: Family, seed: int, rng: np.random.Generator, draw: int) -> Planting:
    designing, building, disguising, itemising, finishing = rng.spawn(5)
    design = family.design(designing)
    cfg = family.config(design.procedure)
    item_seed = int(itemising.integers(2**31))
    kinds = _inert(family, design, cfg, building)
    idle = kinds if family.idle_role is None else dict.fromkeys(kinds, family.idle_role)
    sample = design.procedure.items(SAMPLE_ITEMS, seed=item_seed, split="train")
    state = disguised(assemble(design, cfg, building, kinds, sample), cfg, disguising)
    state = family.finish(design, cfg, state, finishing)
    return Planting(
        family=family,
        seed=seed,
        procedure=design.procedure,
        cfg=cfg,
        state={name: tensor.to(torch.float32) for name, tensor in state.items()},
        items=design.procedure.items(family.n_items, seed=item_seed),
        roles_for={contrast: {**idle, **roles} for contrast, roles in design.roles.items()},
        variables=dict(design.variables),
        draws=draw,
    )


def _inert(family: Family, design: Design, cfg: ModelConfig, rng: np.random.Generator) -> dict[str, Role]:
    """The inert role of each head and MLP without a task."""
    idle = [part for part in components(cfg) if not isinstance(design.plans.get(part), (HeadPlan, MLPPlan))]
    choices = {"ones": [Role.INERT_EXACT], "junk": [Role.INERT_NORM], "mixed": [Role.INERT_EXACT, Role.INERT_NORM]}
    allowed = choices[family.distractors]
    kinds = {part: allowed[rng.integers(len(allowed))] for part in idle}
    return kinds | {part: Role.INERT_NORM for part in idle if part in design.plans}  # a loud one has a norm
