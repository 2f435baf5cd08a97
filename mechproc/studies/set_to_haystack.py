"""Transfer from ``set`` to ``haystack``: which part of a pretrained model helps to find a value by its key?

The study of the demo, with small models: width 32, lists of up to 12 symbols, up to 6 key-value pairs. It tests the
first claim of the paper (arXiv 2505.22308): the attention alone carries the gain, and better than the whole model does.

The arm ``full`` moves more than attention and MLPs: also position embeddings, LayerNorms and the mean embedding. The
arm ``body`` moves attention and MLPs alone: ``attention`` differs from it by the MLPs, and from ``full`` by all of
these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mechproc.model.config import ModelConfig
from mechproc.procedures import Haystack, Set, Uniform
from mechproc.runs.config import RunConfig
from mechproc.statistics.comparisons import Family
from mechproc.studies.study import Study
from mechproc.training.config import TrainingConfig
from mechproc.transfer import Recipe, attention_only, body, fresh, full, mlp_only, permuted

SEEDS = tuple(range(8))
"""The seeds of the demo's verdict."""
SEARCH_SEEDS = tuple(range(100, 108))
"""The seeds that its sizes were chosen on; they share no data, no fresh weights and no donor with ``SEEDS``."""
MASK = "previous"
"""The attention target that the head is chosen by: the first step of an induction circuit. It was itself chosen on
``SEARCH_SEEDS``, where every head of the second layer attended to the answer and ablating one of them cost little."""
CROSSED = 0.9
"""Test accuracy from which a run counts as having learned the look-up; the plateau before it is below 0.6."""

ARMS: dict[str, Recipe] = {
    "random": fresh(),
    "full": full("set"),
    "body": body("set"),
    "attention": attention_only("set"),
    "MLPs": mlp_only("set"),
    "permuted attention": permuted(attention_only("set")),
}
"""What the models of each arm start from; all else is equal."""

FAMILY = Family(
    name="haystack",
    pairs=(
        ("full", "random"),
        ("body", "random"),
        ("attention", "random"),
        ("MLPs", "random"),
        ("permuted attention", "random"),
        ("attention", "permuted attention"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of the models, of the items and of the trainings.

    The alphabet of the pretrained models has four times as many symbols as the model has dimensions, so that their
    attention has to compare symbols of any direction; with 64 symbols, fewer of them helped in another vocabulary.
    """

    d_model: int = 32
    n_heads: int = 8
    n_symbols: int = 128
    longest_list: int = 12
    n_keys: int = 8
    n_values: int = 16
    most_pairs: int = 6
    donor_steps: int = 3_000
    donor_learning_rate: float = 3e-3
    task_steps: int = 2_000
    task_learning_rate: float = 2e-3
    batch_size: int = 64


def donor(seed: int, sizes: Sizes = Sizes()) -> RunConfig:
    """A model pretrained on ``set``, with tied embeddings."""
    rule = Set(n_symbols=sizes.n_symbols, lengths=Uniform(2, sizes.longest_list))
    training = TrainingConfig(
        steps=sizes.donor_steps,
        batch_size=sizes.batch_size,
        learning_rate=sizes.donor_learning_rate,
        schedule="constant",
        warmup_steps=sizes.donor_steps // 10,
        weight_decay=0.01,
        evaluate_every=sizes.donor_steps // 4,
        n_test=1_000,
        checkpoints_per_decade=1,
    )
    return RunConfig(rule, _model(sizes, rule.d_vocab, tied=True), training, seed)


def transfer(arm: str, seed: int, sizes: Sizes = Sizes()) -> RunConfig:
    """One arm's training on the haystack; the donor of seed i goes into the fresh model of seed i."""
    recipe = ARMS[arm]
    task = Haystack(n_keys=sizes.n_keys, n_values=sizes.n_values, lengths=Uniform(1, sizes.most_pairs))
    training = TrainingConfig(
        steps=sizes.task_steps,
        batch_size=sizes.batch_size,
        learning_rate=sizes.task_learning_rate,
        warmup_steps=sizes.task_steps // 10,
        evaluate_every=sizes.task_steps // 12,
        n_test=2_000,
        checkpoints_per_decade=1,
    )
    donors = {name: donor(seed, sizes) for name in recipe.donor_names}
    return RunConfig(task, _model(sizes, task.d_vocab, tied=False), training, seed, recipe, donors)


def study(seeds: Sequence[int] = SEEDS, sizes: Sizes = Sizes()) -> Study:
    """All arms for all seeds."""
    runs = [(arm, transfer(arm, seed, sizes)) for seed in seeds for arm in ARMS]
    return Study("set to haystack", runs, (FAMILY,))


def _model(sizes: Sizes, d_vocab: int, tied: bool) -> ModelConfig:
    n_ctx = max(2 * sizes.longest_list + 1, 2 * sizes.most_pairs + 2)
    return ModelConfig(
        n_layers=2, n_heads=sizes.n_heads, d_model=sizes.d_model, n_ctx=n_ctx, d_vocab=d_vocab, tied_embeddings=tied
    )
