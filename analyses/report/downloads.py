"""What can be downloaded from a page: the numbers of its figures and tables as CSV, packed into the page."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses.figures.attention_view import AttentionView
from analyses.figures.frame import plain
from analyses.figures.svg.elements import plain_text
from mechproc.result import Result

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


def packed(table: pd.DataFrame) -> str:
    """A table as CSV, gzipped, in base64; the page's script unpacks it."""
    text = table.to_csv(index=False, lineterminator="\n")
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()


def rows_of(source: Result | pd.DataFrame | AttentionView | list[go.Figure]) -> pd.DataFrame:
    """One row for each number: of a Result with its axes, of a view with its tokens, of a figure with its marks."""
    import pandas as pd

    if isinstance(source, Result):
        return source.table()
    if isinstance(source, AttentionView):
        return pd.DataFrame(_attention(source), columns=list(ATTENTION))
    if isinstance(source, pd.DataFrame):
        return source
    return pd.DataFrame([row for figure in source for row in _marks(plain(figure.to_plotly_json()))])


ATTENTION = ("item", "head", "query", "query token", "key", "key token", "attention")


def _attention(view: AttentionView) -> list[tuple[Any, ...]]:
    rows = []
    for number, item in enumerate(view.items):
        for head, pattern in zip(view.heads, item.patterns, strict=True):
            for query, key in np.argwhere(pattern > 0).tolist():
                places = (query, item.tokens[query], key, item.tokens[key])
                rows.append((number, head, *places, round(float(pattern[query, key]), 6)))
    return rows


def _marks(figure: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each mark of a figure whose numbers are not at hand: what it says on hovering, and where it is."""
    rows = []
    for trace in figure["data"]:
        if trace.get("type") == "heatmap":
            texts = trace.get("text") or trace.get("customdata") or [[""] * len(row) for row in trace["z"]]
            cells = [
                (t, v) for names, row in zip(texts, trace["z"], strict=True) for t, v in zip(names, row, strict=True)
            ]
            rows += [{"mark": plain_text(str(text)), "value": value} for text, value in cells]
        elif trace.get("hoverinfo") != "skip":
            texts = trace.get("text") or trace.get("hovertext") or trace.get("name") or ""
            each = [texts] * len(trace["x"]) if isinstance(texts, str) else texts
            rows += [{"mark": plain_text(str(t)), "x": x, "y": y}
                     for t, x, y in zip(each, trace["x"], trace["y"], strict=True)]  # fmt: skip
    return rows
