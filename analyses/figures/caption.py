"""Title, warnings and caption of a figure, drawn into the figure itself: a saved figure is complete."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from analyses.figures.style import GREY, wrapped
from mechproc.result import Result
from mechproc.result.references import reference_scores

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
    top = 20 + 17 * len(heading) + 10 + above
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
            "y": 1, "yref": "container", "yanchor": "top", "pad": {"l": 10, "t": 16},
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


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _coloured(line: str, colour: str) -> str:
    return f'<span style="font-size:11px;color:{colour}">{line}</span>'
