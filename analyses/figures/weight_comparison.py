"""Do rules leave different weights, and where: distances between rules, in units of the spread between seeds."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import COLOURS, DIVERGING, GREY, blank, escaped, label_width, tick_labels
from mechproc.errors import require
from mechproc.result import Result

CELL = 40
"""Height of a part's row, in pixels."""
UNTRAINED = "untrained"
MARKS = {"between rules": "circle", "same start": "square", "untrained": "diamond"}
"""Which mean distances are drawn of each part, and how."""


def weight_comparison(distances: Result, compared: Result | None = None) -> go.Figure:
    """A heat map: parts by pairs of rules, with the word of each part.

    ``distances`` is what ``analyses.weights.between`` gives, ``compared`` what ``analyses.weights.compare`` gives for
    the same models and measure; without it there are no words. A cell is the mean distance of two groups divided by the
    part's mean distance between seeds of one rule: 1 is the spread between seeds. Rows without a distance are left out.
    Errors: ``ConfigError``.
    """
    distances = with_axes(distances, "part", "first", "second")
    parts = [str(part) for part in distances.coordinates["part"]]
    groups = [str(group) for group in distances.coordinates["first"]]
    words: dict[str, str] = dict.fromkeys(parts, "")
    within = np.array([np.diag(of_part)[:-1].mean() for of_part in distances.values])  # the last group is untrained
    if compared is not None:
        compared = with_axes(compared, "part", "quantity")
        ours, theirs = distances.metadata.get("measure"), compared.metadata.get("measure")
        require(ours == theirs, "measure of compared", theirs, f"{ours!r}, as of the distances")
        same = list(distances.coordinates["part"]) == list(compared.coordinates["part"])
        require(same, "parts of compared", list(compared.coordinates["part"]), f"{parts}, as of the distances")
        within, words = compared.select(quantity="within a rule").values, compared.metadata["words"]
    kept = [row for row, part in enumerate(parts) if part in words and within[row] > 0]
    require(bool(kept), "distances", "none that is above 0", "a part in which models of one rule differ")
    pairs = [(i, j) for i in range(len(groups)) for j in range(i, len(groups))]
    pairs.sort(key=lambda pair: (pair[0] != pair[1], groups[-1] in (groups[pair[0]], groups[pair[1]])))
    columns = [groups[i] if i == j else f"{groups[i]} and {groups[j]}" for i, j in pairs]
    values = np.array([[distances.values[row, i, j] / within[row] for i, j in pairs] for row in kept])
    names = [f"{parts[row]}: {words[parts[row]]}".removesuffix(": ") for row in kept]
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
    sentences = [
        f"Models: {_counts(distances if compared is None else compared)}.",
        "Each cell is a mean distance divided by the part's mean distance between seeds of one rule. Left of the line: "
        "models of one rule (or untrained ones) among each other.",
        "There is no interval, as the cells are not independent.",
    ]
    if compared is not None:
        sentences.append("Words: permutation test whose unit is the model, after Holm over the parts.")
    left, below = label_width(names, 40), 24 + round(5.0 * max(len(column) for column in columns))
    width = max(760, left + 46 * len(columns) + 90)
    figure.update_layout(width=width)
    return finish(
        figure, distances if compared is None else compared, sentences, plot_height=CELL * len(names), left=left,
        right=90, below=below, characters=round((width - 30) / 6),
    )  # fmt: skip


def weight_words(compared: Result) -> go.Figure:
    """Where rules differ: for each part the mean distances between and within rules, with its word and p.

    ``compared`` is what ``analyses.weights.compare`` gives. Distances are divided by that between seeds of one rule, so
    that 1, the line, is the spread between seeds. Rows without a distance are left out. Errors: ``ConfigError``.
    """
    compared = with_axes(compared, "part", "quantity")
    words, table = compared.metadata["words"], compared.select(quantity=["within a rule", *MARKS])
    rows = [(str(part), of_part) for part, of_part in zip(table.coordinates["part"], table.values, strict=True)
            if str(part) in words and of_part[0] > 0]  # fmt: skip
    require(bool(rows), "compared", compared.name, "a part in which models of one rule differ")
    p = compared.select(quantity="adjusted p")
    names = [f"{part}: {words[part]}, p = {float(p.select(part=part).values):.2g}" for part, _ in rows]
    figure = blank()
    for number, (quantity, symbol) in enumerate(MARKS.items()):
        shares = np.array([of_part[number + 1] / of_part[0] for _, of_part in rows])
        figure.add_scatter(
            x=shares, y=list(range(len(rows))), mode="markers", name=quantity,
            marker={"symbol": symbol, "size": 10, "color": COLOURS[number]},
            text=[escaped(f"{part}, {quantity}") for part, _ in rows],
            hovertemplate="%{text}: %{x:.3g} times the spread between seeds<extra></extra>",
        )  # fmt: skip
    figure.add_vline(1, line={"color": GREY, "width": 1.5})  # type: ignore[arg-type]
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title="mean distance / mean distance between seeds of one rule")
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=tick_labels(names, 48), range=[len(names) - 0.45, -0.55],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    sentences = [
        f"Models: {_counts(compared)}.",
        "Words and p: permutation test whose unit is the model, after Holm over the parts. There is no interval, as "
        "the distances of one model are not independent.",
    ]
    left = label_width(names, 48)
    figure.update_layout(width=max(760, left + 420))
    return finish(figure, compared, sentences, plot_height=30 + CELL * len(names), left=left, above=24)


def _counts(result: Result) -> str:
    """How many models of each rule there are, in words."""
    n_models = result.metadata["n_models"]
    rules = result.metadata.get("rules") or result.coordinates["first"]
    return ", ".join(f"{n_models[rule]} of {rule}" for rule in rules if rule != UNTRAINED)
