"""One training and its identity."""

from __future__ import annotations

import dataclasses
from typing import Any

from mechproc.config import Config, digest
from mechproc.errors import require
from mechproc.model.config import MODEL_VERSION, ModelConfig
from mechproc.procedures import Procedure
from mechproc.training.config import TrainingConfig
from mechproc.training.data import check_fit
from mechproc.transfer.recipe import RECIPE_VERSION, Recipe, check


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
    """Everything that decides a training's result, the donors' own trainings included.

    ``seed`` decides the fresh weights, the order of the data, the dropout masks and the perturbations; test and
    validation items are the same for every seed.
    """

    procedure: Procedure
    model: ModelConfig
    training: TrainingConfig
    seed: int
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    donors: dict[str, RunConfig] = dataclasses.field(default_factory=dict)
    """The trainings that ``recipe`` takes parts from, by the names it calls them."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        check_fit(self.model, self.procedure, "model.")
        named, given = set(self.recipe.donor_names), set(self.donors)
        require(named == given, "donors", sorted(given), f"exactly those that the recipe names: {sorted(named)}")
        check(self.recipe, self.model, {name: run.model for name, run in self.donors.items()})

    @property
    def identity(self) -> str:
        """64 hexadecimal digits: the hash of the config, with the semantic versions of what it is read by."""
        plain: dict[str, Any] = self.to_dict() | {"donors": {name: run.identity for name, run in self.donors.items()}}
        versions = {"procedure": self.procedure.version, "model": MODEL_VERSION, "recipe": RECIPE_VERSION}
        return digest({"config": plain, "versions": versions})

    @property
    def name(self) -> str:
        """A short name for folders and messages, such as ``haystack-3fa4c1d2e5b6``."""
        return f"{self.procedure.short_name}-{self.identity[:12]}"

    def with_donors(self) -> list[RunConfig]:
        """This run behind all the runs that it needs, each once, donors first."""
        needed: dict[str, RunConfig] = {}
        for donor in self.donors.values():
            needed |= {run.identity: run for run in donor.with_donors()}
        return [*needed.values(), self]
