"""Does a donor help that was pretrained on the same tokens in random order?

The control for everything in a rule's data that is not the rule: its vocabulary, its lengths, its separator.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechproc.procedures import Shuffled
from mechproc.statistics.claims import Claim, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Runs, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.transfer import attention_only, fresh

QUESTION = (__doc__ or "").splitlines()[0]

RULES = {"paper": {"haystack": "set", "reversed addition": "eca"}, "laptop": {"haystack": "set"}}
"""For each task the rule that is expected to help it."""


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Donors of a rule and of its shuffled data, full and attention only."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    runs: Runs = []
    families, claims = [], []
    for task, rule in RULES[scale].items():
        control = Shuffled(procedure=size.rule(rule))
        donors = {rule: size.donor(rule), f"shuffled {rule}": size.donor(control)}
        arms = {"random": fresh()}
        for name in donors:
            arms[f"{name}, full"] = size.full(name, rule)
            arms[f"{name}, attention"] = attention_only(name)
        runs += size.task_runs(task, arms, donors, chosen)
        pairs = [(f"{task}: {arm}", f"{task}: random") for arm in arms if arm != "random"]
        pairs += [(f"{task}: {rule}, {how}", f"{task}: shuffled {rule}, {how}") for how in ("full", "attention")]
        families.append(
            Family(task, tuple(pairs), n_seeds=len(SEEDS), descriptive=True, smallest_effect=size.smallest[task])
        )
        how = "attention" if task == "haystack" else "full"
        nothing = against(
            f"{task}: shuffled {rule}, {how}",
            f"{task}: random",
            size.smallest[task],
            "equivalence",
            stair=size.stairs[task],
        )
        statement = f"Shuffling the pretraining data of {rule} removes the gain on {task}."
        claims.append(Claim(f"7, {task}", statement, (nothing,)))
    return Study(f"shuffled data ({scale})", runs, families, claims, question=QUESTION)
