"""What one part writes and a later one reads: writers by the inputs of readers, of one model."""

from __future__ import annotations

import itertools

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import DIVERGING, GREY, blank, escaped, label_width, tick_labels
from mechproc.errors import require
from mechproc.result import Label, Result

SHOWN = {"composition": "score", "principal angles": "overlap"}
"""The quantity that is drawn of each analysis, less its baseline."""


def reading_map(found: Result, seed: Label) -> go.Figure:
    """Writers by readers and their inputs: the composition score, or the overlap of directions, less its baseline.

    ``found`` is what ``analyses.weights.composition`` or ``analyses.weights.angles`` returns. A cell is of one model,
    and heads are named by their index. White: there is no such path, or nothing is to be measured. Errors:
    ``ConfigError``.
    """
    require(found.name in SHOWN, "found", found.name, f"what gives one of {', '.join(SHOWN)}")
    quantity = SHOWN[found.name]
    of_seed = with_axes(found, "writer", "reader", "input", "quantity", "seed").select(seed=seed)
    values, baseline = (of_seed.select(quantity=q).values for q in (quantity, "baseline"))  # [writer, reader, input]
    writers, readers, inputs = ([str(x) for x in of_seed.coordinates[a]] for a in ("writer", "reader", "input"))
    kept = [(r, i) for r in range(len(readers)) for i in range(len(inputs)) if np.isfinite(values[:, r, i]).any()]
    require(bool(kept), "seed", seed, "a model in which a path is defined")
    rows = [w for w in range(len(writers)) if np.isfinite(values[w]).any()]
    names = [f"{readers[r]} {inputs[i]}" for r, i in kept]
    more = np.array([[values[w, r, i] - baseline[w, r, i] for r, i in kept] for w in rows])
    bound = float(np.nanmax(np.abs(more), initial=0.0)) or 1.0
    labels = [writers[w] for w in rows]
    hover = [
        [
            escaped(f"{writers[w]} into {name}: {values[w, r, i]:.3f}, baseline {baseline[w, r, i]:.3f}")
            if np.isfinite(values[w, r, i])
            else escaped(f"{writers[w]} into {name}: not defined")
            for name, (r, i) in zip(names, kept, strict=True)
        ]
        for w in rows
    ]
    figure = blank()
    figure.add_heatmap(
        z=more, text=hover, hovertemplate="%{text}<extra></extra>", zmin=-bound, zmax=bound, colorscale=DIVERGING,
        xgap=1, ygap=1, meta={"subjects": [[label] * len(names) for label in labels]},
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "title": {"text": "fraction"}},
    )  # fmt: skip
    ends = [n + 0.5 for n, ((r, _), (s, _)) in enumerate(itertools.pairwise(kept)) if r != s]
    for end in ends:
        figure.add_vline(end, line={"color": GREY, "width": 0.6})
    ticks = {"showgrid": False, "zeroline": False, "tickfont": {"size": 10}}
    figure.update_xaxes(
        title={"text": "reader and its input", "standoff": 8}, tickangle=-90, tickvals=list(range(len(names))),
        ticktext=tick_labels(names), **ticks,
    )  # fmt: skip
    figure.update_yaxes(
        title="writer", range=[len(labels) - 0.5, -0.5], tickvals=list(range(len(labels))),
        ticktext=tick_labels(labels), **ticks,
    )  # fmt: skip
    left, width = label_width(labels) + 24, 22 * len(names)
    figure.update_layout(width=max(left + width + 120, 700))
    sentences = [
        f"One model, seed {seed}, so without an interval. Colours: {quantity} less its baseline (fraction).",
        "White: the reader does not come after the writer, or there is nothing to measure.",
    ]
    return finish(
        figure, of_seed, sentences, plot_height=26 * len(labels), left=left, right=110, below=40 + label_width(names),
        title=f"{found.name}: {quantity}, seed {seed}",
    )  # fmt: skip
