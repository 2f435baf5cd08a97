"""Circuits across seeds and rules, by function: which edges they have in common, whatever the index of a head.

The circuit of each model is found (``analyses.circuit.run``), its heads are named by what they attend to
(``analyses.circuit.functions``), and edges of one name are laid beside each other. How alike two rules are is held
against how alike two halves of the seeds of one rule are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyses.circuit.find import run
from analyses.circuit.functions import NAMED, alike, head_functions, looks, shares_of
from analyses.models import Models, sized_threads
from mechproc.errors import ConfigError, require
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result, Where

N_PAIRS = 32
"""Pairs that a circuit is found on, and as many that it is judged on."""
N_HALVES = 50
"""Random halves of the seeds that similarities are means over."""
MOST_TOLD = 3
"""Edges of each group that a sentence names."""


@sized_threads
def compare(
    models: Mapping[str, Models],
    rules: Mapping[str, Procedure],
    pairs: Sequence[str],
    *,
    threshold: float | None = None,
    seed: int = 0,
    n_items: int = N_PAIRS,
) -> Result:
    """Which edges circuits of seeds and rules share, heads named by function: axes ``edge``, ``group`` and ``seed``.

    The value is the share of what the pairs change (the clean run's score less the corrupt run's) that the strongest of
    the edges with this name carries, and 0 where a circuit has none. A head is named by what it attends to, as
    ``head_functions`` says; its index means nothing across models.

    - ``models``: by group, such as ``{"set": ..., "identity": ...}``, and for each by seed;
    - ``rules``: by group, the rule that its circuits are found on;
    - ``pairs``: the kind of minimal pair of each group, in their order; one kind stands for all of them;
    - ``threshold``: the smallest size of an edge (logits), by default from the controls, for each model;
    - ``seed``: of the pairs;
    - ``n_items``: how many pairs a circuit is found on.

    ``metadata`` has by group ``seeds``, in how many circuits each edge is, ``evaluation``, that of
    ``analyses.circuit.run``, and ``functions``, the name of each head by seed; and ``similarity``, by two groups: the
    weighted Jaccard index of the mean sizes of their edges, between half of the seeds of each, the mean over
    ``N_HALVES`` draws. That of a group with itself is what equal rules reach. Errors: ``ConfigError`` for a group
    without a rule, for kinds of pairs that a rule lacks, and where no circuit has an edge.
    """
    require(isinstance(models, Mapping) and len(models) > 0, "models", models, "groups of models, by name")
    for group in models:
        require(group in rules, f"procedure of {group}", None, "the rule that these models are run on")
    kinds = _kinds(pairs, list(models))
    found = {
        group: run(of_group, rules[group], kinds[group], threshold=threshold, seed=seed, n_items=n_items)
        for group, of_group in models.items()
    }
    names = {group: head_functions(looks(of_group, rules[group])) for group, of_group in models.items()}
    shares = {group: shares_of(found[group], names[group]) for group in models}
    seeds = {group: list(each.coordinates["seed"]) for group, each in found.items()}
    counts = {group: {edge: int(np.count_nonzero(row)) for edge, row in of.items()} for group, of in shares.items()}
    edges = _ordered(shares, counts)
    require(bool(edges), "circuits", "no edge in any model", "a circuit, at least, with an edge: another kind of pair, "
            "or models that do their rule")  # fmt: skip
    every = list(dict.fromkeys(label for of_group in seeds.values() for label in of_group))
    values = np.full((len(edges), len(models), len(every)), np.nan)
    for column, group in enumerate(models):
        at = [every.index(label) for label in seeds[group]]
        for row, edge in enumerate(edges):
            values[row, column, at] = shares[group].get(edge, np.zeros(len(at)))
    similar = _similarity(shares, seeds)
    undefined: list[tuple[Where, str]] = [
        ({"group": group, "seed": label}, "the group has no such model")
        for group in models for label in every if label not in seeds[group]
    ]  # fmt: skip
    return Result(
        name="circuits by function",
        values=values,
        axes=("edge", "group", "seed"),
        coordinates={"edge": edges, "group": list(models), "seed": every},
        unit="fraction",
        direction="positive: the edge carries the answer; 0: no edge of this name in the circuit",
        what_it_does_not_show="that heads of one name do the same: they attend to the same target, and may read and "
        "write something else there. Shares of edges do not add up to 1; nor is an edge that one circuit lacks without "
        "effect there: it is below the threshold of that model.",
        undefined=undefined,
        metadata={
            "pairs": kinds,
            "seed": seed,
            "n_items": n_items,
            "named": NAMED,
            "zero": "not in the circuit",
            "warnings": [f"{group}: {sentence}" for group, each in found.items() for sentence in each.warnings],
            "sentences": _sentences(found, counts, kinds, similar),
            "seeds": counts,
            "similarity": similar,
            "evaluation": {group: each.metadata["evaluation"] for group, each in found.items()},
            "functions": {
                group: {str(label): of_seed for label, of_seed in each.items()} for group, each in names.items()
            },
        },
    )


# ---- inside ----------------------------------------------------------------------------------------------------------


def _kinds(pairs: Any, groups: list[str]) -> dict[str, str]:
    """The kind of pair of each group."""
    kinds = [pairs] if isinstance(pairs, str) else list(pairs)
    if len(kinds) not in (1, len(groups)):
        raise ConfigError(f"pairs = {kinds} is not allowed: one kind, or one for each of {', '.join(groups)}")
    return dict(zip(groups, kinds * len(groups) if len(kinds) == 1 else kinds, strict=False))


def _ordered(shares: Mapping[str, Mapping[str, np.ndarray]], counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """All edges: those that the most circuits have, and the strongest of these, first."""
    edges = dict.fromkeys(edge for of_group in shares.values() for edge in of_group)
    n = {edge: sum(of_group.get(edge, 0) for of_group in counts.values()) for edge in edges}
    size = {edge: max(float(np.abs(of[edge]).max()) for of in shares.values() if edge in of) for edge in edges}
    return sorted(edges, key=lambda edge: (-n[edge], -size[edge]))


def _similarity(
    shares: Mapping[str, Mapping[str, np.ndarray]], seeds: Mapping[str, list[Label]]
) -> dict[str, dict[str, float]]:
    """How alike half of the seeds of a group and other seeds of a group are, where there are such seeds."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {group: {} for group in shares}
    for first, second in itertools.combinations_with_replacement(shares, 2):
        drawn = [_halves(seeds[first], seeds[second], rng) for _ in range(N_HALVES)]
        each = [
            alike(_sizes(shares[first], seeds[first], ours), _sizes(shares[second], seeds[second], theirs))
            for ours, theirs in drawn if theirs
        ]  # fmt: skip
        if each:
            found[first][second] = found[second][first] = float(np.mean(each))
    return found


