"""Figures of Results: each function takes a ``Result`` and returns a plotly figure.

Every figure shows every seed, has an interval over seeds, and carries its caption in ``figure.layout.meta["caption"]``:
the number of seeds, what the interval is, what is not shown. Nothing here changes a global template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analyses.drawing import (
    COLOURS,
    DIVERGING,
    GREY,
    SEQUENTIAL,
    blank,
    captioned,
    draw_mean,
    escaped,
    interval_of,
    spread,
    translucent,
    with_axes,
)
from mechproc.errors import require
from mechproc.result import Result
from mechproc.statistics.paired import Interval, Method

LEVEL = 0.95
DASHES = ("solid", "dash", "dot")
HEAD = re.compile(r"(L\d+)\.H\d+(?:\.(QK|OV))?")
SORTED = (
    "Heads are sorted within each seed: a row is a rank in its layer, not one head, and the first rank lies above the "
    "last by the sorting alone."
)


def arms(
    scores: Result,
    lines: Mapping[str, float] | None = None,
    *,
    level: float = LEVEL,
    method: Method = "sign_flip",
) -> go.Figure:
    """One row of dots for each arm: every seed a dot, the mean a bar, its interval beside them.

    ``scores`` has the axes ``arm`` and ``seed``; ``lines`` are named values drawn across, such as the best attainable
    score and the trivial baselines. The intervals are each arm's own: whether two arms differ is said by the paired
    differences, not by whether these overlap.
    """
    scores = with_axes(scores, "arm", "seed")
    names = [str(a) for a in scores.coordinates["arm"]]
    percent = scores.unit == "fraction"
    figure = blank(height=110 + 58 * len(names))
    found = [interval_of(values, level, method) for values in scores.values]
    for row, (name, values) in enumerate(zip(names, scores.values, strict=True)):
        colour = COLOURS[row % len(COLOURS)]
        labels = [f"{name}, seed {s}" for s in scores.coordinates["seed"]]
        figure.add_scatter(
            x=values, y=row + 0.17 + spread(len(values), 0.1), mode="markers", text=labels,
            marker={"color": colour, "size": 7, "opacity": 0.65},
            hovertemplate="%{text}: %{x:.4f}<extra></extra>",
        )  # fmt: skip
        draw_mean(figure, values, found[row], colour, at=row - 0.17, label=name, horizontal=True)
    lines = dict(sorted((lines or {}).items(), key=lambda line: line[1]))
    middle = (scores.values.min() + max([scores.values.max(), *lines.values()])) / 2
    for number, (name, value) in enumerate(lines.items()):
        figure.add_vline(value, line={"color": GREY, "width": 1.2, "dash": "dot"})
        figure.add_annotation(  # each a line of text higher than the one before, written towards the middle
            x=value, y=1, yref="paper", yanchor="bottom", yshift=15 * number, text=escaped(name), showarrow=False,
            xanchor="left" if value <= middle else "right", font={"size": 11, "color": GREY},
        )  # fmt: skip
    figure.update_xaxes(title=escaped(f"{scores.name} ({scores.unit})"), tickformat=".0%" if percent else None)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escaped(n) for n in names], range=[len(names) - 0.45, -0.55],
        showgrid=False, automargin=True,
    )  # fmt: skip
    figure.update_layout(margin_t=40 + 15 * len(lines) if lines else 25)
    return captioned(figure, scores, "Each dot is a seed; the diamond is their mean, the bar", found)


def curves(curve: Result, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """Scores by training step: each seed a thin line, the mean of an arm a thick one, its interval a band.

    ``curve`` has the axes ``arm``, ``seed`` and ``step``.
    """
    curve = with_axes(curve, "arm", "seed", "step")
    steps = [float(s) for s in curve.coordinates["step"]]
    figure = blank(height=430)
    found: list[Interval | None] = []
    for number, (arm, seeds) in enumerate(zip(curve.coordinates["arm"], curve.values, strict=True)):
        colour, name = COLOURS[number % len(COLOURS)], escaped(str(arm))
        for seed, values in zip(curve.coordinates["seed"], seeds, strict=True):
            figure.add_scatter(
                x=steps, y=values, mode="lines", legendgroup=name, showlegend=False, opacity=0.35,
                line={"color": colour, "width": 1}, hovertemplate=f"{name}, seed {seed}: %{{y:.4f}}<extra></extra>",
            )  # fmt: skip
        ends = [interval_of(values, level, method) for values in seeds.T]
        found += ends
        inside = [i for i, end in enumerate(ends) if end is not None and end.bounded]
        if inside:
            band = [ends[i].low for i in inside] + [ends[i].high for i in reversed(inside)]  # type: ignore[union-attr]
            figure.add_scatter(
                x=[steps[i] for i in (*inside, *reversed(inside))], y=band, fill="toself", mode="none",
                fillcolor=translucent(colour, 0.13), legendgroup=name, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=steps, y=seeds.mean(axis=0), mode="lines", name=name, legendgroup=name,
            line={"color": colour, "width": 3, "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
            hovertemplate=f"{name}, mean: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
    percent = curve.unit == "fraction"
    figure.update_xaxes(title="training step", tickformat=",d")
    figure.update_yaxes(title=escaped(f"{curve.name} ({curve.unit})"), tickformat=".0%" if percent else None)
    figure.update_layout(showlegend=True, hovermode="closest")
    return captioned(figure, curve, "Thin lines are seeds, thick ones their mean, the band", found)


def ablation_map(
    effects: Result,
    *,
    level: float = LEVEL,
    method: Method = "sign_flip",
    sort_heads: bool = True,
) -> go.Figure:
    """Parts by seeds, colours centred at zero, and beside each row the seeds with mean and interval.

    ``effects`` has the axes ``part`` and ``seed``. A head's index means nothing across seeds, so the heads of a layer
    are sorted by their value within each seed, and a row is a rank; hovering names the head. ``sort_heads=False`` keeps
    the parts as they are, for runs that share one start. Undefined cells are hatched and labelled.
    """
    effects = with_axes(effects, "part", "seed")
    rows, values, named = _ranked(effects) if sort_heads else _as_they_are(effects)
    seeds = [str(s) for s in effects.coordinates["seed"]]
    named = [[f"{name}, seed {seed}" for name, seed in zip(row, seeds, strict=True)] for row in named]
    figure = blank(make_subplots(1, 2, shared_yaxes=True, column_widths=[0.62, 0.38], horizontal_spacing=0.03))
    bound = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    figure.add_heatmap(
        z=values, text=named, zmin=-bound, zmax=bound, colorscale=DIVERGING,
        xgap=1.5, ygap=1.5, colorbar={"len": 1, "thickness": 10, "outlinewidth": 0},
        hovertemplate="%{text}: %{z:.4f}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    undefined, missing = effects.is_undefined.any(), effects.is_missing.any()
    _hatch(figure, np.isnan(values), "no value" if undefined and missing else "missing" if missing else "undefined")
    found = [interval_of(row_values, level, method) for row_values in values]
    for row, row_values in enumerate(values):
        figure.add_scatter(
            x=row_values, y=row + 0.14 + spread(len(seeds), 0.08), mode="markers", text=named[row],
            marker={"color": COLOURS[0], "size": 5, "opacity": 0.5},
            hovertemplate="%{text}: %{x:.4f}<extra></extra>", row=1, col=2,
        )  # fmt: skip
        draw_mean(figure, row_values, found[row], COLOURS[0], row - 0.14, rows[row], horizontal=True, column=2)
    figure.add_vline(0, line={"color": GREY, "width": 1}, row=1, col=2)  # type: ignore[arg-type]
    figure.update_xaxes(
        title="seed", tickvals=list(range(len(seeds))), ticktext=seeds, showgrid=False, zeroline=False, row=1, col=1
    )
    figure.update_xaxes(title=escaped(effects.unit), row=1, col=2)
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[escaped(r) for r in rows], range=[len(rows) - 0.5, -0.5],
        showgrid=False, zeroline=False, automargin=True,
    )  # fmt: skip
    title = {"text": escaped(effects.name), "x": 0, "xref": "paper", "font": {"size": 13.5}}
    figure.update_layout(height=150 + (30 if len(rows) <= 14 else 22) * len(rows), margin_t=45, title=title)
    sorting = f"{SORTED} " if sort_heads else ""
    return captioned(
        figure, effects, f"{sorting}At the right each dot is a seed, the diamond their mean, the bar", found
    )


def pattern(attention: Result, tokens: Sequence[str], title: str = "") -> go.Figure:
    """One head's attention on one item: ``attention`` has the axes ``query`` and ``key``, one token name for each."""
    attention = with_axes(attention, "query", "key")
    n = attention.values.shape[0]
    require(len(tokens) >= n, "number of tokens", len(tokens), f"at least {n}, one for each position")
    names = [escaped(f"{tokens[i]}") for i in range(n)]
    values = np.where(np.tril(np.ones((n, n), dtype=bool)), attention.values, np.nan)  # a key after its query: nothing
    places = [[f"query {p} {names[p]}, key {q} {names[q]}" for q in range(n)] for p in range(n)]
    side = min(max(15 * n, 300), 640)
    figure = blank(height=side + 90)
    figure.add_heatmap(
        z=values, text=places, zmin=0, zmax=1, colorscale=SEQUENTIAL, xgap=0.5, ygap=0.5,
        colorbar={"len": 1, "thickness": 10, "outlinewidth": 0}, hovertemplate="%{text}: %{z:.3f}<extra></extra>",
    )  # fmt: skip
    ticks = {
        "tickvals": list(range(n)),
        "ticktext": names,
        "showgrid": False,
        "zeroline": False,
        "tickfont": {"size": 10},
    }
    figure.update_xaxes(title="key", constrain="domain", **ticks)
    figure.update_yaxes(title="query", autorange="reversed", scaleanchor="x", constrain="domain", **ticks)
    figure.update_layout(
        width=side + 170, margin_t=45 if title else 20,
        title={"text": escaped(title), "x": 0, "xref": "paper", "font": {"size": 13.5}},
    )  # fmt: skip
    text = "One head of one seed on one item, so without an interval."
    figure.layout.meta = {"caption": f"{text} Does not show: {attention.what_it_does_not_show}"}  # type: ignore[assignment]
    return figure


