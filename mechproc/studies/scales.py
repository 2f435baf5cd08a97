"""The two sizes of the project's studies: the paper's, and one for a laptop.

A scale says which tasks there are, the shape of the models, how they are trained and how donors are pretrained; a study
says which parts of which donors it moves. Seeds 10 to 19 are for verdicts. Those from 0 to 9 have been looked at, and
searches use seeds from 1000 upward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.procedures import (
    Addition,
    Fixed,
    Haystack,
    Procedure,
    ReversedAddition,
    Sorting,
    Uniform,
)
from mechproc.runs.config import Donor, RunConfig
from mechproc.studies import pretraining
from mechproc.studies.shape import PAPER as PAPER_SHAPE
from mechproc.studies.shape import Shape
from mechproc.training.config import TASK, TrainingConfig
from mechproc.transfer import Recipe, full

SEEDS = tuple(range(10, 20))
"""The seeds of verdicts."""
Runs = list[tuple[str, RunConfig]]
Donors = Mapping[str, Callable[[int], Donor]]


@dataclasses.dataclass(frozen=True)
class Scale:
    """One size of the project's studies."""

    name: Literal["paper", "laptop"]
    tasks: Mapping[str, Procedure]
    stairs: Mapping[str, float]
    """Of each task, what a seed gains in accuracy when it crosses its highest plateau, or predicts one digit more."""
    smallest: Mapping[str, float]
    """Of each task, the smallest difference in accuracy that matters."""
    shape: Shape
    training: TrainingConfig
    donor_training: TrainingConfig | None
    """``None``: that of each rule, ``mechproc.studies.pretraining.of_rule``, with embeddings tied or not."""
    rules: Mapping[str, Mapping[str, Any]]
    """Settings of rules that differ from those of ``mechproc.studies.pretraining``."""
    positions: Literal["donor", "donor-if-whole"]
    """The rule for positions in full transfer; that of the paper's authors is the second."""

    def rule(self, name: str, **settings: Any) -> Procedure:
        """A rule as its donors are pretrained on it, with some settings changed."""
        return pretraining.rule(name, **{**self.rules.get(name, {}), **settings})

    def donor(self, rule: str | Procedure, **changes: Any) -> Callable[[int], RunConfig]:
        """The donors of a rule, as a function of the seed; ``changes``: to the shape of the model."""
        taught = self.rule(rule) if isinstance(rule, str) else rule
        tied = None if self.donor_training is None else True
        return pretraining.pretrained(taught, self.shape.replace(**changes), self.donor_training, tied)

    def full(self, donor: str, rule: str | Procedure) -> Recipe:
        """All that can be moved. A model that reads vectors has no token embeddings to take the mean of."""
        taught = self.rule(rule) if isinstance(rule, str) else rule
        recipe = full(donor, positions=self.positions)
        return recipe if taught.n_cells is None else recipe.replace(embedding="random")

    def task_runs(
        self,
        task: str,
        arms: Mapping[str, Recipe],
        donors: Donors,
        seeds: Sequence[int],
        *,
        prefix: str | None = None,
        training: TrainingConfig | None = None,
        **changes: Any,
    ) -> Runs:
        """Every arm on one task, seed by seed. Arms are called ``"haystack: set, attention"``.

        ``prefix`` stands for the task in the arms' names; ``training`` for the scale's; ``changes``: to the shape.
        """
        procedure = self.tasks[task]
        model = self.shape.replace(**changes).model_for(procedure)
        runs = []
        for seed in seeds:
            of_seed: dict[str, Donor] = {}
            for arm, recipe in arms.items():
                fed = {name: of_seed.setdefault(name, donors[name](seed)) for name in recipe.donor_names}
                run = RunConfig(procedure, model, training or self.training, seed, recipe, fed)
                runs.append((f"{prefix or task}: {arm}", run))
        return runs


PAPER = Scale(
    name="paper",
    tasks={
        "haystack": Haystack(),
        "addition": Addition(protocol="paper"),
        "reversed addition": ReversedAddition(protocol="paper"),
        "sorting": Sorting(),
    },
    stairs={"haystack": 0.85, "addition": 0.15, "reversed addition": 0.0815, "sorting": 0.1},
    smallest={"haystack": 0.3, "addition": 0.15, "reversed addition": 0.0815, "sorting": 0.1},
    shape=PAPER_SHAPE,
    training=TASK.replace(checkpoints_per_decade=None),
    donor_training=None,
    rules={},
    positions="donor-if-whole",
)
"""The paper's tasks and protocol."""

_LISTS = {"n_symbols": 128, "lengths": Uniform(2, 12)}
LAPTOP = Scale(
    name="laptop",
    tasks={
        "haystack": Haystack(n_keys=8, n_values=16, lengths=Uniform(1, 6)),
        "addition": Addition(lengths=Fixed(3), protocol="paper"),
        "reversed addition": ReversedAddition(lengths=Fixed(5), protocol="paper"),
        "sorting": Sorting(lengths=Uniform(2, 5)),
    },
    stairs={"haystack": 0.5, "addition": 0.25, "reversed addition": 0.15, "sorting": 0.1},
    smallest={"haystack": 0.2, "addition": 0.25, "reversed addition": 0.15, "sorting": 0.1},
    shape=Shape(n_layers=2, n_heads=8, d_model=32),
    training=TrainingConfig(
        steps=2_000,
        batch_size=64,
        learning_rate=2e-3,
        warmup_steps=200,
        evaluate_every=100,
        n_test=2_000,
        checkpoints_per_decade=None,
    ),
    donor_training=TrainingConfig(
        steps=3_000,
        batch_size=64,
        learning_rate=3e-3,
        schedule="constant",
        warmup_steps=300,
        weight_decay=0.01,
        evaluate_every=500,
        n_test=1_000,
        checkpoints_per_decade=None,
    ),
    rules={
        **{rule: _LISTS for rule in pretraining.LIST_RULES},
        "k-dyck": {"lengths": Uniform(4, 32, step=2)},
        "k-dyck-shuffle": {"lengths": Uniform(4, 32, step=2)},
        "eca": {"width": 8, "lengths": Uniform(2, 4)},
        "eca-vectors": {"width": 8, "lengths": Uniform(2, 4)},
    },
    positions="donor",
)
"""Trainings of seconds: wider models, smaller tasks, the donors of the demo."""
SCALES = {"paper": PAPER, "laptop": LAPTOP}


def scale_of(name: str) -> Scale:
    """The scale of this name. Errors: ``ConfigError``."""
    if name not in SCALES:
        raise ConfigError(f"scale = {name!r} is not allowed: one of {', '.join(SCALES)}{nearest(name, SCALES)}")
    return SCALES[name]


def seeds_of(seeds: Sequence[int] | None) -> tuple[int, ...]:
    """The seeds that were asked for, by default those of verdicts."""
    chosen = SEEDS if seeds is None else tuple(seeds)
    require(len(chosen) > 0, "seeds", chosen, "at least one")
    return chosen
