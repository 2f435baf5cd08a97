"""How much of "attention alone beats full transfer" is the state of the embeddings and of the LayerNorms?

Full transfer starts with all token embeddings equal and carries the LayerNorms; attention only starts with ordinary
random embeddings and fresh LayerNorms. The full factorial separates them: which weights are moved (none, attention,
attention and MLPs) x embeddings (random, the donor's mean) x LayerNorms (fresh, the donor's), with set on the haystack.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from mechproc.statistics.claims import Claim, Contrast
from mechproc.statistics.comparisons import Family
from mechproc.studies.scales import SEEDS, Scale, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.transfer import Recipe, fresh

QUESTION = (__doc__ or "").splitlines()[0]

TASK = "haystack"
WEIGHTS = {"none": {}, "attention": {"attn": "set"}, "body": {"body": "set"}}


def arm(weights: str, embedding: str, layernorm: str) -> str:
    """The name of a cell, such as ``"body, mean embedding, donor's LayerNorms"``; ``random`` where nothing is moved."""
    if (weights, embedding, layernorm) == ("none", "random", "fresh"):
        return "random"
    norms = "donor's" if layernorm == "donor" else "fresh"
    return f"{weights}, {embedding} embedding, {norms} LayerNorms"


def arms(size: Scale) -> dict[str, Recipe]:
    """The twelve cells. The one in which everything moves is the full transfer of ``rules_by_task`` where that leaves
    the positions fresh as well: at the paper's scale, whose donors of set have fewer than the haystack."""
    cells = {}
    for (name, parts), embedding, layernorm in itertools.product(
        WEIGHTS.items(), ("random", "mean"), ("fresh", "donor")
    ):
        from_donor = embedding == "mean" or layernorm == "donor"
        recipe = Recipe(
            parts=parts,
            embedding=embedding,
            layernorm=layernorm,
            donor="set" if from_donor else None,
        )
        cells[arm(name, embedding, layernorm)] = recipe if parts or from_donor else fresh()
    if size.positions == "donor-if-whole":
        cells[arm("body", "mean", "donor")] = size.full("set", "set")
    return cells


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Weights x embeddings x LayerNorms."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    cells = arms(size)
    runs = size.task_runs(TASK, cells, {"set": size.donor("set")}, chosen)
    pairs = tuple((f"{TASK}: {name}", f"{TASK}: random") for name in cells if name != "random")
    smallest = size.smallest[TASK]
    family = Family(TASK, pairs, n_seeds=len(SEEDS), descriptive=True, smallest_effect=smallest)
    return Study(f"confounders ({scale})", runs, (family,), claims(size), question=QUESTION)


def claims(size: Scale) -> list[Claim]:
    """How much the state of embeddings and LayerNorms accounts for, and whether they act on each other."""
    smallest, stair = size.smallest[TASK], size.stairs[TASK]

    def cell(weights: str, embedding: str, layernorm: str) -> str:
        return f"{TASK}: {arm(weights, embedding, layernorm)}"

    attention, body = cell("attention", "random", "fresh"), cell("body", "random", "fresh")
    everything = cell("body", "mean", "donor")
    more_than_half = Contrast(
        "more than half of the gap between attention only and all that is moved",
        {body: 1.0, attention: -0.5, everything: -0.5},
        smallest / 2,
        stair=stair,
    )
    interaction = Contrast(
        "embeddings cost more with attention alone moved than with MLPs moved too",
        {
            attention: 1.0,
            cell("attention", "mean", "fresh"): -1.0,
            body: -1.0,
            cell("body", "mean", "fresh"): 1.0,
        },
        smallest,
        stair=stair,
    )
    return [
        Claim(
            "9",
            "More than half of the gap between attention only and full transfer is the state of the embeddings and of "
            "the LayerNorms.",
            (more_than_half,),
        ),
        Claim(
            "9, interaction",
            "Equal embeddings cost more where the attention alone is moved than where the MLPs are moved too.",
            (interaction,),
        ),
    ]
