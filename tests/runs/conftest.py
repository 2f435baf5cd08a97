"""A study of trainings that take no time: two rules' seeds, three ways to begin from them."""

from __future__ import annotations

from mechproc.model.config import ModelConfig
from mechproc.procedures import Haystack, Procedure, Set, Uniform
from mechproc.runs.config import RunConfig
from mechproc.training.config import TrainingConfig
from mechproc.transfer.recipe import Recipe

RULE, TASK = Set(lengths=Uniform(2, 4), n_symbols=6), Haystack(lengths=Uniform(1, 3), n_keys=4, n_values=6)
TRAINING = TrainingConfig(
    steps=6,
    batch_size=8,
    warmup_steps=1,
    evaluate_every=3,
    n_validation=20,
    n_test=30,
    adam_eps=1e-4,
    checkpoints_per_decade=1,
)
DONOR_TRAINING = TRAINING.replace(steps=4)
ARMS = {
    "random": Recipe(),
    "attention": Recipe(parts={"attn": "d"}),
    "frozen": Recipe(parts={"L0.mlp": "d"}, freeze="L0.mlp + L0.H1"),
}


def model_for(procedure: Procedure) -> ModelConfig:
    return ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=procedure.n_ctx, d_vocab=procedure.d_vocab)


def planned(n_seeds: int = 2) -> list[RunConfig]:
    donors = [RunConfig(RULE, model_for(RULE), DONOR_TRAINING, seed) for seed in range(n_seeds)]
    return [
        RunConfig(TASK, model_for(TASK), TRAINING, seed, recipe, {"d": donors[seed]} if recipe.parts else {})
        for recipe in ARMS.values()
        for seed in range(n_seeds)
    ]
