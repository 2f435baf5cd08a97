"""The attention of several heads on a few items, to look through: CircuitsVis without a network."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from analyses import attention
from analyses.figures.frame import Drawing, page, templates
from analyses.figures.style import shortened, visible
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.files import atomic_write
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items
from mechproc.result import Result

MAX_HEADS = 16
"""Heads in one view, unless they are named."""
MAX_ITEMS = 8
"""Items in one view."""
WINDOW = 64
"""Positions of an item that are drawn unless another window is asked for."""
MAX_WINDOW = 256
HEIGHT = 640
"""Pixels of one item's view."""
MAX_TOKEN = 20
"""Characters of a token that are shown."""


@dataclasses.dataclass(frozen=True)
class ItemAttention:
    """The attention on one item, as far as it is drawn."""

    tokens: list[str]
    patterns: np.ndarray
    """float64 [head, query, key]."""


@dataclasses.dataclass(frozen=True)
class AttentionView:
    """Attention patterns to look through with the mouse. A notebook shows them; ``save`` writes them as one page.

    Both are self-contained and make no network request. ``analyses.report.Report.figure`` takes a view too.
    """

    items: list[ItemAttention]
    heads: list[str]
    caption: str

    def html(self) -> str:
        """The view as a whole HTML document."""
        drawings = self.drawings("item")
        body = templates("analyses.figures").get_template("attention_view.html")
        return page("Attention patterns", Markup(body.render(drawings=drawings, caption=self.caption)), drawings)

    def save(self, path: str | Path) -> None:
        """Write the view as one HTML file, atomically. Errors: ``StoreError``."""
        atomic_write(path, self.html().encode())

    def drawings(self, name: str) -> list[Drawing]:
        """One drawing for each item; their ids begin with ``name``."""
        return [
            Drawing(
                id=f"{name}-{number}",
                library="circuitsvis",
                data={
                    "tokens": item.tokens,
                    "attention": item.patterns,
                    "attentionHeadNames": self.heads,
                    "minValue": -1.0,
                    "maxValue": 1.0,
                    "positiveColor": "#1f5388",
                    "maskUpperTri": False,  # a causal pattern is zero there; grey would be the darkest colour
                },
                height=HEIGHT,
            )
            for number, item in enumerate(self.items, start=1)
        ]

    def _repr_html_(self) -> str:
        height = (HEIGHT + 60) * len(self.items) + 80
        return (
            f'<iframe sandbox="allow-scripts" style="width:100%;height:{height}px;border:0" '
            f'srcdoc="{html.escape(self.html())}"></iframe>'
        )


def attention_view(
    model_or_patterns: HookedTransformer | Result,
    items: Items | None = None,
    token_names: Sequence[str] | None = None,
    *,
    heads: Sequence[str] | None = None,
    start: int = 0,
    window: int = WINDOW,
) -> AttentionView:
    """Every head's attention on a few items, to look through.

    - ``model_or_patterns``: a model, or what ``analyses.attention.patterns`` returned, which needs no ``items``;
    - ``items``: at most ``MAX_ITEMS`` of them are drawn, such as ``task.items(3)``;
    - ``token_names``: the procedure's, ``task.token_names``; without them tokens are shown as numbers;
    - ``heads``: which heads, such as ``["L1.H2"]``; by default the first ``MAX_HEADS``;
    - ``start``, ``window``: the positions that are drawn, ``window`` of them from ``start`` on. A negative ``start``
      counts from the end of each item: ``start=-64`` draws the last 64 positions of a long one.

    The caption says what was left out. Errors: ``ConfigError``.
    """
    require(1 <= window <= MAX_WINDOW, "window", window, f"1 to {MAX_WINDOW} positions")
    if isinstance(model_or_patterns, Result):
        patterns, n_items = model_or_patterns, len(model_or_patterns.coordinates.get("item", ()))
        axes = ("layer", "head", "item", "query", "key")
        require(tuple(patterns.axes) == axes, f"axes of {patterns.name!r}", tuple(patterns.axes), f"{axes}")
    else:
        if items is None:
            raise ConfigError("items is missing: a model needs items to attend to, such as task.items(3)")
        n_items = len(items)
        patterns = attention.patterns(model_or_patterns, items.take(slice(0, MAX_ITEMS)))
    numbers = patterns.metadata["tokens"][:MAX_ITEMS]
    names = [f"L{layer}.H{head}" for layer in patterns.coordinates["layer"] for head in patterns.coordinates["head"]]
    chosen = list(names[:MAX_HEADS] if heads is None else heads)
    for head in chosen:
        if head not in names:
            raise ConfigError(f"head {head!r} is not in these patterns{nearest(head, names)}")
    of_head = patterns.values.reshape(-1, *patterns.values.shape[2:])[[names.index(head) for head in chosen]]
    drawn, cut = [], []
    known = [int(position) for position in patterns.coordinates["query"]]
    require(known == list(patterns.coordinates["key"]), "keys", patterns.coordinates["key"], f"the queries, {known}")
    for number, tokens in enumerate(numbers):
        least = len(tokens) + start if start < 0 else start
        rows = [row for row, position in enumerate(known) if least <= position < len(tokens)][:window]
        require(bool(rows), "start", start, f"a position of item {number}, which has {len(tokens)} tokens")
        first, last = known[rows[0]], known[rows[-1]]
        pattern = of_head[:, number][:, rows][:, :, rows]
        require(bool(np.isfinite(pattern).all()), f"attention on item {number}", "NaN or infinity", "finite numbers")
        shown = [_token(tokens[known[row]], token_names) for row in rows]
        if first > 0:  # CircuitsVis counts from 0 on
            shown = [f"{known[row]}: {token}" for row, token in zip(rows, shown, strict=True)]
        drawn.append(ItemAttention(shown, pattern))
        if len(rows) < len(tokens):
            cut.append(f"Of item {number}, positions {first} to {last} of {len(tokens)} are drawn.")
    sentences = [f"Attention of {len(chosen)} heads on {len(drawn)} item{'s' if len(drawn) > 1 else ''} of one model."]
    if n_items > len(drawn):
        sentences.append(f"The first {len(drawn)} of {n_items} items are drawn.")
    if heads is None and len(names) > len(chosen):
        sentences.append(f"The first {len(chosen)} of {len(names)} heads are drawn.")
    sentences += [*cut, *(["Attention on other positions is not drawn."] if cut else [])]
    end = patterns.what_it_does_not_show.rstrip(".")
    sentences.append(f"One model and single items illustrate; they are no evidence. Does not show: {end}.")
    return AttentionView(drawn, chosen, " ".join(sentences))


def _token(number: int, names: Sequence[str] | None) -> str:
    if names is None:
        return str(number)
    require(0 <= number < len(names), "token_names", f"{len(names)} names", f"a name for token {number}")
    return shortened(visible(str(names[number])), MAX_TOKEN)
