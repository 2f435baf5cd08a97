"""Scores along a training."""

from __future__ import annotations

import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, interval_of, interval_sentence, with_axes
from analyses.figures.style import COLOURS, blank, escaped, shortened, translucent, visible
from mechproc.result import Result
from mechproc.statistics.paired import Interval, Method

DASHES = ("solid", "dash", "dot")


def curves(curve: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """Scores by training step: each seed is a thin line, the mean of an arm a thick one, its interval a band.

    ``curve`` has the axes ``arm``, ``seed`` and ``step``.
    """
    curve = with_axes(curve, "arm", "seed", "step")
    steps = [float(s) for s in curve.coordinates["step"]]
    figure = blank()
    intervals: list[Interval | None] = []
    for number, (arm, seeds) in enumerate(zip(curve.coordinates["arm"], curve.values, strict=True)):
        colour, name = COLOURS[number % len(COLOURS)], escaped(shortened(visible(str(arm))))
        group = f"arm {number}"
        for seed, values in zip(curve.coordinates["seed"], seeds, strict=True):
            figure.add_scatter(
                x=steps, y=values, mode="lines", legendgroup=group, showlegend=False, opacity=0.35,
                line={"color": colour, "width": 1}, text=escaped(f"{arm}, seed {seed}"),
                hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            )  # fmt: skip
        ends = [interval_of(values, level, method) for values in seeds.T]
        intervals += ends
        bounded = [(step, end) for step, end in zip(steps, ends, strict=True) if end is not None and end.bounded]
        if bounded:
            outline = [(step, end.low) for step, end in bounded] + [(step, end.high) for step, end in bounded[::-1]]
            figure.add_scatter(
                x=[step for step, _ in outline], y=[end for _, end in outline], fill="toself", mode="none",
                fillcolor=translucent(colour, 0.13), legendgroup=group, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=steps, y=seeds.mean(axis=0), mode="lines", name=name, legendgroup=group,
            line={"color": colour, "width": 3, "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
            text=escaped(f"{arm}, mean"), hovertemplate="%{text}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
    percent = curve.unit == "fraction"
    figure.update_xaxes(title="training step", tickformat=",d")
    figure.update_yaxes(title=escaped(f"{curve.name} ({curve.unit})"), tickformat=".0%" if percent else None)
    figure.update_layout(showlegend=True, hovermode="closest")
    n_seeds = len(curve.coordinates["seed"])
    sentences = [f"{n_seeds} seeds."]
    sentences.append(interval_sentence("Thin lines are seeds, thick ones their mean, the band", n_seeds, intervals))
    if curve.is_missing.any():
        sentences.append("Where a seed has stopped there is neither mean nor interval.")
    rows = 1 + sum(len(shortened(visible(str(a)))) + 8 for a in curve.coordinates["arm"]) // 85
    return finish(figure, curve, sentences, plot_height=350, above=24 * rows)
