"""Do rules leave different weights, and where: distances between rules, in units of the spread between seeds."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import DIVERGING, GREY, blank, escaped, label_width, tick_labels
from mechproc.errors import require
from mechproc.result import Result

CELL = 40
"""Height of a part's row, in pixels."""


def weight_comparison(distances: Result, compared: Result) -> go.Figure:
    """A heat map: parts by pairs of rules, with the word of each part.

    ``distances`` is what ``analyses.weights.between`` gives, ``compared`` what ``analyses.weights.compare`` gives for
    the same models and measure. A cell is the mean distance of two groups divided by the part's mean distance between
    seeds of one rule: 1 is the spread between seeds. Rows without a distance are left out. Errors: ``ConfigError``.
    """
    distances, compared = with_axes(distances, "part", "first", "second"), with_axes(compared, "part", "quantity")
    for field in ("measure",):
        ours, theirs = distances.metadata.get(field), compared.metadata.get(field)
        require(ours == theirs, f"{field} of compared", theirs, f"{ours!r}, as of the distances")
    parts = [str(part) for part in distances.coordinates["part"]]
    same = list(distances.coordinates["part"]) == list(compared.coordinates["part"])
    require(same, "parts of compared", list(compared.coordinates["part"]), f"{parts}, as of the distances")
    within = compared.select(quantity="within a rule").values
    words, groups = compared.metadata["words"], [str(group) for group in distances.coordinates["first"]]
    kept = [row for row, part in enumerate(parts) if part in words and within[row] > 0]
    pairs = [(i, j) for i in range(len(groups)) for j in range(i, len(groups))]
    pairs.sort(key=lambda pair: (pair[0] != pair[1], groups[-1] in (groups[pair[0]], groups[pair[1]])))
    columns = [groups[i] if i == j else f"{groups[i]} and {groups[j]}" for i, j in pairs]
    values = np.array([[distances.values[row, i, j] / within[row] for i, j in pairs] for row in kept])
    names = [f"{parts[row]}: {words[parts[row]]}" for row in kept]
    bound = float(np.nanmax(np.abs(np.log2(np.maximum(values, 1e-3))), initial=0.1))
    bound = min(bound, 2.0)
    figure = blank()
    figure.add_heatmap(
        z=np.log2(np.maximum(values, 1e-3)), meta={"subjects": [[parts[row]] * len(columns) for row in kept]},
        zmin=-bound, zmax=bound, colorscale=DIVERGING, xgap=1.5, ygap=1.5,
        text=[[f"{value:.2f}" for value in row] for row in values], texttemplate="%{text}", textfont={"size": 11},
        customdata=[[escaped(f"{name}, {column}") for column in columns] for name in names],
        hovertemplate="%{customdata}: %{text} times the spread between seeds<extra></extra>",
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "tickvals": [-bound, 0, bound],
                  "ticktext": [f"{2**-bound:.2g}", "1", f"{2**bound:.2g}"]},
    )  # fmt: skip
    figure.add_vline(len(groups) - 0.5, line={"color": GREY, "width": 1.5})  # type: ignore[arg-type]
    figure.update_xaxes(
        tickvals=list(range(len(columns))), ticktext=tick_labels(columns, 24), tickangle=-45, showgrid=False,
        zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=tick_labels(names, 40), range=[len(names) - 0.5, -0.5],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    counts = ", ".join(f"{compared.metadata['n_models'][rule]} of {rule}" for rule in compared.metadata["rules"])
    sentences = [
        f"Models: {counts}.",
        "Each cell is a mean distance divided by the part's mean distance between seeds of one rule. Left of the line: "
        "models of one rule (or untrained ones) among each other.",
        "Words: permutation test whose unit is the model, after Holm over the parts; there is no interval, as the "
        "cells are not independent.",
    ]
    left, below = label_width(names, 40), 24 + round(5.0 * max(len(column) for column in columns))
    width = max(760, left + 46 * len(columns) + 90)
    figure.update_layout(width=width)
    return finish(
        figure, compared, sentences, plot_height=CELL * len(names), left=left, right=90, below=below,
        characters=round((width - 30) / 6),
    )  # fmt: skip
