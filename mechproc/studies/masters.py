"""How each shipped model was trained to master its rule: one run for each rule and seed, which decides its bits."""

from __future__ import annotations

from mechproc.config import nearest
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.procedures import get, rules
from mechproc.procedures.base import Procedure
from mechproc.runs.config import RunConfig
from mechproc.training.config import TrainingConfig

RULES = rules()
SEEDS = range(10)
KEPT = (0, 10, 100, 1_000, 10_000)
"""Steps of which weights are shipped beside the last."""
TRAINING = TrainingConfig(
    steps=10_000,
    batch_size=64,
    learning_rate=1e-2,
    warmup_steps=500,
    weight_decay=0.01,
    evaluate_every=200,
    n_validation=500,
    n_test=4_000,
    stop_at_accuracy=0.999,
    checkpoints_per_decade=1,
)
"""A learning rate far above the paper's 5e-5 to 5e-4, and no dropout; chosen on seed 0, with 3e-3 as the alternative,
which after 5,000 steps was behind on identity, reverse, sort, delete and stack, and a little ahead on set.

No curriculum: with one (length 2 to 20, by 1, 2 or 6, at a validation accuracy of 0.8 to 0.97) set was mastered in two
of sixteen trainings of 20,000 steps and ended below its best baseline in ten, because the curriculum came to a stop.
These trials were not kept."""
LONGER = {rule: 60_000 for rule in ("set", "reverse", "union", "delete", "stack", "eca")}
"""Most steps for the rules that 10,000 did not teach to every one of the ten seeds: of set none had mastered it, of
reverse 6, union 0, delete 1, stack 4, eca 9. Chosen on set and reverse with seeds 100 and 101, where all four did.

Set ends mostly near 0.84 or near 0.998. Where a seed ends was not moved by a weight decay of 0.1 (seeds 102 and
103, 30,000 steps: 0.998 and 0.846, as with 0.01: 0.998 and 0.842); with batches of 256 (20,000 steps) they changed
places: 0.853 and 0.998. These trials were not kept."""


def recipe(rule: str, seed: int) -> RunConfig:
    """The training of one donor: the paper's shape (2 layers, 4 heads, width 16), token embeddings tied."""
    if rule not in RULES:
        raise ConfigError(f"rule = {rule!r} is not allowed: one of {', '.join(RULES)}{nearest(rule, RULES)}")
    procedure = get(rule).from_dict({"kind": rule})
    training = TRAINING.replace(steps=LONGER[rule]) if rule in LONGER else TRAINING
    return RunConfig(procedure, _model(procedure), training, seed)


def _model(procedure: Procedure) -> ModelConfig:
    n_ctx, n_cells = procedure.n_ctx, procedure.n_cells
    if n_cells is None:
        return ModelConfig(2, 4, 16, n_ctx, procedure.d_vocab, tied_embeddings=True)
    return ModelConfig(2, 4, 16, n_ctx, n_cells, input="vectors", d_input=n_cells)
