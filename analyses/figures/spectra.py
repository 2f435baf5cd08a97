"""Singular values of each kind of matrix, a line for each part and seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import COLOURS, GREY, blank, escaped
from mechproc.errors import require
from mechproc.result import Result

VALUE = "singular value "
SMALLEST = 1e-4
"""Share of the largest value of a panel below which a value is left out."""


def spectra(spectrum: Result, matrices: Sequence[str] | None = None) -> go.Figure:
    """One panel for each kind of matrix (``matrices``; ``None``: all), singular values from the largest on, log scale.

    ``spectrum`` is that of ``analyses.weights.spectrum``. A line is one part of one seed, its colour the layer: heads
    have no order across seeds, so that neither parts nor seeds are averaged. Errors: ``ConfigError``.
    """
    spectrum = with_axes(spectrum, "part", "matrix", "quantity", "seed")
    known = [str(name) for name in spectrum.coordinates["matrix"]]
    shown = known if matrices is None else list(matrices)
    for name in shown:
        require(name in known, "matrices", name, f"some of {', '.join(known)}")
    require(len(shown) > 0, "matrices", shown, "at least one")
    numbers = [i for i, q in enumerate(spectrum.coordinates["quantity"]) if str(q).startswith(VALUE)]
    figure = blank(make_subplots(1, len(shown), subplot_titles=[escaped(n) for n in shown], horizontal_spacing=0.06))
    named: set[str] = set()
    for column, name in enumerate(shown, start=1):
        values = spectrum.values[:, known.index(name)][:, numbers]
        top = float(np.nanmax(values, initial=0.0)) or 1.0
        for row, part in enumerate(spectrum.coordinates["part"]):
            colour, layer = _colour(str(part))
            for seed, line in zip(spectrum.coordinates["seed"], values[row].T, strict=True):
                line = line[line > SMALLEST * top]
                if not len(line):
                    continue
                figure.add_scatter(
                    x=np.arange(1, len(line) + 1), y=line, mode="lines+markers",
                    line={"color": colour, "width": 1}, marker={"size": 3}, opacity=0.55, name=layer,
                    legendgroup=layer, showlegend=layer not in named,
                    text=[escaped(f"{part} {name}, seed {seed}")] * len(line),
                    hovertemplate="%{text}, value %{x}: %{y:.4g}<extra></extra>", row=1, col=column,
                )  # fmt: skip
                named.add(layer)
        figure.update_xaxes(
            title="rank", dtick=1 if np.isfinite(values).any(axis=(0, 2)).sum() <= 6 else None, row=1, col=column
        )
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_yaxes(title="singular value", row=1, col=1)
    width = max(700, 210 * len(shown))
    figure.update_layout(width=width, showlegend=True, legend={"y": 1.12})
    sentences = [
        f"{len(spectrum.coordinates['seed'])} seeds; each line is one part of one seed.",
        f"LayerNorms: {spectrum.metadata.get('layernorms', 'not said')}.",
        f"Values below {SMALLEST:g} of a panel's largest are left out, such as that of the direction that folding "
        "removes.",
    ]
    return finish(figure, spectrum, sentences, plot_height=300, left=70, above=50, characters=round(
        (width - 30) / 6))  # fmt: skip


def _colour(part: str) -> tuple[str, str]:
    """Colour and name of a part's layer."""
    if not part.startswith("L") or "." not in part:
        return GREY, "embeddings"
    layer = int(part[1:].partition(".")[0])
    return COLOURS[layer % len(COLOURS)], f"layer {layer}"
