"""The scores of every seed by arm."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, draw_mean, interval_of, interval_sentence, most_seeds, with_axes
from analyses.figures.style import COLOURS, GREY, axis_title, blank, escaped, label_width, spread, tick_labels
from mechproc.result import Result
from mechproc.result.references import reference_lines, spelled_score
from mechproc.statistics.paired import Method

ROW = 58
"""Height of an arm, in pixels."""


def arms(
    scores: Result,
    lines: Mapping[str, float] | None = None,
    *,
    level: float = LEVEL,
    method: Method = "sign_flip",
) -> go.Figure:
    """One row of dots for each arm: every seed is a dot, a diamond is the mean, a bar its interval.

    ``scores`` has the axes ``arm`` and ``seed``; ``lines`` are named values that are drawn as dotted lines, by default
    the best attainable score and the best baseline, where the metadata of ``scores`` have them. The intervals are each
    arm's own: whether two arms differ is decided by the paired differences, not by whether these intervals overlap.
    """
    scores = with_axes(scores, "arm", "seed")
    names = [str(a) for a in scores.coordinates["arm"]]
    percent = scores.unit == "fraction"
    figure = blank()
    intervals = [interval_of(values, level, method) for values in scores.values]
    for row, (name, values) in enumerate(zip(names, scores.values, strict=True)):
        colour = COLOURS[row % len(COLOURS)]
        labels = [escaped(f"{name}, seed {s}") for s in scores.coordinates["seed"]]
        figure.add_scatter(
            x=values, y=row + 0.17 + spread(len(values), 0.1), mode="markers", text=labels,
            marker={"color": colour, "size": 7, "opacity": 0.65},
            hovertemplate="%{text}: %{x:.4f}<extra></extra>",
        )  # fmt: skip
        draw_mean(figure, values, intervals[row], colour, at=row - 0.17, name=name, horizontal=True)
    by_default = lines is None
    lines = dict(sorted((reference_lines(scores) if lines is None else lines).items(), key=lambda line: line[1]))
    middle = (scores.values.min() + max([scores.values.max(), *lines.values()])) / 2
    for number, (name, value) in enumerate(lines.items()):
        figure.add_vline(value, line={"color": GREY, "width": 1.2, "dash": "dot"})
        figure.add_annotation(  # each a line of text higher than the one before, written towards the middle
            x=value, y=1, yref="paper", yanchor="bottom", yshift=15 * number, text=escaped(name), showarrow=False,
            xanchor="left" if value <= middle else "right", font={"size": 11, "color": GREY},
        )  # fmt: skip
    figure.update_xaxes(title=axis_title(scores.name, scores.unit), tickformat=".0%" if percent else None)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=tick_labels(names),
        range=[len(names) - 0.45, -0.55],
        showgrid=False,
        zeroline=False,
    )
    sentences = [f"{len(scores.coordinates['seed'])} seeds."]
    marks = "Each dot is a seed; the diamond is their mean, the bar"
    sentences.append(interval_sentence(marks, len(scores.coordinates["seed"]), intervals, most_seeds(scores.values)))
    if scores.is_missing.any():
        sentences.append("Where a seed is missing there is neither mean nor interval.")
    if lines and not by_default:
        each = ", ".join(f"{name} {spelled_score(value, scores.unit)}" for name, value in lines.items())
        sentences.append(f"Dotted lines: {each}.")
    return finish(
        figure, scores, sentences, plot_height=30 + ROW * len(names), left=label_width(names), above=15 * len(lines)
    )
