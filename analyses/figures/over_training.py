"""When something appears: measures against the training step, with their change points."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, interval_of, with_axes
from analyses.figures.style import COLOURS, blank, escaped, shortened, translucent
from analyses.over_training import changes
from mechproc.result import Result
from mechproc.statistics.paired import Method

MAX_LINES = 6
"""Measures in one panel."""


def over_training(found: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> list[go.Figure]:
    """A panel for each kind of measure: seeds as thin lines, their mean as a thick one, its interval as a band.

    ``found`` is what ``analyses.over_training.run`` returned. A diamond stands at the mean change point of a measure
    (of its logarithm) and at the height of the mean curve there, its bar is the interval over the seeds that changed.
    The steps are on a logarithmic axis, on which step 0 stands left of the first.
    """
    found = with_axes(found, "measure", "step", "seed")
    kinds: dict[str, list[str]] = {}
    for name in map(str, found.coordinates["measure"]):
        kinds.setdefault(name.partition(":")[0] if ":" in name else name, []).append(name)
    panels = [
        (kind, names[n : n + MAX_LINES]) for kind, names in kinds.items() for n in range(0, len(names), MAX_LINES)
    ]
    known = [(kind, [n for n in names if np.isfinite(found.select(measure=n).values).any()]) for kind, names in panels]
    return [_panel(found, kind, names, level, method) for kind, names in known if names]


def _panel(found: Result, kind: str, names: list[str], level: float, method: Method) -> go.Figure:
    steps = [int(step) for step in found.coordinates["step"]]
    first = next(step for step in steps if step > 0)
    at = np.array([step if step > 0 else first / 3 for step in steps])
    points = changes(found.select(measure=names))
    n_seeds, counts = len(found.coordinates["seed"]), []
    figure = blank()
    for number, name in enumerate(names):
        colour, values = COLOURS[number % len(COLOURS)], found.select(measure=name).values
        label = escaped(shortened(name.partition(": ")[2] or name))
        there = np.isfinite(values).any(axis=1)
        for seed, line in zip(found.coordinates["seed"], values[there].T, strict=True):
            figure.add_scatter(
                x=at[there], y=line, mode="lines", line={"color": colour, "width": 1}, opacity=0.35, showlegend=False,
                text=escaped(f"{name}, seed {seed}"), hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
        ends = [interval_of(row, level, method) for row in values]
        bounded = [(x, end) for x, end in zip(at, ends, strict=True) if end is not None and end.bounded]
        if bounded:
            outline = [(x, end.low) for x, end in bounded] + [(x, end.high) for x, end in bounded[::-1]]
            figure.add_scatter(
                x=[x for x, _ in outline], y=[y for _, y in outline], fill="toself", mode="none",
                fillcolor=translucent(colour, 0.13), showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        whole = np.isfinite(values).all(axis=1)  # a mean of the seeds that go on longest would jump
        mean = values[whole].mean(axis=1)
        figure.add_scatter(
            x=at[whole], y=mean, mode="lines+markers", name=label, line={"color": colour, "width": 2.5},
            marker={"size": 4, "color": colour}, text=[escaped(f"{name}, mean")] * int(whole.sum()),
            hovertemplate="%{text}: %{y:.3f}<extra></extra>",
        )  # fmt: skip
        where = points.select(measure=name).values
        where = where[np.isfinite(where)]
        counts.append(f"{name.partition(': ')[2] or name} {len(where)} of {n_seeds}")
        if len(where):
            height = np.nanmean(values[there], axis=1)
            _diamond(figure, where, at[there], height, name, colour, level, method)
    figure.update_xaxes(
        title="training step", type="log", tickvals=at.tolist(), ticktext=[f"{step:,}" for step in steps]
    )
    figure.update_yaxes(title=escaped(f"{kind} ({found.unit})"))
    figure.update_layout(showlegend=True, hovermode="closest")
    smallest = points.metadata["smallest"]
    sentences = [
        f"{n_seeds} seeds: thin lines; thick ones are their mean, bands its interval, where no seed is missing.",
        f"Diamonds: geometric mean of the change points, where two levels fit best; bars: {100 * level:.3g} % "
        f"intervals of it over the seeds whose levels differ by {smallest:g} or more ({', '.join(counts)}).",
    ]
    return finish(figure, found, sentences, plot_height=300, above=24, title=f"When does it appear? {kind}")


def _diamond(
    figure: go.Figure, where: np.ndarray, at: np.ndarray, mean: np.ndarray, name: str, colour: str, level: float,
    method: Method,
) -> None:  # fmt: skip
    """The change point of a measure, on the logarithmic axis."""
    logs = np.log10(where)
    x = float(10 ** logs.mean())
    y = float(np.interp(np.log10(x), np.log10(at), mean))
    ends = interval_of(logs, level, method) if len(logs) > 1 else None
    bar = {}
    if ends is not None and ends.bounded:
        low, high = 10**ends.low, 10**ends.high
        bar = {"error_x": {"type": "data", "symmetric": False, "thickness": 2, "width": 4, "color": colour,
                           "array": [high - x], "arrayminus": [x - low]}}  # fmt: skip
        said = f"{x:,.0f} ({low:,.0f} to {high:,.0f})"
    else:
        said = f"{x:,.0f} ({len(where)} seeds, no interval)"
    figure.add_scatter(
        x=[x], y=[y], mode="markers", showlegend=False, **bar,
        marker={"symbol": "diamond", "size": 11, "color": colour, "line": {"color": "white", "width": 1}},
        text=[escaped(f"{name} changes at step {said}")], hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip
