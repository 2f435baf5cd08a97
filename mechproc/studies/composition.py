"""Can the attention of one rule be combined with the MLPs of another, and is that better than either alone?"""

from __future__ import annotations

from collections.abc import Sequence

from mechproc.statistics.claims import Claim, Contrast
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Runs, Scale, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.transfer import Permute, Recipe, attention_only, composition, fresh, mlp_only

QUESTION = (__doc__ or "").splitlines()[0]

TASKS = {"paper": ("haystack", "reversed addition", "addition", "sorting"), "laptop": ("haystack", "reversed addition")}
BEST = "set attention + eca MLPs"
ARMS: dict[str, Recipe] = {
    "random": fresh(),
    BEST: composition("set", "eca"),
    "set attention": attention_only("set"),
    "eca MLPs": mlp_only("eca"),
    "eca attention + set MLPs": composition("eca", "set"),
    "set attention + permuted eca MLPs": composition("set", "eca").replace(perturb={"mlp": Permute()}),
    "set and k-dyck attention + eca MLPs": Recipe(parts={"L0.attn": "set", "L1.attn": "k-dyck", "mlp": "eca"}),
}
"""The last one has parts of three donors: the attention of the first layer, that of the second, and the MLPs."""


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Compositions of set, eca and k-dyck, each beside its parts alone."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    donors = {rule: size.donor(rule) for rule in ("set", "eca", "k-dyck")}
    runs: Runs = []
    families = []
    for task in TASKS[scale]:
        runs += size.task_runs(task, ARMS, donors, chosen)
        pairs = tuple((f"{task}: {BEST}", f"{task}: {arm}") for arm in ARMS if arm != BEST)
        families.append(Family(task, pairs, n_seeds=len(SEEDS), descriptive=True, smallest_effect=size.smallest[task]))
    return Study(f"composition ({scale})", runs, families, claims(size), question=QUESTION)


def claims(size: Scale) -> list[Claim]:
    """The composition against every other arm, in the mean over the tasks."""
    tasks = TASKS[size.name]
    share = 1 / len(tasks)
    contrasts = tuple(
        Contrast(
            f"{BEST} against {arm}, mean over tasks",
            {f"{task}: {BEST}": share for task in tasks} | {f"{task}: {arm}": -share for task in tasks},
            0.03,
            "best of all",
            stair=max(size.stairs[task] for task in tasks),
        )
        for arm in ARMS
        if arm != BEST
    )
    return [
        Claim("8", "The attention of set with the MLPs of eca has the best mean accuracy over the tasks.", contrasts)
    ]
