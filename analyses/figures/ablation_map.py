"""What each part costs when it is ablated: parts by seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, draw_mean, interval_of, interval_sentence, most_seeds, with_axes
from analyses.figures.style import COLOURS, DIVERGING, GREY, INK, blank, escaped, label_width, spread, tick_labels
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.result import Result
from mechproc.statistics.intervals import same_in_every_seed
from mechproc.statistics.paired import Method

Matched = Mapping[Any, Sequence[str]] | Literal["index"] | None
"""Which parts of different seeds belong in one row."""
BY_INDEX = (
    "Heads and neurons are named by their index, which is a different part in each seed: their rows have no mean."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the map."""

    label: str
    values: np.ndarray
    """float64 [seed]; NaN where there is no value."""
    parts: list[str]
    """The part in each seed."""
    comparable: bool
    """Whether the parts are the same, or matched, in every seed, so that they may be averaged."""


def ablation_map(
    effects: Result,
    matched: Matched = None,
    matched_by: str = "",
    *,
    level: float = LEVEL,
    method: Method = "sign_flip",
) -> go.Figure:
    """Parts by seeds, colours centred at zero, and beside each row its seeds as dots.

    ``effects`` has the axes ``part`` and ``seed``. Rows that are the same part in every seed (layers, attention, MLPs,
    embeddings) have a mean and an interval. A head's or a neuron's index means nothing across seeds, so that their rows
    have neither, unless the heads were matched by something other than the effect itself:

    - ``matched={0: ["L1.H2", "L0.H1", ...], 1: ["L1.H0", ...]}`` lists the same parts for every seed, ranked by their
      function, as ``analyses.attention.match_heads`` ranks heads; ``matched_by`` says by what, in a few words. A row is
      then a rank, and hovering names the part;
    - ``matched="index"``: one name is one part in every seed, as in runs that share one start.

    Undefined cells are hatched and labelled. Errors: ``ConfigError``.
    """
    effects = with_axes(effects, "part", "seed")
    rows = _rows(effects, matched, matched_by)
    names = [row.label for row in rows]
    values = np.array([row.values for row in rows])
    seeds = [str(s) for s in effects.coordinates["seed"]]
    hover = [[escaped(f"{p}, seed {seed}") for p, seed in zip(row.parts, seeds, strict=True)] for row in rows]
    figure = blank(make_subplots(1, 2, shared_yaxes=True, column_widths=[0.6, 0.4], horizontal_spacing=0.17))
    bound = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    figure.add_heatmap(
        z=values, text=hover, meta={"subjects": [row.parts for row in rows]},
        zmin=-bound, zmax=bound, colorscale=DIVERGING,
        xgap=1.5, ygap=1.5, colorbar={"len": 1, "thickness": 10, "outlinewidth": 0, "x": 0.51, "xanchor": "left"},
        hovertemplate="%{text}: %{z:.4f}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    undefined, missing = effects.is_undefined.any(), effects.is_missing.any()
    _hatch(figure, np.isnan(values), "no value" if undefined and missing else "missing" if missing else "undefined")
    intervals = [interval_of(row.values, level, method) if row.comparable else None for row in rows]
    for number, row in enumerate(rows):
        figure.add_scatter(
            x=row.values, y=number + 0.14 * row.comparable + spread(len(seeds), 0.08), mode="markers",
            text=hover[number], hovertemplate="%{text}: %{x:.4f}<extra></extra>",
            marker={"color": COLOURS[0] if row.comparable else GREY, "size": 5, "opacity": 0.6}, row=1, col=2,
        )  # fmt: skip
        draw_mean(
            figure, row.values, intervals[number], COLOURS[0], number - 0.14, row.label, horizontal=True, column=2
        )
    figure.add_vline(0, line={"color": GREY, "width": 1}, row=1, col=2)  # type: ignore[arg-type]
    figure.update_xaxes(
        title="seed", tickvals=list(range(len(seeds))), ticktext=seeds, showgrid=False, zeroline=False, row=1, col=1
    )
    figure.update_xaxes(title=escaped(effects.unit), row=1, col=2)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=tick_labels(names), range=[len(rows) - 0.5, -0.5],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(ticks="", row=1, col=2)
    return finish(
        figure, effects, _sentences(effects, rows, intervals, matched, matched_by),
        plot_height=(30 if len(rows) <= 14 else 22) * len(rows), left=label_width(names),
    )  # fmt: skip


def _rows(effects: Result, matched: Matched, matched_by: str) -> list[Row]:
    parts = [str(p) for p in effects.coordinates["part"]]
    if matched is not None and not isinstance(matched, str):
        require(matched_by.strip() != "", "matched_by", matched_by, "what the parts are ranked by, in a few words")
        ranks = _ranks(effects, matched)
    else:
        require(matched in (None, "index"), "matched", matched, "'index', or the ranked parts of each seed")
        ranks = []
    ranked = {part for rank in ranks for part in rank}
    rows = []
    for part, values in zip(parts, effects.values, strict=True):
        if part not in ranked:
            comparable = matched == "index" or same_in_every_seed(part)
            rows.append(Row(part, values, [part] * len(values), comparable))
            continue
        for number, of_rank in enumerate(ranks, start=1):  # all ranks stand where the first ranked part stood
            cells = [effects.values[parts.index(p), column] for column, p in enumerate(of_rank)]
            rows.append(Row(f"rank {number}", np.array(cells), of_rank, comparable=True))
        ranks = []
    return rows


def _ranks(effects: Result, matched: Mapping[Any, Sequence[str]]) -> list[list[str]]:
    """The parts at each rank, [rank][seed]."""
    by_seed = {str(seed): [str(part) for part in ranked] for seed, ranked in matched.items()}
    columns = []
    for seed in effects.coordinates["seed"]:
        require(str(seed) in by_seed, "matched", list(matched), f"the ranked parts of seed {seed} too")
        columns.append(by_seed[str(seed)])
        same = sorted(columns[-1]) == sorted(columns[0]) and len(set(columns[-1])) == len(columns[-1])
        require(same, f"matched parts of seed {seed}", columns[-1], f"each of {sorted(columns[0])} once")
    known = [str(part) for part in effects.coordinates["part"]]
    for part in columns[0]:
        if part not in known:
            raise ConfigError(f"matched part {part!r} is not in {effects.name!r}{nearest(part, known)}")
    return [list(rank) for rank in zip(*columns, strict=True)]


def _sentences(effects: Result, rows: list[Row], intervals: list, matched: Matched, matched_by: str) -> list[str]:
    n = len(effects.coordinates["seed"])
    some = int(np.isfinite(effects.values).any(axis=0).sum())
    sentences = [f"{some} of {n} seeds." if some < n else f"{n} seeds." if n > 1 else "One seed."]
    if any(row.comparable for row in rows) and n > 1:
        marks = "At the right each dot is a seed, the diamond their mean, the bar"
        sentences.append(interval_sentence(marks, n, intervals, most_seeds(effects.values)))
    else:
        sentences.append("At the right each dot is a seed.")
    if matched_by:
        sentences.append(f"A rank is in each seed whichever part is ranked so by {matched_by}.")
    if not all(row.comparable for row in rows):
        sentences.append(BY_INDEX)
    if matched == "index":
        sentences.append("One name is taken to be one part in every seed.")
    if effects.is_missing.any():
        sentences.append("Where a seed is missing there is neither mean nor interval.")
    reasons = dict.fromkeys(reason for _, reason in effects.undefined)
    return [*sentences, *(f"Undefined: {reason.rstrip('.')}." for reason in reasons)]


def _hatch(figure: go.Figure, empty: np.ndarray, word: str) -> None:
    """Cells without a value, hatched; a row without any is labelled once."""
    xs, ys = [], []
    for row, column in np.argwhere(empty):
        xs += [column - 0.47, column + 0.47, column + 0.47, column - 0.47, column - 0.47, None]
        ys += [row - 0.45, row - 0.45, row + 0.45, row + 0.45, row - 0.45, None]
    if xs:
        figure.add_scatter(
            x=xs, y=ys, fill="toself", mode="lines", line={"width": 0}, hoverinfo="skip", row=1, col=1,
            fillpattern={"shape": "/", "size": 6, "solidity": 0.25, "fgcolor": GREY, "bgcolor": "rgba(0,0,0,0)"},
        )  # fmt: skip
    for row in np.flatnonzero(empty.any(axis=1)):
        middle = float(np.flatnonzero(empty[row]).mean())
        figure.add_annotation(
            x=middle, y=int(row), text=word, showarrow=False, font={"size": 11, "color": INK}, bgcolor="#f3f2ee",
            row=1, col=1,
        )  # fmt: skip
