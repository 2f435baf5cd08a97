"""Each head's attention on one target before and after a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analyses.figures.caption import finish
from analyses.figures.means import LEVEL, draw_mean, interval_of, interval_sentence, most_seeds, with_axes
from analyses.figures.style import COLOURS, GREY, blank, escaped
from mechproc.result import Result
from mechproc.statistics.paired import Method

OFFSETS = {"before": -0.17, "after": 0.17}


def before_after(
    scores: Result,
    mask: str,
    heads: Mapping[Any, Sequence[str]] | None = None,
    *,
    level: float = LEVEL,
    method: Method = "sign_flip",
) -> go.Figure:
    """Each head's attention on one target before and after training, heads matched by their rank within each seed.

    ``scores`` is what ``analyses.attention.before_after`` returns, ``mask`` the target. ``heads``: the heads of each
    seed by rank, as ``analyses.attention.match_heads`` gives them for the side that was ranked by; points are then
    labelled with their heads. The dotted line is the score of a head that attends equally to every position that it
    can see.
    """
    uniform = scores.metadata.get("uniform", {}).get(mask)
    scores = with_axes(scores.select(mask=mask), "when", "rank", "seed")
    ranks = scores.coordinates["rank"]
    figure = blank()
    before, after = (scores.select(when=when).values for when in OFFSETS)
    for rank in range(len(ranks)):
        xs, ys = [], []
        for b, a in zip(before[rank], after[rank], strict=True):
            xs += [rank + OFFSETS["before"], rank + OFFSETS["after"], None]
            ys += [b, a, None]
        figure.add_scatter(
            x=xs, y=ys, mode="lines", line={"color": GREY, "width": 0.8}, opacity=0.6, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    intervals = []
    for (when, offset), values, colour in zip(OFFSETS.items(), (before, after), COLOURS, strict=False):
        for rank, seeds in enumerate(values):
            labels = [escaped(f"{_head(heads or {}, s, rank)}, seed {s}, {when}") for s in scores.coordinates["seed"]]
            figure.add_scatter(
                x=np.full(len(seeds), rank + offset), y=seeds, mode="markers", text=labels, name=when, legendgroup=when,
                showlegend=rank == 0, marker={"color": colour, "size": 7, "opacity": 0.65},
                hovertemplate="%{text}: %{y:.3f}<extra></extra>",
            )  # fmt: skip
            intervals.append(interval_of(seeds, level, method))
            draw_mean(figure, seeds, intervals[-1], colour, rank + 1.75 * offset, when, horizontal=False)
    if uniform is not None:
        figure.add_hline(
            uniform, line={"color": GREY, "width": 1.2, "dash": "dot"}, annotation_text="uniform attention"
        )
    figure.update_xaxes(
        title="rank of the head in its seed", tickvals=list(range(len(ranks))), ticktext=[str(r) for r in ranks],
        range=[-0.5, len(ranks) - 0.5], showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(title=escaped(f"{scores.name} {mask!r} ({scores.unit})"), range=[-0.03, 1.05])
    figure.update_layout(showlegend=True)
    n_seeds = len(scores.coordinates["seed"])
    marks = "Lines join one head of one seed; diamonds are means over seeds, the bar"
    sentences = [f"{n_seeds} seeds.", interval_sentence(marks, n_seeds, intervals, most_seeds(scores.values))]
    if scores.is_missing.any():
        sentences.append("Where a seed is missing there is neither mean nor interval.")
    if uniform is not None:
        sentences.append(f"Dotted line: uniform attention, {uniform:.3f}.")
    return finish(figure, scores, sentences, plot_height=350, above=24)


def _head(heads: Mapping[Any, Sequence[str]], seed: Any, rank: int) -> str:
    return heads[seed][rank] if seed in heads else f"rank {rank + 1}"
