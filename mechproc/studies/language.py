"""Does pretraining on a rule help to model text, and which part of its models carries the help?

The text is what every Python brings along, the topics of its ``help()``, read character by character. What is measured
is the loss on held-out documents in nats per character, as perplexities are. The sizes are choices of this project: the
paper does not give its own, and its follow-up (arXiv 2601.21725) takes GPT-2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mechproc.procedures import Fixed, Language
from mechproc.statistics.claims import Claim, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Scale, scale_of, seeds_of
from mechproc.studies.shape import Shape
from mechproc.studies.study import Study
from mechproc.transfer import Recipe, attention_only, fresh, mlp_only, permuted

QUESTION = (__doc__ or "").splitlines()[0]

TASK = "language"
RULES = {"paper": ("k-dyck", "set", "sort", "union"), "laptop": ("k-dyck", "set")}
MEASURE = "loss"
SMALLEST = 0.02
"""Nats per character: a fiftieth of a character's perplexity."""


def size_of(scale: str) -> Scale:
    """The scale with text as its task: windows of 128 characters and width 64, on a laptop 64 characters."""
    size = scale_of(scale)
    if scale == "paper":
        task, shape = Language(lengths=Fixed(128)), Shape(n_layers=2, n_heads=4, d_model=64)
        training = size.training.replace(batch_size=128)
    else:
        task, shape, training = Language(), size.shape, size.training
    return dataclasses.replace(size, tasks={TASK: task}, shape=shape, training=training)


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Rules in full, their attention, that attention permuted, and their MLPs."""
    size, chosen = size_of(scale), seeds_of(seeds)
    arms: dict[str, Recipe] = {"random": fresh()}
    for rule in RULES[scale]:
        arms |= {f"{rule}, full": size.full(rule, rule), f"{rule}, attention": attention_only(rule)}
        arms |= {f"{rule}, permuted attention": permuted(attention_only(rule)), f"{rule}, MLPs": mlp_only(rule)}
    pairs = tuple((f"{TASK}: {arm}", f"{TASK}: random") for arm in arms if arm != "random")
    family = Family(TASK, pairs, n_seeds=len(SEEDS), descriptive=True, measure=MEASURE, smallest_effect=SMALLEST)
    runs = size.task_runs(TASK, arms, {rule: size.donor(rule) for rule in RULES[scale]}, chosen)
    return Study(f"language ({scale})", runs, (family,), claims(), question=QUESTION)


def claims() -> list[Claim]:
    """Nested brackets help, and the arrangement of their attention does."""
    whole = against(f"{TASK}: k-dyck, full", f"{TASK}: random", SMALLEST)
    arranged = against(f"{TASK}: k-dyck, attention", f"{TASK}: k-dyck, permuted attention", SMALLEST)
    return [
        Claim("language", "All of k-dyck lowers the loss on text.", (whole,), measure=MEASURE),
        Claim(
            "language, arrangement",
            "The attention of k-dyck lowers the loss on text by its arrangement: permuted it does less.",
            (arranged,),
            measure=MEASURE,
        ),
    ]
