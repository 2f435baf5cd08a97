"""Maps of the same parts beside each other, in the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import with_axes
from analyses.figures.style import DIVERGING, GREY, blank, escaped, label_width, tick_labels
from mechproc.errors import require
from mechproc.result import Result

ROW = 26
"""Height of a part's row, in pixels."""
COLUMN = 26
"""Least width of a seed's column, in pixels."""
TITLE_CHARACTER = 6.6
"""Width of a character of a map's title, in pixels."""


def maps(results: Sequence[Result], titles: Sequence[str], order: Sequence[str] | None = None) -> go.Figure:
    """Parts by maps: of each map a column for each seed, its colours relative to its own largest value.

    Each of ``results`` has the axes ``part`` and ``seed`` (one that has ``part`` alone is a single column), ``titles``
    name them. A row is one part address, in the order of ``order``, by default that in which the maps have them; where
    a map does not have the part the cell is hatched. Nothing is averaged, so that heads can be shown by their index:
    within a seed an index is one head in all maps that are of the same models. Errors: ``ConfigError``.
    """
    require(len(results) > 0, "results", list(results), "at least one map")
    tables = [_table(result) for result in results]
    parts = list(order or dict.fromkeys(part for names, _, _ in tables for part in names))
    columns: list[np.ndarray] = []
    ticks: list[str] = []
    words: list[list[str]] = []
    middles, place = [], 0
    for (names, seeds, values), result, title in zip(tables, results, titles, strict=True):
        bound = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
        for column, seed in enumerate(seeds):
            of_part = dict(zip(names, values[:, column], strict=True))
            known = [of_part.get(part, np.nan) for part in parts]
            columns.append(np.array(known) / bound)
            words.append(
                [
                    f"{part}, {title}, {seed}: {value:.4g} {result.unit}"
                    if np.isfinite(value)
                    else f"{part}, {title}, {seed}: no value"
                    for part, value in zip(parts, known, strict=True)
                ]
            )
            ticks.append(seed.removeprefix("seed "))
        middles.append((place + (len(seeds) - 1) / 2, title, bound, result.unit))
        place += len(seeds)
        columns.append(np.full(len(parts), np.nan))
        words.append(["" for _ in parts])
        ticks.append("")
        place += 1
    z = np.stack(columns[:-1], axis=1)
    figure = blank()
    figure.add_heatmap(
        z=z, text=[[escaped(words[j][i]) for j in range(z.shape[1])] for i in range(len(parts))], zmin=-1, zmax=1,
        colorscale=DIVERGING, xgap=1, ygap=1.5, hovertemplate="%{text}<extra></extra>",
        meta={"subjects": [[part] * z.shape[1] for part in parts], "hatched": True,
              "blank": [word[0] == "" for word in words]},
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "tickvals": [-1, 0, 1],
                  "ticktext": ["−largest", "0", "largest"]},
    )  # fmt: skip
    for middle, title, _, _ in middles:
        figure.add_annotation(
            x=middle, y=1, yref="paper", yanchor="bottom", text=escaped(title).replace(", ", ",<br>"), showarrow=False,
            font={"size": 11, "color": GREY},
        )  # fmt: skip
    figure.update_xaxes(
        title="seed", range=[-0.5, z.shape[1] - 0.5],
        tickvals=[n for n, tick in enumerate(ticks) if tick], ticktext=[t for t in ticks if t],
        tickangle=0, tickfont={"size": 10}, showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(parts))), ticktext=tick_labels(parts), range=[len(parts) - 0.5, -0.5],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    largest = "; ".join(f"{title} {bound:.3g} {unit}" for _, title, bound, unit in middles)
    sentences = [
        "A row is one part in all maps, a column one seed. Colours are relative to each map's largest value: "
        f"{largest}.",
        "Hatched: the map has no value for the part. Maps of different models have different heads in a row.",
    ]
    left = label_width(parts)
    titled = max(len(line) for title in titles for line in title.split(", ")) * TITLE_CHARACTER
    column = max(COLUMN, titled / (min(len(seeds) for _, seeds, _ in tables) + 1))  # a title reaches over the gap
    width = max(left + round(column * z.shape[1]) + 110, 560)
    figure.update_layout(width=width)
    return finish(
        figure, results[0], sentences, plot_height=ROW * len(parts), left=left, right=110, above=30,
        title="Maps beside each other", characters=round((width - 30) / 6),
    )  # fmt: skip


def _table(result: Result) -> tuple[list[str], list[str], np.ndarray]:
    """Parts, seeds, and values float64 [part, seed]."""
    if "seed" not in result.axes:
        values = with_axes(result, "part").values[:, None]
        return [str(p) for p in result.coordinates["part"]], ["one"], values
    result = with_axes(result, "part", "seed")
    seeds = [f"seed {seed}" for seed in result.coordinates["seed"]]
    return [str(p) for p in result.coordinates["part"]], seeds, result.values
