"""One training and its identity."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, Protocol

from mechproc.config import Config, digest
from mechproc.errors import require
from mechproc.model.config import MODEL_VERSION, ModelConfig
from mechproc.model.state import State
from mechproc.notebook import facts
from mechproc.procedures import Procedure
from mechproc.procedures.shuffled import Shuffled
from mechproc.runs.donors import ModelFile, ShippedModel
from mechproc.runs.head_order import ORDER_VERSION, check_targets, head_order, with_heads_in_order
from mechproc.training.config import TRAINING_VERSION, TrainingConfig
from mechproc.training.data import check_fit
from mechproc.training.schedule import checkpoint_steps
from mechproc.transfer.arms import arm
from mechproc.transfer.recipe import RECIPE_VERSION, Recipe, check


class Weights(Protocol):
    """Where the weights of runs are kept: a ``mechproc.runs.store.Store``."""

    def model(self, run: RunConfig) -> tuple[ModelConfig, State]:
        """The final weights of a complete run."""
        ...

    def checkpoint(self, run: RunConfig, step: int) -> tuple[ModelConfig, State]:
        """The weights after ``step`` updates."""
        ...


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
    """Everything that decides a training's result, its donors included.

    ``seed`` decides the fresh weights, the order of the data, the dropout masks and the perturbations; test and
    validation items are the same for every seed. Fresh weights are drawn from (``start``, ``seed``), so that a donor
    and the model that receives its parts share none, and neither do donors of two rules.
    """

    procedure: Procedure
    model: ModelConfig
    training: TrainingConfig
    seed: int
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    donors: Mapping[str, RunConfig | RunAtStep | RankedHeads | ShippedModel | ModelFile] = dataclasses.field(
        default_factory=dict
    )
    """Where ``recipe`` takes parts from, by the names that it calls them: another run, a run after some of its updates,
    a run with its heads in order, a pretrained model that ships, or a model file."""
    start: str = ""
    """Name of the random numbers that fresh weights are drawn from, beside the seed; by default the rule's name.

    A donor that is given its receiver's name shares the start with it, to measure what a shared start is worth."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        if not self.start:
            object.__setattr__(self, "start", _rule_name(self.procedure))
        check_fit(self.model, self.procedure, "model.")
        named, given = set(self.recipe.donor_names), set(self.donors)
        require(named == given, "donors", sorted(given), f"exactly those that the recipe names: {sorted(named)}")
        check(self.recipe, self.model, {name: donor.model for name, donor in self.donors.items()})
        self._check_starts()

    def following(self) -> dict[str, Any]:
        """Fresh weights are drawn under the rule's name."""
        return {"start": _rule_name(self.procedure)}

    @functools.cached_property
    def identity(self) -> str:
        """64 hexadecimal digits: the hash of the settings that are not at their defaults, with the semantic versions of
        what reads them. It is computed once: studies look up hundreds of runs by it at every report of progress."""
        donors = {name: donor.identity for name, donor in self.donors.items()}
        versions = {
            "procedure": self.procedure.source_version,
            "model": MODEL_VERSION,
            "training": TRAINING_VERSION,
            "recipe": RECIPE_VERSION,
        }
        return digest({"config": self.identifying() | {"donors": donors}, "versions": versions})

    @property
    def name(self) -> str:
        """A short name for folders and messages, such as ``haystack-3fa4c1d2e5b6``."""
        return f"{self.procedure.short_name}-{self.identity[:12]}"

    @property
    def label(self) -> str:
        """What the run is called in tables and messages, such as ``set, seed 3``."""
        return f"{_rule_name(self.procedure)}, seed {self.seed}"

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """The runs that must be complete before this one can be a donor: itself."""
        return (self,)

    def weights(self, store: Weights) -> tuple[ModelConfig, State]:
        """Shape and final weights."""
        return store.model(self)

    def with_donors(self) -> list[RunConfig]:
        """This run behind all the runs that it needs, each once, donors first."""
        needed: dict[str, RunConfig] = {}
        for donor in self.donors.values():
            for run in donor.needs:
                needed |= {r.identity: r for r in run.with_donors()}
        return [*needed.values(), self]

    def summary(self) -> dict[str, str]:
        """What the run is, in words: name, rule or task, model, start, donors, length of the training and seed."""
        cfg, training = self.model, self.training
        mlp = "no MLPs" if cfg.attn_only else f"MLPs of {cfg.d_mlp}"
        donors = "; ".join(f"{name}: {donor.label}" for name, donor in self.donors.items())
        return {
            "run": self.name,
            "trained on": self.procedure.short_name,
            "model": f"{cfg.n_layers} layers, {cfg.n_heads} heads, width {cfg.d_model}, {mlp}",
            "starts from": arm(self.recipe),
            **({"donors": donors} if donors else {}),
            "training": f"{training.last_step:,} updates of {training.batch_size} items",
            "seed": str(self.seed),
        }

    def _repr_html_(self) -> str:
        return facts("RunConfig", self.summary())

    def __getstate__(self) -> dict[str, Any]:
        """Without the identity: a process that reads this with other code finds its own."""
        return {name: value for name, value in self.__dict__.items() if name != "identity"}

    def _check_starts(self) -> None:
        """Refuse two models that start from the same fresh weights, unless a ``start`` was given by name."""
        trained = {"this run": self} | {f"donors.{n}": run for n, donor in self.donors.items() for run in donor.needs}
        for (_, one), (name, other) in itertools.combinations(trained.items(), 2):
            shared = (one.start, one.seed) == (other.start, other.seed)
            by_name = any(run.start != _rule_name(run.procedure) for run in (one, other))
            require(
                not shared or by_name or one.identity == other.identity,
                f"{name}.seed",
                other.seed,
                f"another seed than that of {one.label}, whose fresh weights it shares; or a start given by name",
            )


