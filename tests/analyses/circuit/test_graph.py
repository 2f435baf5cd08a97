"""Circuits as graphs."""

from __future__ import annotations

from analyses.circuit.graph import Circuit, connected, node_of
from analyses.interventions.edges import Edge

EDGES = {
    Edge("embed", "L0.H1.v"): 2.0,
    Edge("L0.H1", "L1.H0.k"): 3.0,
    Edge("embed", "L1.mlp"): -1.0,
    Edge("L1.H0", "logits"): 4.0,
    Edge("L1.mlp", "logits"): 1.0,
}


def test_nodes_are_in_the_order_of_the_forward_pass():
    graph = Circuit(EDGES)
    assert graph.nodes == ["embed", "L0.H1", "L1.H0", "L1.mlp", "logits"]
    assert graph.parts == ["L0.H1", "L1.H0", "L1.mlp"] and graph.heads == ["L0.H1", "L1.H0"]
    assert graph.into("L1.H0") == {Edge("L0.H1", "L1.H0.k"): 3.0}
    assert graph.without(Edge("embed", "L1.mlp")) == [edge for edge in EDGES if edge.receiver != "L1.mlp"]
    assert node_of("L1.H0.k") == "L1.H0" and node_of("L1.mlp") == "L1.mlp" and node_of("logits") == "logits"


def test_edges_that_lead_nowhere_or_come_from_nowhere_are_left_out():
    loose = {Edge("L0.H2", "L1.H0.q"): 9.0, Edge("embed", "L0.H3.q"): 9.0, Edge("L0.H3", "L0.mlp"): 9.0}
    assert connected({**EDGES, **loose}).effects == EDGES
    assert connected(loose).edges == []
