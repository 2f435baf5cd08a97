"""Does pretraining on union help multiplication, and is it the rule that helps or only its tokens?

At the paper's scale this is a study for a GPU: 4 layers, 8 heads, width 512, and 156,250 updates of 64 items, which are
as many items as 10,000 updates of 1,000.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mechproc.procedures import Fixed, Multiplication, Shuffled
from mechproc.statistics.claims import Claim, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Scale, scale_of, seeds_of
from mechproc.studies.shape import Shape
from mechproc.studies.study import Study
from mechproc.transfer import Recipe, attention_only, fresh, mlp_only

QUESTION = (__doc__ or "").splitlines()[0]

TASK = "multiplication"
RULES = {"paper": ("union", "set", "eca"), "laptop": ("union",)}
PAPER_SHAPE = Shape(n_layers=4, n_heads=8, d_model=512)


def size_of(scale: str) -> Scale:
    """The scale with multiplication as its task: two numbers of five digits, on a laptop of two."""
    size = scale_of(scale)
    if scale == "paper":
        training = size.training.replace(steps=156_250, batch_size=64, evaluate_every=1_562)
        task, stair, shape = Multiplication(protocol="paper"), 0.083, PAPER_SHAPE
    else:
        task, stair, shape, training = Multiplication(Fixed(2), protocol="paper"), 0.2, size.shape, size.training
    return dataclasses.replace(
        size, tasks={TASK: task}, stairs={TASK: stair}, smallest={TASK: stair}, shape=shape, training=training
    )


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Union and other rules, in full and in parts, beside union with its tokens in random order."""
    size, chosen = size_of(scale), seeds_of(seeds)
    donors = {rule: size.donor(rule) for rule in RULES[scale]}
    donors["shuffled union"] = size.donor(Shuffled(procedure=size.rule("union")))
    arms: dict[str, Recipe] = {"random": fresh()}
    for rule in RULES[scale]:
        arms |= {f"{rule}, full": size.full(rule, rule), f"{rule}, attention": attention_only(rule)}
        arms[f"{rule}, MLPs"] = mlp_only(rule)
    arms["shuffled union, full"] = size.full("shuffled union", "union")
    pairs = tuple((f"{TASK}: {arm}", f"{TASK}: random") for arm in arms if arm != "random")
    family = Family(TASK, pairs, n_seeds=len(SEEDS), descriptive=True, smallest_effect=size.smallest[TASK])
    runs = size.task_runs(TASK, arms, donors, chosen)
    return Study(f"multiplication ({scale})", runs, (family,), claims(size), question=QUESTION)


def claims(size: Scale) -> list[Claim]:
    """Union helps, and more than its shuffled data do."""
    contrasts = tuple(
        against(f"{TASK}: union, full", f"{TASK}: {control}", size.smallest[TASK], stair=size.stairs[TASK])
        for control in ("random", "shuffled union, full")
    )
    return [Claim("multiplication", "All of union helps multiplication, and its shuffled data do not.", contrasts)]