@dataclasses.dataclass(frozen=True)
class OfRun(Config):
    """Base of donors that are made from one run."""

    run: RunConfig

    @property
    def model(self) -> ModelConfig:
        """The model's shape."""
        return self.run.model

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.run.seed

    @property
    def needs(self) -> tuple[RunConfig, ...]:
        """The runs that must be complete before this donor can be read."""
        return (self.run,)


@dataclasses.dataclass(frozen=True)
class RunAtStep(OfRun):
    """A run as it was after ``step`` updates: one of the steps of which its training keeps weights."""

    step: int

    def __post_init__(self) -> None:
        kept = checkpoint_steps(self.run.training)
        require(
            self.step in kept, "step", self.step, f"one of those that are kept: {', '.join(map(str, kept)) or 'none'}"
        )

    @property
    def identity(self) -> str:
        """64 hexadecimal digits: the hash of the run's identity and the step."""
        return digest({"run": self.run.identity, "step": self.step})

    @property
    def label(self) -> str:
        """What the donor is called in tables and messages, such as ``set, seed 3, step 1000``."""
        return f"{self.run.label}, step {self.step}"

    def weights(self, store: Weights) -> tuple[ModelConfig, State]:
        """Shape and weights after ``step`` updates."""
        return store.checkpoint(self.run, self.step)


@dataclasses.dataclass(frozen=True)
class RankedHeads(OfRun):
    """A run whose heads are in the order of what they do, so that a part such as ``"L0.H0"`` names a function.

    Head 0 of each layer is the one that attends most to the layer's target; the model computes what it did. The order
    follows from the run's weights, which decide the identity together with the targets; ``order`` tells it, and the
    record of a run whose donor this is keeps it.
    """

    targets: tuple[str, ...]
    """One attention target of the run's procedure for each layer."""

    def __post_init__(self) -> None:
        check_targets(self.run.procedure, self.run.model, self.targets)

    @property
    def identity(self) -> str:
        """64 hexadecimal digits: the hash of the run's identity, the targets and how heads are ordered."""
        return digest({"run": self.run.identity, "targets": list(self.targets), "version": ORDER_VERSION})

    @property
    def label(self) -> str:
        """What the donor is called in tables and messages, such as ``set, seed 3, heads by previous, source``."""
        return f"{self.run.label}, heads by {', '.join(self.targets)}"

    def order(self, store: Weights) -> list[list[int]]:
        """For each layer the numbers that its heads have in the run, best first."""
        cfg, state = store.model(self.run)
        return head_order(cfg, state, self.run.procedure, self.targets)

    def weights(self, store: Weights) -> tuple[ModelConfig, State]:
        """Shape and final weights, heads in order."""
        cfg, state = store.model(self.run)
        return cfg, with_heads_in_order(cfg, state, self.order(store))


Donor = RunConfig | RunAtStep | RankedHeads | ShippedModel | ModelFile
"""What parts can be taken from."""


def _rule_name(procedure: Procedure) -> str:
    """The rule, whatever its settings; of shuffled data the rule that is shuffled, too."""
    if isinstance(procedure, Shuffled):
        return f"{procedure.short_name} {procedure.procedure.short_name}"
    return procedure.short_name
