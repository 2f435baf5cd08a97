"""How donors are pretrained in the project's studies: one setting for each rule, the same for every task.

``mechproc.studies.transferable`` searches for it, on seeds that no verdict uses. Mastery of a rule is not the aim:
models that master their rule with 20 symbols carry nothing to the haystack, models of 100 symbols that do not master it
do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from mechproc.config import nearest
from mechproc.errors import ConfigError
from mechproc.procedures import Procedure, Shuffled, Uniform, get, rules
from mechproc.procedures.copy_rule import CopyRule
from mechproc.runs.config import RunConfig
from mechproc.studies.shape import PAPER, Shape
from mechproc.training.config import TrainingConfig

TRAINING = TrainingConfig(
    steps=5_000,
    batch_size=128,
    learning_rate=1e-3,
    warmup_steps=250,
    weight_decay=0.01,
    evaluate_every=250,
    checkpoints_per_decade=1,
)
"""Cosine from 1e-3 over 5,000 updates of 128 items."""
RULES = rules()
LIST_RULES = tuple(name for name in RULES if issubclass(get(name), CopyRule))
LIST_SETTINGS = {"n_symbols": 100, "lengths": Uniform(2, 20)}
"""The settings of list rules that are not their defaults. The other rules have their defaults; the automata have rule
number 110."""
LIKELY = {"n_symbols": 20, "lengths": Uniform(2, 20)}
"""The list rules' alphabet in the paper's pretraining, as far as it is known."""


def rule(name: str, **settings: Any) -> Procedure:
    """The rule as donors are pretrained on it, with some settings changed. Errors: ``ConfigError``."""
    if name not in RULES:
        raise ConfigError(f"rule = {name!r} is not allowed: one of {', '.join(RULES)}{nearest(name, RULES)}")
    cls, given = get(name), (LIST_SETTINGS if name in LIST_RULES else {}) | settings
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{setting: value for setting, value in given.items() if setting in names or setting in settings})


def pretraining(
    procedure: Procedure | str, seed: int, shape: Shape = PAPER, training: TrainingConfig = TRAINING, tied: bool = True
) -> RunConfig:
    """The training of one donor, of a rule by name or of any procedure; token embeddings, if it has some, are tied."""
    taught = rule(procedure) if isinstance(procedure, str) else procedure
    return RunConfig(taught, shape.replace(tied_embeddings=tied).model_for(taught), training, seed)


def pretrained(
    procedure: Procedure | str, shape: Shape = PAPER, training: TrainingConfig = TRAINING, tied: bool = True
) -> Callable[[int], RunConfig]:
    """The donors of a study, as a function of the seed: each seed has a donor of its own."""
    return lambda seed: pretraining(procedure, seed, shape, training, tied)


def shuffled(name: str) -> Shuffled:
    """The shuffled-data control of a rule: the tokens of each of its items in random order."""
    return Shuffled(procedure=rule(name))
