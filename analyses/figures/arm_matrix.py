"""What each start gains on each task: starts by tasks, with intervals."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, interval_of, interval_sentence, most_seeds, with_axes
from analyses.figures.style import DIVERGING, blank, escaped, label_width, tick_labels
from mechproc.result import Result
from mechproc.statistics.paired import Interval, Method

ROW = 40
"""Height of a start's row, in pixels."""
COLUMN = 150
FLAT_ROW, WIDE_COLUMN = 24, 260
"""Where there is one task alone: what a cell says stands in one line."""
MAX_START = 72
"""Characters of a start that are drawn."""


def arm_matrix(gains: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """A heat map of starts by tasks: in each cell the mean over seeds, its interval and the number of seeds.

    ``gains`` has the axes ``start``, ``task`` and ``seed``; ``metadata["arms"]`` may name the arm of each cell, by task
    and start. The mean is that of the seeds that are there, and says how many where some are missing. Colours are
    centred at zero. A cell without a seed was not run; one of which ``gains`` says that it is undefined does not exist.
    """
    gains = with_axes(gains, "start", "task", "seed")
    starts, tasks = ([str(label) for label in gains.coordinates[axis]] for axis in ("start", "task"))
    factor = 100 if gains.unit == "fraction" else 1
    n_seeds, arms = len(gains.coordinates["seed"]), gains.metadata.get("arms", {})
    means = np.full((len(starts), len(tasks)), np.nan)
    texts = [["not run"] * len(tasks) for _ in starts]
    intervals: list[Interval | None] = []
    absent = {tuple(place) for place in np.argwhere(gains.is_undefined.all(axis=2)).tolist()}
    for i, j in np.ndindex(means.shape):
        known = gains.values[i, j][np.isfinite(gains.values[i, j])]
        if (i, j) in absent:
            texts[i][j] = "–"
        if not len(known):
            continue
        means[i, j] = factor * known.mean()
        within = interval_of(known, level, method) if len(known) > 1 else None
        intervals.append(within)
        texts[i][j] = _text(float(means[i, j]), within, factor, len(known), n_seeds)
    flat = len(tasks) == 1
    row, column, line_break = (FLAT_ROW, WIDE_COLUMN, " · ") if flat else (ROW, COLUMN, "<br>")
    texts = [[text.replace("\n", line_break) for text in of_start] for of_start in texts]
    bound = float(np.nanmax(np.abs(means), initial=0.0)) or 1.0
    unit = "points" if gains.unit == "fraction" else gains.unit
    subjects = [[arms.get(task, {}).get(start, f"{task}: {start}") for task in tasks] for start in starts]
    figure = blank()
    figure.add_heatmap(
        z=means, text=[[escaped(name) for name in row] for row in subjects], customdata=texts, zmin=-bound, zmax=bound,
        colorscale=DIVERGING, xgap=2, ygap=2, texttemplate="%{customdata}", textfont={"size": 11},
        hovertemplate="%{text}: %{customdata}<extra></extra>", meta={"subjects": subjects, "hatched": True},
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "title": {"text": escaped(unit)}},
    )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(len(tasks))), ticktext=tick_labels(tasks), side="bottom", showgrid=False, zeroline=False
    )
    figure.update_yaxes(
        tickvals=list(range(len(starts))), ticktext=tick_labels(starts, MAX_START), range=[len(starts) - 0.5, -0.5],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    marks = f"Each cell is a mean over seeds, in {unit}, {'before' if flat else 'above'}"
    sentences = [f"{n_seeds} seeds."]
    sentences.append(interval_sentence(marks, n_seeds, intervals, most_seeds(gains.values)))
    if gains.is_missing.any():
        sentences.append("Hatched: not run; where only some seeds were run, their number is given.")
    left = label_width(starts, MAX_START)
    width = left + column * len(tasks) + 100
    figure.update_layout(width=max(width, 560))
    return finish(
        figure, gains, sentences, plot_height=row * len(starts), left=left,
        right=max(560 - left - column * len(tasks), 100),
        above=14,
    )  # fmt: skip


def _text(mean: float, within: Interval | None, factor: float, n: int, n_seeds: int) -> str:
    """The mean, and in a second line the interval or the number of seeds."""
    form = "+.1f" if factor == 100 else "+.3g"
    below = []
    if within is not None and within.bounded:
        below.append(f"[{factor * within.low:{form}}, {factor * within.high:{form}}]")
    if n < n_seeds:
        below.append(f"{n} of {n_seeds} seeds")
    return f"{mean:{form}}" + (f"\n{' '.join(below)}" if below else "")
