"""Some edges of a model kept, the others corrupt: against the two runs, against path patching, and by hand."""

from __future__ import annotations

import pytest
import torch

from analyses.interventions import subgraph
from analyses.interventions.edges import Edge, EdgePatcher, edges
from analyses.interventions.subgraph import check_subgraphs, run_subgraphs
from analyses.interventions.trace import Weights, trace
from mechproc.errors import PartError

from .grid import GRID, model, pairs
from .replica import Replica


def patcher(kind: str) -> EdgePatcher:
    weights = Weights.of(model(kind))
    return EdgePatcher(*(trace(weights, block) for block in pairs(kind)))


def logits_of(paths: EdgePatcher, kept: list[list[Edge]]) -> list[torch.Tensor]:
    return [one for _, logits in run_subgraphs(paths, kept) for one in logits]


@pytest.mark.parametrize("kind", GRID)
def test_all_edges_are_the_clean_run_and_none_the_corrupt_one(kind):
    check_subgraphs(patcher(kind), tolerance=1e-12)


@torch.inference_mode()
def test_all_edges_but_those_into_the_logits_are_one_edge_of_path_patching():
    """With the others clean, an edge into the logits that is left out is the edge that path patching replaces."""
    paths, every = patcher("usual"), edges(model("usual").cfg)
    into_logits = [edge for edge in every if edge.receiver == "logits"]
    found = logits_of(paths, [[edge for edge in every if edge != gone] for gone in into_logits])
    for gone, one in zip(into_logits, found, strict=True):
        torch.testing.assert_close(one, paths.logits([gone.sender]), atol=1e-10, rtol=0)


@torch.inference_mode()
def test_one_edge_left_out_is_path_patching_of_that_edge():
    """Where the receiver's own output is followed by clean parts alone, both are the same for any receiver: what
    reaches the receiver is corrupt along one edge, and everything after it is computed anew."""
    ours, both = model("usual"), pairs("usual")
    paths, replica, every = patcher("usual"), Replica(ours, *both), edges(ours.cfg)
    gone = [Edge("embed", "L1.H0.v"), Edge("L0.H1", "L1.mlp"), Edge("embed", "L0.H0.k"), Edge("L0.mlp", "L1.H1.q")]
    for edge, one in zip(gone, logits_of(paths, [[e for e in every if e != g] for g in gone]), strict=True):
        rows, scored = torch.arange(len(one))[:, None], paths.clean.scored
        torch.testing.assert_close(one, replica(edge)[rows, scored], atol=1e-10, rtol=0)
        assert not torch.allclose(one, paths.clean.logits, atol=1e-6)


@torch.inference_mode()
def test_an_edge_from_a_sender_that_nothing_clean_reaches_carries_nothing():
    paths = patcher("usual")
    found = logits_of(paths, [[Edge("L0.H0", "logits"), Edge("L0.mlp", "L1.H0.v")], [Edge("embed", "L0.mlp")]])
    for one in found:
        torch.testing.assert_close(one, paths.corrupt.logits, atol=1e-12, rtol=0)


def test_the_check_notices_an_edge_that_is_lost(monkeypatch):
    original = subgraph._Subgraphs._read

    def without(self, receiver):
        self.masks[:, self.number[Edge("L0.H0", "L1.H1.v")]] = 0
        return original(self, receiver)

    monkeypatch.setattr(subgraph._Subgraphs, "_read", without)
    with pytest.raises(RuntimeError, match="with all edges kept"):
        check_subgraphs(patcher("usual"))


def test_an_edge_that_does_not_exist_is_refused():
    with pytest.raises(PartError, match=r"'L1\.H0 -> L0\.mlp'"):
        logits_of(patcher("usual"), [[Edge("L1.H0", "L0.mlp")]])