def before_after(scores: Result, mask: str, *, level: float = LEVEL, method: Method = "sign_flip") -> go.Figure:
    """Each head's attention on one target before and after training, heads matched by their rank within each seed.

    ``scores`` is what ``analyses.attention.before_after`` returns, ``mask`` the target. The dotted line is the score of
    a head that attends equally to everything it sees.
    """
    names: Mapping[str, Sequence[str]] = scores.metadata.get("heads", {}).get(mask, {})
    uniform = scores.metadata.get("uniform", {}).get(mask)
    scores = with_axes(scores.select(mask=mask), "when", "rank", "seed")
    ranks = scores.coordinates["rank"]
    figure = blank(height=430)
    at = {"before": -0.17, "after": 0.17}
    found = []
    before, after = (scores.select(when=when).values for when in at)
    for rank in range(len(ranks)):
        xs, ys = [], []
        for b, a in zip(before[rank], after[rank], strict=True):
            xs += [rank + at["before"], rank + at["after"], None]
            ys += [b, a, None]
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": GREY, "width": 0.8},
            opacity=0.6,
            hoverinfo="skip",
            showlegend=False,
        )
    for (when, offset), values, colour in zip(at.items(), (before, after), COLOURS, strict=False):
        for rank, seeds in enumerate(values):
            labels = [f"{_head(names, s, rank)} seed {s}, {when}" for s in scores.coordinates["seed"]]
            figure.add_scatter(
                x=np.full(len(seeds), rank + offset), y=seeds, mode="markers", text=labels, name=when, legendgroup=when,
                showlegend=rank == 0, marker={"color": colour, "size": 7, "opacity": 0.65},
                hovertemplate="%{text}: %{y:.3f}<extra></extra>",
            )  # fmt: skip
            found.append(interval_of(seeds, level, method))
            draw_mean(figure, seeds, found[-1], colour, rank + 1.75 * offset, when, horizontal=False)
    if uniform is not None:
        figure.add_hline(
            uniform, line={"color": GREY, "width": 1.2, "dash": "dot"}, annotation_text="uniform attention"
        )
    figure.update_xaxes(
        title="heads of each seed, best first", tickvals=list(range(len(ranks))), ticktext=[f"rank {r}" for r in ranks],
        range=[-0.5, len(ranks) - 0.5], showgrid=False,
    )  # fmt: skip
    figure.update_yaxes(title=escaped(f"{scores.name} {mask!r} ({scores.unit})"), range=[-0.03, 1.05])
    figure.update_layout(showlegend=True)
    return captioned(figure, scores, "Lines join one head of one seed; diamonds are means over seeds, the bar", found)


