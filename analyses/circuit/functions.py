"""Circuits of several models beside each other, with heads named by what they attend to.

A head's index means nothing across seeds. Here a head is named by the attention target that says most about where it
looks, such as ``"L0 previous"``; one without a target that has half of its attention, beyond what a uniform pattern
puts there, is ``"L1 other"``. Edges between heads of one function are one edge.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analyses import attention
from analyses.circuit.find import circuits
from analyses.circuit.graph import node_of
from analyses.models import Models
from mechproc.errors import require
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result

N_LOOKED = 256
"""Items on which the attention of the heads is measured."""
NAMED = 0.5
"""The share of a head's attention, beyond uniform, that gives it the name of a target."""
OTHER = "other"


def looks(models: Models, procedure: Procedure, n_items: int = N_LOOKED) -> Result:
    """Attention on the targets of the rule; and, where it has a source, on the token after the source."""
    items = procedure.items(n_items)
    masks = procedure.attention_targets(items)
    if "source" in masks:
        masks["after source"] = np.tril(np.roll(masks["source"], 1, axis=2))
    return attention.scores(models, items, masks)


def head_functions(scores: Result) -> dict[Label, dict[str, str]]:
    """The name of each head by seed: ``{0: {"L0.H1": "L0 previous", ...}}``.

    ``scores`` is what ``analyses.attention.scores`` returns for the procedure's attention targets. Those targets count
    whose excess (share - uniform) / (1 - uniform) is ``NAMED`` or more; of these the one with the largest
    share * log(share / uniform) names the head, so that "the value asked for" goes before "any value".
    """
    axes = ("mask", "layer", "head", "seed")
    require(tuple(scores.axes) == axes, f"axes of {scores.name!r}", tuple(scores.axes), f"{axes}")
    targets = [str(mask) for mask in scores.coordinates["mask"]]
    uniform = np.array([scores.metadata["uniform"].get(target, np.nan) for target in targets])[:, None, None, None]
    shares = np.nan_to_num(scores.values)
    enough = np.asarray(np.nan_to_num((shares - uniform) / (1 - uniform)) >= NAMED)
    told = np.where(enough, shares * np.log(np.maximum(shares, 1e-12) / uniform), -np.inf)
    best, named = told.argmax(0), np.asarray(enough.any(axis=0))
    return {
        seed: {
            f"L{layer}.H{head}": f"L{layer} {targets[best[x, h, s]] if named[x, h, s] else OTHER}"
            for x, layer in enumerate(scores.coordinates["layer"])
            for h, head in enumerate(scores.coordinates["head"])
        }
        for s, seed in enumerate(scores.coordinates["seed"])
    }


def by_function(found: Result, scores: Result) -> Result:
    """The circuits with heads named by function: axes ``edge`` and ``seed``.

    The value is the share of what the pairs change (the clean run's score less the corrupt run's) that the strongest
    of the edges with this name carries, and 0 where a circuit has none. ``metadata["seeds"]`` counts the circuits that
    have the edge: an edge "in 7 of 10 seeds". Errors: ``ConfigError`` for ``scores`` of other seeds.
    """
    functions = head_functions(scores)
    seeds = list(found.coordinates["seed"])
    shares = shares_of(found, functions)
    require(bool(shares), "found", found.name, "a circuit, at least, with an edge")
    rows = sorted(shares, key=lambda name: (-np.count_nonzero(shares[name]), -np.abs(shares[name]).max()))
    return Result(
        name="edges of circuits by function",
        values=np.array([shares[name] for name in rows]),
        axes=("edge", "seed"),
        coordinates={"edge": rows, "seed": seeds},
        unit="fraction",
        direction="positive: the edge carries the answer; 0: no edge of this name in the circuit",
        what_it_does_not_show="that heads of one name do the same: they attend to the same target, and may read and "
        "write something else there. Shares of edges do not add up to 1",
        metadata={
            "seeds": {name: int(np.count_nonzero(shares[name])) for name in rows},
            "named": NAMED,
            "functions": {str(seed): functions[seed] for seed in seeds},
            "warnings": found.warnings,
        },
    )


def shares_of(found: Result, functions: Mapping[Label, Mapping[str, str]]) -> dict[str, np.ndarray]:
    """The share of the change that each edge carries, by its name and, float64 [seed], in each circuit.

    Errors: ``ConfigError`` for a seed whose heads have no names.
    """
    graphs, seeds = circuits(found), list(found.coordinates["seed"])
    require(set(seeds) <= set(functions), "seeds of scores", list(functions), f"those of the circuits, {seeds}")
    shares: dict[str, np.ndarray] = {}
    for column, seed in enumerate(seeds):
        change = found.metadata["clean"][str(seed)] - found.metadata["corrupt"][str(seed)]
        for edge, effect in graphs[seed].effects.items():
            names, node = functions[seed], node_of(edge.receiver)
            read = "" if node == edge.receiver else f", {edge.receiver[-1]}"
            name = f"{names.get(edge.sender, edge.sender)} → {names.get(node, node)}{read}"
            row = shares.setdefault(name, np.zeros(len(seeds)))
            share = effect / change
            row[column] = share if abs(share) > abs(row[column]) else row[column]
    return shares


def similarity(first: Result, second: Result) -> float:
    """How alike two sets of circuits are, 0 to 1: the weighted Jaccard index of their mean edges by function.

    The sum over edges of the smaller of the two mean sizes, over the sum of the larger (Ruzicka). Hold it against the
    similarity of two halves of the seeds of one rule: that is what equal rules reach.
    """
    profiles = []
    for each in (first, second):
        require(each.name == "edges of circuits by function", "profile", each.name, "what by_function returns")
        sizes = np.abs(each.values).mean(1)
        profiles.append(dict(zip([str(edge) for edge in each.coordinates["edge"]], sizes.tolist(), strict=True)))
    return alike(*profiles)


def alike(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """The weighted Jaccard index of sizes by name; 0 where there is nothing at all."""
    pairs = np.array([[sizes.get(name, 0.0) for sizes in (first, second)] for name in {*first, *second}])
    return float(pairs.min(1).sum() / pairs.max(1).sum()) if pairs.any() else 0.0
