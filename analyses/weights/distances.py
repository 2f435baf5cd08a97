"""Distances between models at each layer-level part, by what is measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from analyses.matrices import Matrices
from analyses.weights.activations import NO_LN, linear_cka, observed
from analyses.weights.features import FEATURES, distance
from analyses.weights.matching import check_same_shape, laid_over, part_distances
from analyses.weights.population import Member
from mechproc.errors import ConfigError, require
from mechproc.procedures.base import Items

Measure = Literal["spectrum", "norm", "composition", "matched", "activations"]
UNITS: dict[str, str] = {
    "spectrum": "root mean square difference of singular values of matrices of norm 1",
    "norm": "root mean square difference of log norms",
    "composition": "root mean square difference of composition scores",
    "matched": "1 - cosine of matched parts",
    "activations": "1 - linear CKA",
}
"""The measures, and the units of their distances."""
NOT_SHOWN = {
    "spectrum": "which directions a part reads or writes, or what it computes; scales of whole matrices are left out",
    "norm": "anything but scale, which follows how long and at which learning rate a model was trained",
    "composition": "what is written or read in an item; patterns, biases and LayerNorms' scales are left out",
    "matched": "differences of function: parts that do the same in directions that could not be laid over each other "
    "count as different",
    "activations": "what the parts do on other items, or that the models compute differently",
}
NOT_DEFINED = {
    "composition": "LayerNorms neither write nor read a matrix",
    "matched": "folded LayerNorms are part of what reads them",
    "activations": NO_LN,
}
"""Why a measure has no row for LayerNorms."""


def pairwise(members: Sequence[Member], rows: Sequence[str], measure: str, items: Items | None) -> np.ndarray:
    """Symmetric distances [row, model, model]; NaN in a row where the measure is not defined.

    Errors: ``ConfigError`` for an unknown measure, or where the models or items do not fit it.
    """
    check_measure(measure, items)
    if measure == "matched":
        return _matched(members, rows)
    if measure == "activations":
        assert items is not None
        return _activations(members, rows, items)
    matrices = [Matrices.of(member.model, seed=member.name) for member in members]
    found = np.full((len(rows), len(members), len(members)), np.nan)
    for row, part in enumerate(rows):
        units = [FEATURES[measure](each, part) for each in matrices]
        known = [each for each in units if each is not None]
        if len(known) == len(units):
            shapes = {each.shape for each in known}
            if len(shapes) > 1:
                raise ConfigError(f"{measure} of {part}: models differ in shape, {sorted(shapes)}")
            found[row] = _symmetric(len(units), lambda i, j, known=known: distance(known[i], known[j]))
    return found


def check_measure(measure: str, items: Items | None) -> None:
    """Raise a ``ConfigError`` for an unknown measure, and for items that it lacks or does not take."""
    require(measure in UNITS, "measure", measure, f"one of {', '.join(UNITS)}")
    wanted = measure == "activations"
    given = "none" if items is None else f"{len(items)} items"
    allowed = "items that every model reads, for activations" if wanted else "None: weights are compared"
    require((items is not None) == wanted, "items", given, allowed)


def _symmetric(n: int, of: Callable[[int, int], float]) -> np.ndarray:
    found = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        found[i, j] = found[j, i] = of(i, j)
    return found


def _matched(members: Sequence[Member], rows: Sequence[str]) -> np.ndarray:
    matrices = [Matrices.of(member.model, seed=member.name) for member in members]
    for other in matrices[1:]:
        check_same_shape(matrices[0], other)
    found = np.zeros((len(rows), len(members), len(members)))
    for i, j in itertools.combinations(range(len(members)), 2):
        by_part = part_distances(matrices[i], matrices[j], laid_over(matrices[i], matrices[j]))
        for row, part in enumerate(rows):
            found[row, i, j] = found[row, j, i] = _of_layer(by_part, part)
    found[[row for row, part in enumerate(rows) if part == "ln"]] = np.nan
    return found


def _of_layer(by_part: dict[str, float], part: str) -> float:
    """The mean over the parts that a layer-level part is made of."""
    if part == "ln":
        return np.nan
    if part.endswith(".attn"):
        layer = part.removesuffix("attn")
        return float(np.mean([d for name, d in by_part.items() if name.startswith(f"{layer}H")]))
    return by_part[part] if part in by_part else float(np.mean([by_part["embed"], by_part["pos"]]))


def _activations(members: Sequence[Member], rows: Sequence[str], items: Items) -> np.ndarray:
    parts = [part for part in rows if part != "ln"]
    recorded = [observed(member.model, items, parts, member.name) for member in members]
    found = np.full((len(rows), len(members), len(members)), np.nan)
    for row, part in enumerate(rows):
        if part in parts:
            xs = [each[part] for each in recorded]
            found[row] = _symmetric(len(xs), lambda i, j, xs=xs: 1 - linear_cka(xs[i], xs[j]))
    return found