def _halves(ours: list[Label], theirs: list[Label], rng: np.random.Generator) -> tuple[list[Label], list[Label]]:
    """Half of our seeds, and half of their seeds that are no seeds of that half: equal seeds may share a start."""
    half = [ours[i] for i in rng.permutation(len(ours))[: max(1, len(ours) // 2)]]
    others = [label for label in theirs if label not in half]
    return half, [others[i] for i in rng.permutation(len(others))[: max(1, len(theirs) // 2)]]


def _sizes(shares: Mapping[str, np.ndarray], seeds: list[Label], chosen: list[Label]) -> dict[str, float]:
    at = [seeds.index(label) for label in chosen]
    return {edge: float(np.abs(row[at]).mean()) for edge, row in shares.items()}


def _sentences(
    found: Mapping[str, Result],
    counts: Mapping[str, Mapping[str, int]],
    kinds: Mapping[str, str],
    similar: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """How good the circuits of each group are, which edges most of them have, and how alike the groups are."""
    said = []
    for group, each in found.items():
        n = len(each.coordinates["seed"])
        most = sorted(counts[group], key=lambda edge: -counts[group][edge])[:MOST_TOLD]
        having = "; ".join(f"{edge} in {counts[group][edge]} of {n}" for edge in most)
        said.append(f"{group} ({kinds[group]}): {' '.join(each.metadata['sentences'])}")
        said.append(f"{group} ({kinds[group]}), edges that the most circuits have: {having or 'none'}.")
    groups = list(found)
    own = ", ".join(f"{g} {similar[g][g]:.2f}" for g in groups if g in similar[g])
    pairs = [(a, b) for a, b in itertools.combinations(groups, 2) if b in similar[a]]
    alike_are = ", ".join(f"{a} and {b} {similar[a][b]:.2f}" for a, b in pairs)
    texts = [f"halves of the seeds of one group: {own}" if own else "", f"two groups: {alike_are}" if pairs else ""]
    if own or pairs:
        said.append(
            f"How alike circuits are by function (weighted Jaccard index, 0 to 1): {'; '.join(filter(None, texts))}."
        )
    return said
