"""Is it the arrangement of the moved weights that helps, or only their scale?

The attention of set is moved to the haystack and to addition, its numbers permuted within each head, replaced by noise
of the same norm, given other directions for the same singular values, or overlaid with Gaussian noise of four levels.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechproc.statistics.claims import Claim, Contrast
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Runs, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.transfer import Noise, NormMatchedNoise, Recipe, Spectrum, attention_only, fresh, permuted

QUESTION = (__doc__ or "").splitlines()[0]

TASKS = {"paper": ("haystack", "addition"), "laptop": ("haystack",)}
SIGMAS = (0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the noise, in the unit of the weights; fresh weights have 0.02."""
MOVED = attention_only("set")
ARMS: dict[str, Recipe] = {
    "random": fresh(),
    "attention": MOVED,
    "permuted": permuted(MOVED),
    "norm-matched noise": MOVED.replace(perturb={"attn": NormMatchedNoise()}),
    "spectrum kept": MOVED.replace(perturb={"attn": Spectrum()}),
    **{f"noise {sigma}": MOVED.replace(perturb={"attn": Noise(sigma)}) for sigma in SIGMAS},
}


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """The attention of set, intact and perturbed."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    runs: Runs = []
    families, claims = [], []
    for task in TASKS[scale]:
        runs += size.task_runs(task, ARMS, {"set": size.donor("set")}, chosen)
        pairs = tuple((f"{task}: {arm}", f"{task}: random") for arm in ARMS if arm != "random")
        families.append(Family(task, pairs, n_seeds=len(SEEDS), descriptive=True, smallest_effect=size.smallest[task]))
        lost = Contrast(
            "more than half of the gain is lost",
            {f"{task}: attention": 0.5, f"{task}: permuted": -1.0, f"{task}: random": 0.5},
            size.smallest[task] / 2,
            stair=size.stairs[task],
        )
        statement = f"Permuting the numbers within each head removes most of the gain on {task}."
        claims.append(Claim(f"6, {task}", statement, (lost,)))
    return Study(f"perturbation ({scale})", runs, families, claims, question=QUESTION)
