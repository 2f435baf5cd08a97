"""Circuits of several models beside each other: edges between heads that are named by function, by model."""

from __future__ import annotations

import itertools

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import DIVERGING, GREY, INK, blank, escaped, label_width, tick_labels
from mechproc.result import Label, Result

MOST_EDGES = 24
"""Edges that are drawn: those that the most circuits have."""
MAX_NAME = 44
"""Characters of an edge that are drawn beside the axis."""
CELL = 26
"""Width and height of a cell, in pixels."""


def circuit_functions(found: Result, *, title: str = "") -> go.Figure:
    """Edges by models, groups beside each other; the last column of a group counts the models that have the edge.

    ``found`` is what ``analyses.circuit.compare`` returns. White: the edge is not in the circuit. Errors:
    ``ConfigError`` for a Result of other axes.
    """
    found = with_axes(found, "edge", "group", "seed")
    edges = [str(edge) for edge in found.coordinates["edge"]][:MOST_EDGES]
    groups = [str(group) for group in found.coordinates["group"]]
    values = found.values[: len(edges)]
    columns: list[tuple[int, Label]] = []
    blocks, counts, ends = [], [], []
    for number in range(len(groups)):
        here = np.flatnonzero(np.isfinite(values[:, number]).any(axis=0)).tolist()
        block = values[:, number, here]
        counts.append([f"{n} of {len(here)}" for n in np.count_nonzero(block, axis=1)])
        blocks += [np.where(block == 0, np.nan, block), np.full((len(edges), 1), np.nan)]
        columns += [*((number, found.coordinates["seed"][i]) for i in here), (number, "")]
        ends.append(len(columns))
    cells = np.concatenate(blocks, axis=1)
    hover = [
        [escaped(f"{edge}: {groups[number]}, seed {label}") if label != "" else "" for number, label in columns]
        for edge in edges
    ]
    bound = float(np.nanmax(np.abs(cells), initial=0.0)) or 1.0
    figure = blank()
    figure.add_heatmap(
        z=cells, text=hover, zmin=-bound, zmax=bound, colorscale=DIVERGING, xgap=1, ygap=1,
        hovertemplate="%{text}: %{z:.3f} of what the pairs change<extra></extra>",
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "title": {"text": "fraction"}},
    )  # fmt: skip
    for number, end in enumerate(ends):
        begin = ends[number - 1] if number else 0
        figure.add_annotation(
            x=(begin + end - 2) / 2, y=-0.55, text=escaped(groups[number]), showarrow=False, yanchor="bottom",
            font={"size": 12, "color": INK},
        )  # fmt: skip
        figure.add_scatter(
            x=[end - 1] * len(edges), y=list(range(len(edges))), mode="text", text=counts[number], hoverinfo="skip",
            textfont={"size": 10, "color": GREY},
        )  # fmt: skip
        if number:
            figure.add_vline(begin - 0.5, line={"color": GREY, "width": 0.8})
    ticks = {"showgrid": False, "zeroline": False, "tickfont": {"size": 10}}
    figure.update_xaxes(
        title={"text": "seed", "standoff": 6}, tickvals=list(range(len(columns))), range=[-0.6, len(columns) - 0.4],
        ticktext=[escaped(str(label)) for _, label in columns], tickangle=0, **ticks,
    )  # fmt: skip
    figure.update_yaxes(
        range=[len(edges) - 0.5, -0.5], tickvals=list(range(len(edges))), ticktext=tick_labels(edges, MAX_NAME), **ticks
    )
    left, width = label_width(edges, MAX_NAME), max(CELL * len(columns), 20 * len(groups))
    figure.update_layout(width=max(left + width + 110, 760))
    return finish(figure, found, _sentences(found, len(edges)), plot_height=CELL * len(edges), left=left, right=100,
                  above=22, title=title)  # fmt: skip


def _sentences(found: Result, n_drawn: int) -> list[str]:
    n_edges = len(found.coordinates["edge"])
    sentences = [
        "A column is one model, so without an interval; the last of a group counts the models that have the edge. "
        "White: not in the circuit. Colours: the share of what the pairs change that the edge carries.",
    ]
    if n_drawn < n_edges:
        sentences.append(f"The {n_drawn} of {n_edges} edges that the most circuits have.")
    similar = found.metadata.get("similarity", {})
    told = [f"{a} and {b} {similar[a][b]:.2f}" if a != b else f"halves of {a} {similar[a][a]:.2f}"
            for a, b in itertools.combinations_with_replacement(similar, 2) if b in similar[a]]  # fmt: skip
    return [*sentences, *([f"How alike circuits are by function, 0 to 1: {', '.join(told)}."] if told else [])]
