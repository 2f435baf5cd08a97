"""Is the gain a better optimum or only a faster start?

Set on the haystack, with budgets of 10,000, 30,000 and 100,000 steps, each on a schedule of its own, and at a constant
learning rate for the longest: a gain that is only a faster start is gone when a random start has had the time.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechproc.statistics.claims import Claim, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Runs, Scale, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.training.config import TrainingConfig
from mechproc.transfer import Recipe, attention_only, fresh

QUESTION = (__doc__ or "").splitlines()[0]

TASK = "haystack"
ARMS: dict[str, Recipe] = {"random": fresh(), "set, attention": attention_only("set")}
FACTORS = (1, 3, 10)
"""Budgets, in those of the scale."""


def budgets(size: Scale) -> dict[str, TrainingConfig]:
    """The trainings by name; validations are as many in each."""

    def longer(factor: int, **settings: object) -> TrainingConfig:
        base = size.training
        steps = {"steps": base.steps * factor, "evaluate_every": base.evaluate_every * factor}
        return base.replace(**steps, **settings)

    named = {f"{size.training.steps * factor:,} steps": longer(factor) for factor in FACTORS}
    longest = size.training.steps * FACTORS[-1]
    return named | {f"{longest:,} steps, constant rate": longer(FACTORS[-1], schedule="constant")}


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Attention only against a random start, budget by budget."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    runs: Runs = []
    families = []
    for name, training in budgets(size).items():
        runs += size.task_runs(TASK, ARMS, {"set": size.donor("set")}, chosen, prefix=name, training=training)
        pair = (f"{name}: set, attention", f"{name}: random")
        for measure in ("accuracy", "steps to 0.5" if scale == "paper" else "steps to 0.9"):
            families.append(Family(name, (pair,), n_seeds=len(SEEDS), descriptive=True, measure=measure))
    return Study(f"faster or better ({scale})", runs, families, claims(size), question=QUESTION)


def claims(size: Scale) -> list[Claim]:
    """With the longest budget the two are alike: the gain is a faster start."""
    longest = list(budgets(size))[len(FACTORS) - 1]
    alike = against(
        f"{longest}: set, attention",
        f"{longest}: random",
        size.smallest[TASK],
        "equivalence",
        stair=size.stairs[TASK],
    )
    statement = f"The gain of set on the haystack is a faster start: after {longest} a random start is as good."
    return [Claim("11", statement, (alike,))]
