"""Rows of dots, a dot for each seed: scores of groups, statistics, correlations, that mean the same in every seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, draw_mean, interval_of, interval_sentence, most_seeds, with_axes
from analyses.figures.style import COLOURS, GREY, blank, escaped, label_width, spread, tick_labels
from mechproc.result import Result
from mechproc.statistics.paired import Method

ROW = 46
"""Height of a row, in pixels."""
MAX_NAME = 44
"""Characters beside a row."""


def dots(
    found: Result,
    row: str,
    *,
    names: Sequence[str] | None = None,
    levels: Mapping[str, Sequence[float]] | None = None,
    said: Sequence[str] = (),
    level: float = LEVEL,
    method: Method = "sign_flip",
    with_mean: bool = True,
    title: str = "",
) -> go.Figure:
    """One row for each label of the axis ``row``: every label of the other axis is a dot, a diamond their mean.

    - ``found``: a Result of two axes, ``row`` and ``seed`` (or another unit, such as ``case``);
    - ``names``: what stands beside the rows, by default their labels;
    - ``levels``: by label, values that a row is to be held against, drawn as a stroke across it;
    - ``said``: sentences for the caption, before those on marks and intervals;
    - ``with_mean``: whether the labels of the other axis are units that may be averaged.

    Errors: ``ConfigError`` for a Result of other axes.
    """
    unit = next((axis for axis in found.axes if axis != row), "seed")
    found = with_axes(found, row, unit)
    labels = [str(label) for label in found.coordinates[row]]
    names = list(labels if names is None else names)
    figure = blank()
    intervals = [interval_of(values, level, method) if with_mean else None for values in found.values]
    for number, (label, values) in enumerate(zip(labels, found.values, strict=True)):
        hover = [escaped(f"{label}, {unit} {each}") for each in found.coordinates[unit]]
        figure.add_scatter(
            x=values, y=number + 0.17 + spread(len(values), 0.1), mode="markers", text=hover,
            marker={"color": COLOURS[0], "size": 6, "opacity": 0.65}, hovertemplate="%{text}: %{x:.4g}<extra></extra>",
        )  # fmt: skip
        draw_mean(figure, values, intervals[number], COLOURS[0], number - 0.17, label, horizontal=True)
        for value in (levels or {}).get(label, ()):
            figure.add_scatter(
                x=[value, value], y=[number - 0.4, number + 0.4], mode="lines", line={"color": GREY, "width": 1.5},
                hoverinfo="skip",
            )  # fmt: skip
    known = [each for each in (levels or {}).values() for each in each]
    if min([*known, float(np.nanmin(found.values, initial=0.0))]) <= 0:
        figure.add_vline(0, line={"color": GREY, "width": 1, "dash": "dot"})
    figure.update_xaxes(title=escaped(f"{found.name} ({found.unit})"))
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=tick_labels(names, MAX_NAME), range=[len(names) - 0.45, -0.55],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    n, some = len(found.coordinates[unit]), int(np.isfinite(found.values).any(axis=0).sum())
    if not with_mean:
        sentences = [f"Each dot is a {unit}.", *said]
    else:
        sentences = [f"{some} of {n} {unit}s." if some < n else f"{n} {unit}s." if n > 1 else f"One {unit}.", *said]
        marks = f"Each dot is a {unit}; the diamond is their mean, the bar"
        about_bars = interval_sentence(marks, n, intervals, most_seeds(found.values))
        sentences.append(about_bars.replace(f"{n} seeds", f"{n} {unit}s"))
    if with_mean and found.is_missing.any():
        sentences.append(f"Where a {unit} is missing there is neither mean nor interval.")
    sentences += [f"Undefined: {reason.rstrip('.')}." for reason in dict.fromkeys(why for _, why in found.undefined)]
    return finish(figure, found, sentences, plot_height=30 + ROW * len(names), left=label_width(names, MAX_NAME),
                  title=title)  # fmt: skip


def head_groups(compared: Result, mask: str, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """The best head of each model for one target, by group: before pretraining, after it, after the task.

    ``compared`` is what ``analyses.attention.compare`` returns. A head of rank 1 is in each model whichever attends
    most to the target; the strokes are what uniform attention and the best head of untrained models score.
    """
    best = compared.select(mask=mask, rank=1)
    held = {group: list(of.values()) for group, of in compared.metadata["baselines"].get(mask, {}).items()}
    above = compared.metadata["above"].get(mask, {})
    counts = [f"{group}: above both strokes in {each['above']} of {each['of']} seeds." for group, each in above.items()]
    strokes = "The strokes are what uniform attention and the best head of any untrained model score."
    return dots(best, "group", levels=held, said=[strokes, *counts], level=level, method=method)


def statistics(found: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> list[go.Figure]:
    """The statistics of each model, a row for each: what ``analyses.donor_statistics.run`` returns.

    Those that are at most 1 in size are one figure, the others another one.
    """
    names = [str(name) for name in found.coordinates["statistic"]]
    sizes = {name: np.nanmax(np.abs(found.select(statistic=name).values), initial=0.0) for name in names}
    about = found.metadata.get("about", {})
    fresh = {name: list(of.values()) for name, of in found.metadata.get("baselines", {}).items()}
    strokes = ["The strokes are the means of untrained models."] if fresh else []
    figures = []
    for small, unit in ((True, "fraction"), (False, "ratio")):
        shown = [name for name in names if (sizes[name] <= 1) == small]
        if shown:
            part = dataclasses.replace(found.select(statistic=shown), unit=unit)
            said = [*strokes, *(f"{name}: {about[name]}." for name in shown if name in about)]
            held = {name: fresh[name] for name in shown if name in fresh}
            figures.append(dots(part, "statistic", levels=held, said=said, level=level, method=method))
    return figures


def barriers(found: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """The loss barrier of every pair of models, by group, as the models are and matched.

    ``found`` is what ``analyses.weights.barriers`` returns. A dot is a pair; there is no interval, as pairs that have a
    model in common are not independent.
    """
    barrier = found.select(quantity="barrier")
    rows, names = [], []
    for group, pairs in found.metadata["groups"].items():
        for matching in barrier.coordinates["matching"] if pairs else ():
            rows.append(barrier.select(pair=pairs, matching=matching).values)
            names.append(f"{group}, {matching} ({len(pairs)} pairs)")
    most = max(map(len, rows))
    values = np.array([np.pad(row, (0, most - len(row)), constant_values=np.nan) for row in rows])
    table = dataclasses.replace(
        barrier, values=values, axes=("group", "pair"), coordinates={"group": names, "pair": list(range(most))},
        undefined=(), selected={},
    )  # fmt: skip
    said = ["There is no interval: pairs that have a model in common are not independent."]
    return dots(table, "group", said=said, level=level, method=method, with_mean=False)


def agreement(found: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """How well each map agrees with the target, a dot for each case: what ``analyses.agreement`` returns.

    A row that no case has is left out, and the caption says so.
    """
    p, n_parts = found.metadata["p"], found.metadata["n_parts"]
    maps = [str(name) for name in found.coordinates["map"]]
    shown = [name for name in maps if name in p]
    names = [f"{name} (p = {p[name]:.2g}, {max(n_parts[name].values())} parts)" for name in shown]
    described: dict[str, list[str]] = {}
    for name in ("target", *shown):
        described.setdefault(found.metadata["describes"][name], []).append(name)
    said = [f"{', '.join(of)}: of {text}." for text, of in described.items()]
    said.append("p: permutation of the part labels, the same way for all seeds of a case.")
    if left := [name for name in maps if name not in p]:
        said.append(f"Without a case that has them: {', '.join(left)}.")
    drawn = found.select(map=shown) if shown else found
    result = dataclasses.replace(drawn, metadata={"warnings": found.warnings})
    return dots(result, "map", names=names if shown else None, said=said, level=level, method=method)