def _ranked(effects: Result) -> tuple[list[str], np.ndarray, list[list[str]]]:
    """Rows, values [row, seed] and part names [row][seed], the heads of each layer sorted within each seed."""
    rows, values, named = _as_they_are(effects)
    values = values.copy()
    alike: dict[tuple[str, str], list[int]] = {}
    for i, part in enumerate(rows):
        if head := HEAD.fullmatch(part):
            alike.setdefault((head[1], head[2] or ""), []).append(i)
    for (layer, circuit), same in alike.items():
        order = np.argsort(-effects.values[same], axis=0, kind="stable")  # NaN last
        values[same] = np.take_along_axis(effects.values[same], order, axis=0)
        parts = [rows[i] for i in same]
        for rank, i in enumerate(same):
            rows[i] = " ".join(f"{layer} head {circuit}".split()) + f", rank {rank + 1}"
            named[i] = [parts[j] for j in order[rank]]
    return rows, values, named


def _as_they_are(effects: Result) -> tuple[list[str], np.ndarray, list[list[str]]]:
    parts = [str(p) for p in effects.coordinates["part"]]
    return parts, effects.values, [[part] * effects.values.shape[1] for part in parts]


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
            x=middle, y=int(row), text=word, showarrow=False, font={"size": 11, "color": "#22252a"}, bgcolor="#f3f2ee",
            row=1, col=1,
        )  # fmt: skip


def _head(names: Mapping[str, Sequence[str]], seed: Any, rank: int) -> str:
    return f"{names[str(seed)][rank]}," if str(seed) in names else f"rank {rank + 1},"
