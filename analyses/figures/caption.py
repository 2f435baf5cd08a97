"""Title, warnings and caption of a figure, drawn into the figure itself: a saved figure is complete."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from analyses.figures.style import GREY, wrapped
from mechproc.result import Result

WARNING = "#c4513f"
CHARACTERS = 112
"""Characters in a line of the caption; a figure of the usual width of 700 pixels has room for them."""
LINE = 15
"""Height of a line of the caption, in pixels."""


def finish(
    figure: go.Figure,
    result: Result,
    sentences: list[str],
    *,
    plot_height: int,
    left: int = 60,
    right: int = 40,
    above: int = 0,
    below: int = 62,
    title: str = "",
    characters: int = CHARACTERS,
) -> go.Figure:
    """The figure with title, warnings, reference scores and caption, and the margins that they need.

    ``sentences`` say what is drawn; the direction of ``result`` and what it does not show follow. ``plot_height``,
    ``left``, ``right``, ``above`` and ``below`` are the pixels of the plot and of what stands directly beside it. The
    caption as plain text is in ``figure.layout.meta["caption"]``; a report prints it below the figure instead.
    """
    warnings = [f"Warning: {_ended(sentence)}" for sentence in result.warnings]
    references = reference_scores(result)
    heading = [f"<b>{line}</b>" for line in wrapped(title or result.title, characters - 25)]
    heading += [_coloured(line, WARNING) for warning in warnings for line in wrapped(warning, characters)]
    heading += [_coloured(line, GREY) for sentence in references for line in wrapped(sentence, characters)]
    end = [f"{result.direction[0].upper()}{_ended(result.direction[1:])}"]
    end += [f"Does not show: {_ended(result.what_it_does_not_show)}"]
    caption = " ".join([*warnings, *references, *sentences, *end])
    drawn = wrapped(" ".join([*sentences, *end]), characters)
    caption_height = LINE * len(drawn) + 12
    top = 16 + 17 * len(heading) + 10 + above
    figure.add_annotation(
        name="caption", text="<br>".join(drawn), showarrow=False, align="left", font={"size": 11, "color": GREY},
        xref="paper", x=0, xanchor="left", xshift=10 - left,
        yref="paper", y=0, yanchor="top", yshift=-below,
    )  # fmt: skip
    figure.update_layout(
        height=top + plot_height + below + caption_height,
        margin={"l": left, "r": right, "t": top, "b": below + caption_height, "autoexpand": False},
        title={
            "text": "<br>".join(heading), "font": {"size": 13.5}, "x": 0, "xref": "container", "xanchor": "left",
            "y": 1, "yref": "container", "yanchor": "top", "pad": {"l": 10, "t": 12},
        },
        meta={"caption": caption, "caption_height": caption_height},
    )  # fmt: skip
    return figure


def without_caption(figure: go.Figure) -> dict[str, Any]:
    """The figure as plain data without the caption that ``finish`` drew into it, for a page that prints it as text."""
    plain = figure.to_dict()
    layout = dict(plain.get("layout", {}))
    height = (layout.get("meta") or {}).get("caption_height")
    if height is not None:
        layout["annotations"] = [a for a in layout.get("annotations", ()) if a.get("name") != "caption"]
        layout["height"] = layout["height"] - height
        layout["margin"] = {**layout["margin"], "b": layout["margin"]["b"] - height}
    return {**plain, "layout": layout}


def reference_scores(result: Result) -> list[str]:
    """What the scores are to be held against, where ``result.metadata`` has it: one sentence, or none.

    Read are ``intact`` (the score of the whole model, by seed), ``ceiling`` (the best attainable score) and
    ``baselines`` (by name, the scores of predictors that do not know the rule).
    """
    metric = str(result.metadata.get("metric", "accuracy"))
    parts = []
    intact = result.metadata.get("intact")
    if isinstance(intact, dict) and intact:
        scores = [float(score) for score in intact.values()]
        low, high = (spelled_score(score, result.unit) for score in (min(scores), max(scores)))
        parts.append(f"intact {metric} {low}" if low == high else f"intact {metric} {low} to {high}")
    for name, score in reference_lines(result).items():
        what, _, which = name.partition(": ")
        parts.append(f"{what} {spelled_score(score, result.unit)}{f' ({which})' if which else ''}")
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def reference_lines(result: Result) -> dict[str, float]:
    """The ceiling and the best baseline by name, where ``result.metadata`` has them."""
    lines = {}
    if isinstance(ceiling := result.metadata.get("ceiling"), (int, float)):
        lines["best attainable"] = float(ceiling)
    baselines = result.metadata.get("baselines")
    if isinstance(baselines, dict) and baselines:
        lowest = result.metadata.get("metric") == "loss"
        best = (min if lowest else max)(baselines, key=lambda name: baselines[name])
        lines[f"best baseline: {best}"] = float(baselines[best])
    return lines


def spelled_score(score: float, unit: str) -> str:
    """A score with its unit; fractions in percent."""
    return f"{100 * score:.1f} %" if unit == "fraction" else f"{score:.4g} {unit}"


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _coloured(line: str, colour: str) -> str:
    return f'<span style="font-size:11px;color:{colour}">{line}</span>'
