"""What can be read off the residual stream, site after site."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, interval_of, interval_sentence, most_seeds, with_axes
from analyses.figures.style import COLOURS, blank, escaped, translucent
from mechproc.result import Result
from mechproc.statistics.paired import Method


def lens(found: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """The score at each site, in the order of the forward pass: seeds as thin lines, their mean, its interval.

    ``found`` is what ``analyses.logits.lens`` returns, without positions. The residual stream is the same place in
    every seed, so that its sites have a mean. Errors: ``ConfigError`` for a Result of other axes.
    """
    found = with_axes(found, "site", "seed")
    sites = [str(site).removeprefix("blocks.").replace(".hook_", " ") for site in found.coordinates["site"]]
    places = np.arange(len(sites))
    figure, colour = blank(), COLOURS[0]
    for seed, line in zip(found.coordinates["seed"], found.values.T, strict=True):
        figure.add_scatter(
            x=places, y=line, mode="lines", line={"color": colour, "width": 1}, opacity=0.4,
            text=[escaped(f"{site}, seed {seed}") for site in sites], hovertemplate="%{text}: %{y:.4g}<extra></extra>",
        )  # fmt: skip
    ends = [interval_of(values, level, method) for values in found.values]
    if all(end is not None and end.bounded for end in ends):
        outline = [end.low for end in ends if end] + [end.high for end in ends[::-1] if end]
        figure.add_scatter(
            x=[*places, *places[::-1]], y=outline, fill="toself", mode="none", fillcolor=translucent(colour, 0.15),
            hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=places, y=found.values.mean(axis=1), mode="lines+markers", line={"color": colour, "width": 3},
        marker={"size": 6, "color": colour}, text=[escaped(f"{site}, mean") for site in sites],
        hovertemplate="%{text}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="layer and place in the residual stream", tickvals=list(places), ticktext=sites)
    figure.update_yaxes(title=escaped(f"{found.name} ({found.unit})"))
    n = len(found.coordinates["seed"])
    marks = "Thin lines are seeds, the thick one their mean, the band"
    said = [f"{n} seeds." if n > 1 else "One seed.", interval_sentence(marks, n, ends, most_seeds(found.values))]
    return finish(figure, found, said, plot_height=300, left=70)
