"""Scores along a training."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import CHARACTERS, finish
from analyses.figures.means import LEVEL, interval_of, interval_sentence, with_axes
from analyses.figures.style import COLOURS, axis_title, blank, escaped, shortened, translucent, visible
from mechproc.result import Result
from mechproc.statistics.paired import Interval, Method

MAX_NAME = 52
"""Characters of an arm in the legend."""
DASHES = ("solid", "dash", "dot")


def curves(
    curve: Result, *, level: float = LEVEL, method: Method = "sign_flip", width: int | None = None, title: str = ""
) -> go.Figure:
    """Scores by training step: each seed is a thin line, the mean of an arm a thick one, its interval a band.

    ``curve`` has the axes ``arm``, ``seed`` and ``step``. The mean is that of the seeds that the arm has; where one of
    them has stopped there is none. ``width``: of the figure, in pixels; by default as much as there is room for.
    """
    curve = with_axes(curve, "arm", "seed", "step")
    steps = [float(s) for s in curve.coordinates["step"]]
    figure = blank()
    intervals: list[Interval | None] = []
    names = [shortened(visible(str(arm)), MAX_NAME) for arm in curve.coordinates["arm"]]
    begun = np.asarray(np.isfinite(curve.values).any(axis=2))
    for number, (arm, seeds) in enumerate(zip(curve.coordinates["arm"], curve.values, strict=True)):
        colour, name = COLOURS[number % len(COLOURS)], escaped(names[number])
        group = f"arm {number}"
        for seed, values in zip(curve.coordinates["seed"], seeds, strict=True):
            figure.add_scatter(
                x=steps, y=values, mode="lines", legendgroup=group, showlegend=False, opacity=0.35,
                line={"color": colour, "width": 1}, text=escaped(f"{arm}, seed {seed}"),
                hovertemplate="%{text}: %{y:.4f}<extra></extra>",
            )  # fmt: skip
        seeds = seeds[begun[number]]
        ends = [interval_of(values, level, method) if len(values) else None for values in seeds.T]
        intervals += ends
        bounded = [(step, end) for step, end in zip(steps, ends, strict=True) if end is not None and end.bounded]
        if bounded:
            outline = [(step, end.low) for step, end in bounded] + [(step, end.high) for step, end in bounded[::-1]]
            figure.add_scatter(
                x=[step for step, _ in outline], y=[end for _, end in outline], fill="toself", mode="none",
                fillcolor=translucent(colour, 0.13), legendgroup=group, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        mean = seeds.mean(axis=0) if len(seeds) else np.full(len(steps), np.nan)
        figure.add_scatter(
            x=steps, y=mean, mode="lines", name=name, legendgroup=group,
            line={"color": colour, "width": 3, "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
            text=escaped(f"{arm}, mean"), hovertemplate="%{text}: %{y:.4f}<extra></extra>",
        )  # fmt: skip
    percent = curve.unit == "fraction"
    figure.update_xaxes(title="training step", tickformat=",d")
    figure.update_yaxes(title=axis_title(curve.name, curve.unit), tickformat=".0%" if percent else None)
    figure.update_layout(showlegend=True, hovermode="closest")
    n_seeds, of_arm = len(curve.coordinates["seed"]), begun.sum(axis=1).tolist()
    sentences = [f"{n_seeds} seeds." if n_seeds > 1 else "One seed."]
    fewer = [f"{name} {n}" for name, n in zip(names, of_arm, strict=True) if n < n_seeds]
    if fewer:
        sentences.append(f"Of some arms fewer are complete: {', '.join(fewer)}.")
    marks = "Thin lines are seeds, thick ones the mean of each arm, the band"
    sentences.append(interval_sentence(marks, n_seeds, intervals, max(of_arm)))
    stopped = np.isnan(curve.values) & begun[:, :, None]
    if stopped.any():
        sentences.append("Where a seed has stopped there is neither mean nor interval.")
    pixels = width or 700
    figure.update_layout(width=width)
    rows = 1 + sum(len(name) + 8 for name in names) // round(pixels * 0.12)
    return finish(
        figure, curve, sentences, plot_height=pixels // 2, above=24 * rows, title=title,
        characters=min(CHARACTERS, round(CHARACTERS * pixels / 700)),
    )  # fmt: skip
