"""Does it hold in wider models, where a head has more than four dimensions?

Donors and models of the same width, four heads at every width at the paper's scale; set on the haystack.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechproc.statistics.claims import Claim, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Runs, Scale, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.transfer import attention_only, fresh

QUESTION = (__doc__ or "").splitlines()[0]

TASK = "haystack"
WIDTHS = {"paper": (16, 32, 64), "laptop": (32, 64)}


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Random start, full transfer and attention only, width by width."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    arms = {"random": fresh(), "set, full": size.full("set", "set"), "set, attention": attention_only("set")}
    runs: Runs = []
    families = []
    for width in WIDTHS[scale]:
        donors = {"set": size.donor("set", d_model=width)}
        name = f"width {width}"
        runs += size.task_runs(TASK, arms, donors, chosen, prefix=name, d_model=width)
        pairs = ((f"{name}: set, attention", f"{name}: random"), (f"{name}: set, full", f"{name}: random"))
        smallest = size.smallest[TASK]
        families.append(Family(name, pairs, n_seeds=len(SEEDS), descriptive=True, smallest_effect=smallest))
    return Study(f"width ({scale})", runs, families, claims(size), question=QUESTION)


def claims(size: Scale) -> list[Claim]:
    """The claims about the narrow model, stated for the widest."""
    name = f"width {WIDTHS[size.name][-1]}"
    smallest, stair = size.smallest[TASK], size.stairs[TASK]
    contrasts = tuple(
        against(f"{name}: set, attention", f"{name}: {control}", smallest, stair=stair)
        for control in ("random", "set, full")
    )
    statement = f"At {name}, too, the attention alone of set helps the haystack, and is above full transfer."
    return [Claim("12", statement, contrasts)]
