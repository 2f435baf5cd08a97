"""What the heads of a model look at, on minimal pairs, with readable tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses import attention, figures
from analyses.figures.attention_view import WINDOW
from analyses.report.document import Report
from mechproc.errors import ConfigError
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures import Procedure
from mechproc.procedures.base import Items
from mechproc.result import Result

N_PAIRS = 1
"""Pairs of each page."""
LAST = 20
"""Positions of a pattern in the evidence on a head."""


def add(page: Report, model: HookedTransformer, procedure: Procedure) -> None:
    """Attention on both sides of a minimal pair, to look through, and each head's pattern as evidence on it.

    A procedure without minimal pairs has a test item alone; a model that reads vectors has no tokens to show.
    """
    if model.cfg.input != "tokens":
        return
    sides = _items(procedure)
    page.heading("What the heads look at")
    names = procedure.token_names
    for side, items in sides.items():
        patterns = attention.patterns(model, items)
        start = max(0, int(items.n_tokens.max()) - WINDOW)
        page.figure(figures.attention_view(patterns, token_names=names, start=start), f"{side}.")
        _evidence(page, patterns, names, side)


def _items(procedure: Procedure) -> dict[str, Items]:
    """The clean and the corrupt item of a minimal pair, by what they are; else a test item."""
    for kind in procedure.pair_kinds:
        try:
            clean, corrupt = procedure.minimal_pairs(kind, N_PAIRS)
        except ConfigError:
            continue  # with these settings there are no such pairs
        one = slice(0, N_PAIRS)
        return {f"Minimal pair '{kind}', clean": clean.take(one), f"Minimal pair '{kind}', corrupt": corrupt.take(one)}
    return {"A test item": procedure.items(1)}


def _evidence(page: Report, patterns: Result, names: Sequence[str], side: str) -> None:
    numbers = patterns.metadata["tokens"][0]
    tokens: list[str] = [names[int(number)] for number in numbers]
    shown = list(range(max(0, len(tokens) - LAST), len(tokens)))
    cut = f", its last {LAST} positions" if len(tokens) > LAST else ""
    for layer in patterns.coordinates["layer"]:
        for head in patterns.coordinates["head"]:
            one = patterns.select(layer=layer, head=head, item=0, query=shown, key=shown)
            if np.isfinite(one.values).all():
                drawn = figures.attention_pattern(one, tokens)
                page.about(f"L{layer}.H{head}").figure(drawn, f"Attention. {side}{cut}.")
