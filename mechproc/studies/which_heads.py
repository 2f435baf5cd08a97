"""Which head of a model of set carries the help on the haystack, and which of its circuits, QK or OV?

A head's index means nothing across donors, so that heads are chosen by what they do in the donor: in the first layer
the head that attends most to the symbol before, in the second the one that attends most to the symbol to be written
next, the two steps of an induction circuit. The donor's heads are put in this order before they are moved
(``mechproc.runs.config.RankedHeads``), and the record of each run keeps which heads they were. The control is another
head of the same layer, drawn at random for each seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mechproc.runs.config import Donor, RankedHeads, RunConfig
from mechproc.statistics.claims import Claim, Contrast, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Runs, Scale, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.transfer import Recipe, attention_only, fresh, part

QUESTION = (__doc__ or "").splitlines()[0]

TASK, RULE = "haystack", "set"
TARGETS = ("previous", "source")
"""The attention target of each layer."""
PREVIOUS, INDUCTION = "L0.H0", "L1.H0"
"""The best head of each layer, once heads are in order."""
RANKED = "ranked set"


def arms(seed: int, n_heads: int) -> dict[str, Recipe]:
    """The recipes of one seed; which the other heads are is drawn from it."""
    others = np.random.default_rng([seed, n_heads]).integers(1, n_heads, size=2)
    other = f"L0.H{others[0]} + L1.H{others[1]}"
    both = f"{PREVIOUS} + {INDUCTION}"
    chosen = {
        "both heads": both,
        "both heads, QK": f"{PREVIOUS}.QK + {INDUCTION}.QK",
        "both heads, OV": f"{PREVIOUS}.OV + {INDUCTION}.OV",
        "previous-token head": PREVIOUS,
        "induction head": INDUCTION,
        "other heads": other,
        "all but both heads": f"attn - {PREVIOUS} - {INDUCTION}",
    }
    recipes = {name: part(expression, RANKED) for name, expression in chosen.items()}
    return {"random": fresh(), "attention": attention_only(RULE), **recipes}


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """The whole attention, the chosen heads, their circuits, other heads, and all but the chosen ones."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    runs = head_runs(size, chosen)
    names = list(dict.fromkeys(name for name, _ in runs))
    pairs = tuple((name, f"{TASK}: random") for name in names if name != f"{TASK}: random")
    smallest = size.smallest[TASK]
    family = Family(TASK, pairs, n_seeds=len(SEEDS), descriptive=True, smallest_effect=smallest)
    return Study(f"which heads ({scale})", runs, (family,), claims(size), question=QUESTION)


def head_runs(size: Scale, seeds: Sequence[int]) -> Runs:
    """Every arm for every seed."""
    whole = size.donor(RULE)

    def ranked(seed: int) -> Donor:
        run = whole(seed)
        assert isinstance(run, RunConfig)
        return RankedHeads(run, TARGETS)

    runs: Runs = []
    for seed in seeds:
        n_heads = size.shape.model_for(size.tasks[TASK]).n_heads
        runs += size.task_runs(TASK, arms(seed, n_heads), {RULE: whole, RANKED: ranked}, [seed])
    return runs


def claims(size: Scale) -> list[Claim]:
    """The two heads carry most of what the attention carries, and by their QK circuits."""
    smallest, stair = size.smallest[TASK], size.stairs[TASK]

    def arm(name: str) -> str:
        return f"{TASK}: {name}"

    most = Contrast(
        "more than half of the gain of the whole attention",
        {arm("both heads"): 1.0, arm("attention"): -0.5, arm("random"): -0.5},
        smallest / 2,
        stair=stair,
    )
    return [
        Claim(
            "10",
            "The head that attends most to the symbol before and the one that attends most to the symbol to be written "
            "next carry more than half of the gain of the attention of set, and more than other heads do.",
            (most, against(arm("both heads"), arm("other heads"), smallest, stair=stair)),
        ),
        Claim(
            "10, circuits",
            "Of these two heads the QK circuits carry more than the OV circuits.",
            (against(arm("both heads, QK"), arm("both heads, OV"), smallest, stair=stair),),
        ),
    ]
