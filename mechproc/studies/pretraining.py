"""How donors are pretrained in the project's studies: one setting for each rule, the same for every task.

``mechproc.studies.transferable`` searched for it, on seeds that no verdict uses. Mastery of a rule is not the aim:
models that master their rule with 20 symbols carry nothing to the haystack, models of 100 symbols that do not master it
do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
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
LIKELY = {"n_symbols": 20, "lengths": Uniform(2, 20)}
"""The list rules' alphabet in the paper's pretraining, as far as it is known."""


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """What the donors of a rule are pretrained on, and how."""

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Those of the rule that are not its defaults. The automata have rule number 110."""
    training: TrainingConfig = TRAINING
    tied: bool = True
    """Whether the unembedding is the transposed token embedding."""


def _constant(learning_rate: float, steps: int) -> TrainingConfig:
    return TRAINING.replace(learning_rate=learning_rate, steps=steps, schedule="constant")


OF_LISTS = Pretraining(LIST_SETTINGS)
"""That of set in the pilot runs, whose attention crossed the haystack's plateau with every seed that was looked at; of
the other list rules too, which were not searched."""
FROZEN = {
    "identity": Pretraining(LIKELY, _constant(1e-3, 5_000)),
    "stack": Pretraining(LIST_SETTINGS, _constant(3e-3, 5_000)),
    "k-dyck": Pretraining({"k": 16}, _constant(1e-3, 2_000)),
    "k-dyck-shuffle": Pretraining({"k": 16}, _constant(1e-3, 2_000)),
    "eca": Pretraining({}, _constant(3e-3, 5_000), tied=False),
    "eca-vectors": Pretraining({}, _constant(1e-3, 5_000), tied=False),
}
"""What the search found best for the rules that it covered, ``transferable_reading.best``; the others: ``OF_LISTS``."""


def of_rule(procedure: Procedure | str) -> Pretraining:
    """The pretraining of a rule; that of shuffled data is its rule's."""
    if isinstance(procedure, Shuffled):
        return of_rule(procedure.procedure)
    kind = procedure if isinstance(procedure, str) else procedure.kind
    return FROZEN.get(kind, OF_LISTS if kind in LIST_RULES else Pretraining())


def rule(name: str, **settings: Any) -> Procedure:
    """The rule as donors are pretrained on it, with some settings changed. Errors: ``ConfigError``."""
    if name not in RULES:
        raise ConfigError(f"rule = {name!r} is not allowed: one of {', '.join(RULES)}{nearest(name, RULES)}")
    return get(name)(**{**of_rule(name).settings, **settings})


def pretraining(
    procedure: Procedure | str,
    seed: int,
    shape: Shape = PAPER,
    training: TrainingConfig | None = None,
    tied: bool | None = None,
) -> RunConfig:
    """The training of one donor, of a rule by name or of any procedure.

    ``training`` and ``tied`` (the token embeddings, where there are some) are those of ``of_rule`` unless given.
    """
    taught = rule(procedure) if isinstance(procedure, str) else procedure
    known = of_rule(taught)
    model = shape.replace(tied_embeddings=known.tied if tied is None else tied).model_for(taught)
    return RunConfig(taught, model, training or known.training, seed)


def pretrained(
    procedure: Procedure | str,
    shape: Shape = PAPER,
    training: TrainingConfig | None = None,
    tied: bool | None = None,
) -> Callable[[int], RunConfig]:
    """The donors of a study, as a function of the seed: each seed has a donor of its own."""
    return lambda seed: pretraining(procedure, seed, shape, training, tied)


def shuffled(name: str) -> Shuffled:
    """The shuffled-data control of a rule: the tokens of each of its items in random order."""
    return Shuffled(procedure=rule(name))
