"""The drawing of a circuit: every edge and node, their widths and what hovering says."""

from __future__ import annotations

import plotly.io as pio
import pytest

from analyses import circuit
from analyses.figures import circuit_graph
from analyses.planted.family import families
from analyses.planted.planting import plant
from mechproc.errors import ConfigError


@pytest.fixture(scope="module")
def found():
    planted = plant(families()["modsum"](n_items=32), 1)
    return circuit.run({3: planted.model}, planted.contrast("first").pairs)


def test_every_edge_and_node_is_drawn(found):
    graph, figure = circuit.circuits(found)[3], circuit_graph(found)
    hovers = [text for trace in figure.data if trace.hovertext for text in trace.hovertext]
    for edge, effect in graph.effects.items():
        assert f"{edge.sender} → {edge.receiver}: {effect:.3g} logits" in hovers
    drawn = {trace.text[0] for trace in figure.data if trace.mode == "markers+text"}
    assert drawn == {"embed", "logits", *(f"L{x}.H{h}" for x in range(2) for h in range(4)), "L0.mlp", "L1.mlp"}
    assert sum("not in the circuit" in text for text in hovers) == 12 - len(graph.nodes)
    widths = [trace.line.width for trace in figure.data if trace.mode == "lines"]
    assert len(widths) == len(graph.edges) and max(widths) == 7.0
    caption = figure.layout.meta["caption"]
    assert "other pairs the circuit alone has 1.00" in caption and "One model" in caption
    assert pio.to_json(figure)


def test_a_seed_must_be_named_where_there_are_several(found):
    assert circuit_graph(found, 3) == circuit_graph(found)
    with pytest.raises(ConfigError, match="seed = 4"):
        circuit_graph(found, 4)
