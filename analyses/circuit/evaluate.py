"""How good a circuit is: faithful, complete, minimal, each against the model with everything else resampled.

F is the mean logit difference on the clean items. F(C) keeps the edges C and lets every other edge carry what its
sender writes in the corrupt run; M is the whole model, and with no edge kept F is that of the corrupt run. All scores
are shares of F(M) - F(none).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from analyses.circuit.graph import Circuit, node_of
from analyses.interventions.edges import Edge, EdgePatcher, edges
from analyses.interventions.items import Pairs, cut
from analyses.interventions.metrics import METRICS, scored_tokens
from analyses.interventions.subgraph import check_subgraphs, run_subgraphs
from analyses.interventions.trace import Weights, trace
from analyses.models import batches
from mechproc.model.hooked import HookedTransformer

MEASURES = (
    "faithfulness",
    "faithfulness of random edges",
    "left without the circuit",
    "incompleteness",
    "minimality",
    "edges",
)
N_RANDOM = 16
"""Random sets of edges: as controls of faithfulness, and as parts of a circuit that are taken away for completeness."""
MATTERS = 0.01
"""An edge is not superfluous when taking it away changes F by this share of F(M) - F(none)."""


def evaluate(model: HookedTransformer, circuit: Circuit, pairs: Pairs, seed: int = 0) -> dict[str, float]:
    """The measures of one circuit, by name; NaN where they mean nothing (an empty circuit, a model without effect).

    - ``faithfulness``: (F(C) - F(none)) / (F(M) - F(none)); 1 where the circuit alone does what the model does (the
      normalised form of Hanna et al. 2024; Wang et al. 2022 take the difference);
    - ``faithfulness of random edges``: the same of as many random edges, the mean over ``N_RANDOM`` draws;
    - ``left without the circuit``: (F(M - C) - F(none)) / (F(M) - F(none)); 0 where nothing outside does the work too;
    - ``incompleteness``: the largest ``|F(C-K) - F(M-K)|`` (Wang et al. 2022) over parts K of the circuit: all edges
      of one node, ``N_RANDOM`` random halves, and the whole circuit; 0 where what the circuit lacks never shows;
    - ``minimality``: the share of edges e with ``|F(C-K) - F(C-K-e)|`` of at least ``MATTERS``, where K is nothing,
      or the other edges into the same receiver, which may do the same work (Wang et al. 2022);
    - ``edges``: how many there are.
    """
    every = _carrying(model, pairs)
    rng = np.random.default_rng(seed)
    kept = circuit.edges
    halves = [_some(kept, len(kept) // 2, rng) for _ in range(N_RANDOM)] if len(kept) > 1 else []
    nodes = [[e for e in kept if node in (e.sender, node_of(e.receiver))] for node in circuit.nodes]
    removed = [kept, *nodes, *halves]
    siblings = [[other for other in kept if other.receiver == edge.receiver and other != edge] for edge in kept]
    sets = [
        every,
        [],
        kept,
        *[_some(every, min(len(kept), len(every)), rng) for _ in range(N_RANDOM)],
        *[part for gone in removed for part in (_less(kept, gone), _less(every, gone))],
        *[part for e, k in zip(kept, siblings, strict=True)
          for part in (_less(kept, [e]), _less(kept, k), _less(kept, [*k, e]))],
    ]  # fmt: skip
    scores = _scores(model, pairs, sets)
    whole, none = scores[:2]
    if whole == none or not kept:
        return dict.fromkeys(MEASURES, float("nan")) | {"edges": float(len(kept))}
    shares = (scores - none) / (whole - none)
    alone, random, rest = shares[2], shares[3 : 3 + N_RANDOM], shares[3 + N_RANDOM :]
    without = rest[: 2 * len(removed)].reshape(-1, 2)
    by_edge = rest[2 * len(removed) :].reshape(-1, 3)
    needed = np.maximum(np.abs(alone - by_edge[:, 0]), np.abs(by_edge[:, 1] - by_edge[:, 2])) >= MATTERS
    return {
        "faithfulness": float(alone),
        "faithfulness of random edges": float(random.mean()),
        "left without the circuit": float(without[0, 1]),
        "incompleteness": float(np.abs(without[:, 0] - without[:, 1]).max()),
        "minimality": float(needed.mean()),
        "edges": float(len(kept)),
    }


def _carrying(model: HookedTransformer, pairs: Pairs) -> list[Edge]:
    """The edges that can carry a difference: positions and biases write the same in both runs."""
    return [edge for edge in edges(model.cfg) if edge.sender != "pos" and not edge.sender.endswith("b_O")]


@torch.inference_mode()
def _scores(model: HookedTransformer, pairs: Pairs, sets: Sequence[Sequence[Edge]]) -> np.ndarray:
    """F of each set of edges, float64 [set]: the mean over pairs of the mean over their scored tokens."""
    weights = Weights.of(HookedTransformer(model.cfg, model.state(), device=model.cfg.device, dtype=torch.float64))
    found = np.zeros((len(sets), len(pairs)))
    for batch in batches(len(pairs)):
        clean, corrupt = (cut(block.take(batch)) for block in (pairs.clean, pairs.corrupt))
        paths = EdgePatcher(trace(weights, clean), trace(weights, corrupt))
        if batch.start == 0:
            check_subgraphs(paths)
        tokens = scored_tokens(clean, weights.state["embed.W_E"].device, corrupt)
        counts = torch.bincount(tokens.item, minlength=len(clean))
        for indices, logits in run_subgraphs(paths, sets):
            for index, one in zip(indices, logits, strict=True):
                scores = METRICS["logit_diff"](one[paths.clean.real].double(), tokens)
                by_pair = torch.bincount(tokens.item, scores, minlength=len(clean)) / counts
                found[index, batch] = by_pair.cpu().numpy()
    return found.mean(1)


def _less(edges: Sequence[Edge], gone: Sequence[Edge]) -> list[Edge]:
    left_out = set(gone)
    return [edge for edge in edges if edge not in left_out]


def _some(edges: Sequence[Edge], n: int, rng: np.random.Generator) -> list[Edge]:
    return [edges[i] for i in rng.permutation(len(edges))[:n]]
