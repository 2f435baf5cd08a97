"""A circuit as a graph: the model from the embeddings at the bottom to the logits at the top."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from analyses.circuit import Circuit, circuits
from analyses.circuit.graph import node_of, place
from analyses.figures.caption import finish
from analyses.figures.style import COLOURS, GREY, INK, blank, escaped
from analyses.interventions.edges import Edge
from mechproc.errors import require
from mechproc.result import Label, Result

READS = {"q": (COLOURS[0], "queries"), "k": (COLOURS[1], "keys"), "v": (COLOURS[2], "values")}
WHOLE = (GREY, "MLP or logits")
ENTRY = {"q": -0.08, "k": 0.0, "v": 0.08}
"""Where an edge enters a head, in units of the distance between heads."""
THIN, THICK = 1.2, 7.0
"""Pixels of the weakest and the strongest edge."""


def circuit_graph(found: Result, seed: Label | None = None, *, title: str = "") -> go.Figure:
    """The circuit of one model: nodes by layer, edges as wide as they are strong.

    ``found`` is what ``analyses.circuit.run`` returned; ``seed`` names the model where there are several. Hovering over
    an edge's dot gives its effect. Errors: ``ConfigError``.
    """
    seeds = list(found.coordinates["seed"])
    seed = seeds[0] if seed is None and len(seeds) == 1 else seed
    require(seed is not None and seed in seeds, "seed", seed, f"one of {seeds}")
    assert seed is not None
    graph = circuits(found)[seed]
    places = _places(found, graph)
    figure = blank()
    strongest = max((abs(effect) for effect in graph.effects.values()), default=1.0)
    named: set[str] = set()
    for edge, effect in sorted(graph.effects.items(), key=lambda item: abs(item[1])):
        kind = edge.receiver[-1] if edge.receiver.endswith((".q", ".k", ".v")) else ""
        colour, what = READS.get(kind, WHOLE)
        width = THIN + (THICK - THIN) * abs(effect) / strongest
        x, y = _curve(places, edge, kind)
        figure.add_scatter(
            x=x, y=y, mode="lines", hoverinfo="skip", name=f"into {what}", legendgroup=what, opacity=0.75,
            line={"color": colour, "width": width, "dash": "solid" if effect > 0 else "dot"},
            showlegend=what not in named,
        )  # fmt: skip
        named.add(what)
        text = escaped(f"{edge.sender} → {edge.receiver}: {effect:.3g} logits")
        figure.add_scatter(
            x=[x[len(x) // 2]], y=[y[len(y) // 2]], mode="markers", hovertext=[text], hoverinfo="text",
            marker={"size": 7, "color": colour, "line": {"width": 1, "color": "white"}}, showlegend=False,
        )  # fmt: skip
    for node, (x, y) in places.items():
        inside = node in graph.nodes
        strength = sum(abs(effect) for effect in graph.into(node).values())
        hover = f"{node}: {strength:.3g} logits through its edges" if inside else f"{node}: not in the circuit"
        figure.add_scatter(
            x=[x], y=[y], mode="markers+text", text=[escaped(node)], hovertext=[escaped(hover)], hoverinfo="text",
            textfont={"size": 11.5, "color": INK if inside else GREY}, showlegend=False, meta={"subject": node},
            marker={"symbol": "square" if ".mlp" in node else "circle", "size": 44 if inside else 30,
                    "color": "#f3f2ee" if inside else "white",
                    "line": {"color": INK if inside else "#d5d3cc", "width": 1.4}},
        )  # fmt: skip
    tall = len({y for _, y in places.values()})
    figure.update_xaxes(visible=False, range=[-0.8, max(x for x, _ in places.values()) + 0.8])
    figure.update_yaxes(visible=False, range=[-0.5, max(y for _, y in places.values()) + 0.5])
    figure.update_layout(showlegend=bool(named), hovermode="closest")
    name = title or f"{found.title}, seed {seed}"
    return finish(figure, found, _sentences(found, graph, seed), plot_height=105 * tall, left=30, above=26, below=20,
                  title=name)  # fmt: skip


def _places(found: Result, graph: Circuit) -> dict[str, tuple[float, float]]:
    """x and y of every head and MLP of the model, and of what else the circuit has."""
    senders = [str(each) for each in found.coordinates["sender"]]
    nodes = [node for node in senders if not node.endswith("b_O") or node in graph.nodes]
    nodes = [node for node in [*nodes, "logits"] if node != "pos" or node in graph.nodes]
    rows = sorted({place(node)[:2] for node in nodes})
    widest = max(sum(place(node)[:2] == row for node in nodes) for row in rows)
    places = {}
    for y, row in enumerate(rows):
        of_row = [node for node in nodes if place(node)[:2] == row]
        for i, node in enumerate(of_row):
            places[node] = ((widest - len(of_row)) / 2 + i, float(y))
    return places


def _curve(places: dict[str, tuple[float, float]], edge: Edge, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of a curve from a sender's top to a receiver's bottom; it bows outwards where it passes other rows."""
    (x0, y0), (x1, y1) = places[edge.sender], places[node_of(edge.receiver)]
    x1, y0, y1 = x1 + ENTRY.get(kind, 0.0), y0 + 0.2, y1 - 0.2
    middle = max(x for x, _ in places.values()) / 2
    outwards = 1.0 if (x0 + x1) / 2 >= middle else -1.0
    passed = max(0.0, round(y1 - y0 - 0.6))
    bow = outwards * (0.35 if passed == 1 else 0.55 * passed)  # past one row it goes between two heads
    t = np.linspace(0, 1, 25)
    xs = (1 - t) ** 3 * x0 + 3 * (1 - t) ** 2 * t * (x0 + bow) + 3 * (1 - t) * t**2 * (x1 + bow) + t**3 * x1
    third = (y1 - y0) / 3
    ys = (1 - t) ** 3 * y0 + 3 * (1 - t) ** 2 * t * (y0 + third) + 3 * (1 - t) * t**2 * (y1 - third) + t**3 * y1
    return xs, ys


def _sentences(found: Result, graph: Circuit, seed: Label) -> list[str]:
    facts: dict[str, Any] = dict(found.metadata)
    label = str(seed)
    sentences = [
        f"One model, {facts['n_pairs']} pairs; {len(graph.edges)} edges of at least {facts['threshold'][label]:.3g} "
        f"logits, of {facts['clean'][label] - facts['corrupt'][label]:.3g} that the pairs change. Widths are effects; "
        "a dotted edge works against the answer; grey nodes are not in the circuit."
    ]
    evaluation = {name: by_seed[label] for name, by_seed in facts["evaluation"].items() if label in by_seed}
    if "faithfulness" in evaluation:
        sentences.append(
            f"On {facts['n_pairs_evaluated']} other pairs the circuit alone has {evaluation['faithfulness']:.2f} of "
            f"that change ({evaluation['faithfulness of random edges']:.2f} of as many random edges), the rest without "
            f"it {evaluation['left without the circuit']:.2f}; incompleteness {evaluation['incompleteness']:.2f}; "
            f"{100 * evaluation['minimality']:.0f} % of its edges matter."
        )
    return sentences
