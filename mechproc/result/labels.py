"""Labels of axes, and facts about the cells that they name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mechproc.errors import require

MAX_PLACES = 4
"""Places that are named where cells mean nothing for one reason."""
Label = str | int | float
Where = Mapping[str, Label]
"""Cells by their labels: ``{"part": "L0.mlp"}`` is every cell of that part, ``{}`` is every cell."""


def checked_labels(axis: str, labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels of an axis as plain Python values. Errors: ``ConfigError`` unless they are distinct."""
    require(not isinstance(labels, str), f"labels of {axis}", labels, "a list of labels")
    plain = tuple(label.item() if isinstance(label, np.generic) else label for label in labels)
    for label in plain:
        number = isinstance(label, (int, float)) and not isinstance(label, bool) and math.isfinite(label)
        require(number or isinstance(label, str), f"labels of {axis}", label, "texts and finite numbers")
    require(len(plain) > 0, f"labels of {axis}", list(plain), "at least one label")
    twice = next((label for label in plain if plain.count(label) > 1), None) if len(set(plain)) < len(plain) else None
    require(twice is None, f"labels of {axis}", twice, "labels that occur once")
    return plain


def facts_after(
    facts: Sequence[tuple[Where, Any]], axis: str, kept: Sequence[Label], dropped: bool
) -> list[tuple[Where, Any]]:
    """The facts about cells that remain when ``axis`` is cut to ``kept``; without the axis when it is dropped.

    A fact that holds for several of the cells that remain is listed once.
    """
    remaining: list[tuple[Where, Any]] = []
    for where, fact in facts:
        if where.get(axis, kept[0]) in kept:
            entry = ({a: label for a, label in where.items() if a != axis or not dropped}, fact)
            if entry not in remaining:
                remaining.append(entry)
    return remaining


def metadata_of(metadata: Mapping[str, Any], axis: str, label: Label, labels: Sequence[Label]) -> Mapping[str, Any]:
    """The metadata of the cells at ``label``, where ``stack`` kept those of each label under ``metadata[axis]``."""
    by_label = metadata.get(axis)
    if not isinstance(by_label, dict) or set(by_label) != {str(each) for each in labels}:
        return metadata
    if not all(isinstance(each, dict) for each in by_label.values()):
        return metadata
    return {**{key: value for key, value in metadata.items() if key != axis}, **by_label[str(label)]}


def in_words(where: Where) -> str:
    """Cells as text: ``"part L0.mlp, seed 3"``."""
    return ", ".join(f"{axis} {label}" for axis, label in where.items()) or "every cell"


def places_in_words(places: Sequence[Where], most: int = MAX_PLACES) -> str:
    """Cells as text, the first ``most`` of them and how many more there are."""
    more = len(places) - most
    return "; ".join(map(in_words, places[:most])) + (f"; and {more} more places" if more > 0 else "")
