"""What of a model's weights means the same in models of different starts: features that no change of basis moves.

Each layer-level part is a list of units: heads, or the part as a whole. A unit has a vector of features, which depends
neither on the basis inside a head, nor on the order of neurons, nor (with LayerNorms folded) on the basis of the
residual stream. The order of heads is undone by assignment: units of two models are matched so that the sum of squared
differences is least (``scipy.optimize.linear_sum_assignment``). The distance of two models at a part is the root mean
square of the differences that remain.

- ``spectrum``: singular values, divided by their norm: QK and OV of each head; W_in and W_out; W_E and W_pos (and W_U
  where it is no transpose); the gains of each LayerNorm, sorted, which are the singular values of its diagonal matrix;
- ``norm``: natural logarithms of the Frobenius norms of the same matrices;
- ``composition``: composition scores (Elhage et al. 2021) of all earlier parts with each head's Q, K and V, with the
  MLP's input, or with the logits; heads of one earlier layer in the order of their scores, as their own order means
  nothing. LayerNorms have none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

from analyses.matrices import Factors, Matrices, singular_values
from analyses.weights.composition import scores
from mechproc.errors import require

Units = np.ndarray
"""Features of the units of one part, float64 [unit, feature]."""
TINY = 1e-12
"""Norms below are taken for this, so that the logarithm of a part of zeros is finite."""


def spectrum(matrices: Matrices, part: str) -> Units | None:
    """Singular values divided by their norm; each matrix counts alike."""
    if part == "ln":
        return _joined([_shares(np.sort(np.abs(g))[::-1]) for g in matrices.gains]) if matrices.gains else None
    units = _units(matrices, part)
    return np.stack([_joined([_shares(_values(f, matrices.cfg.d_model)) for f in unit])[0] for unit in units])


def norm(matrices: Matrices, part: str) -> Units | None:
    """Logarithms of Frobenius norms."""
    if part == "ln":
        return np.array([[_log_norm(g) for g in matrices.gains]]) if matrices.gains else None
    return np.array([[_log_norm(singular_values(f)) for f in unit] for unit in _units(matrices, part)])


def composition(matrices: Matrices, part: str) -> Units | None:
    """Composition scores with everything earlier."""
    if part == "ln":
        return None
    return _composition_rows(scores(matrices), part)


FEATURES: dict[str, Callable[[Matrices, str], Units | None]] = {
    "spectrum": spectrum,
    "norm": norm,
    "composition": composition,
}


def distance(first: Units, second: Units) -> float:
    """The root mean square of the differences between units that are matched so that it is least."""
    order = matched(first, second)
    return float(np.sqrt(((first - second[order]) ** 2).mean()))


def matched(first: Units, second: Units) -> np.ndarray:
    """For each unit of ``first`` the unit of ``second`` that it is matched with, int64 [unit]."""
    require(first.shape == second.shape, "shape of features", second.shape, f"{first.shape}, as in the other model")
    if len(first) == 1:
        return np.zeros(1, dtype=np.int64)
    costs = ((first[:, None] - second[None]) ** 2).sum(axis=2)
    return linear_sum_assignment(costs)[1]


def _units(matrices: Matrices, part: str) -> list[list[Factors]]:
    """The matrices of each unit of a layer-level part."""
    if part.endswith(".attn"):
        heads = [f"{part.removesuffix('.attn')}.H{h}" for h in range(matrices.cfg.n_heads)]
        return [list(matrices.of_part(head).values()) for head in heads]
    pieces = [matrices.of_part(word.strip()) for word in part.split("+")]
    return [[factors for piece in pieces for factors in piece.values()]]


def _values(factors: Factors, d_model: int) -> np.ndarray:
    """Singular values; those of a table with fewer rows than the residual stream is wide end in zeros."""
    s = singular_values(factors)
    return np.pad(s, (0, d_model - len(s))) if factors[1] is None else s


def _shares(values: np.ndarray) -> np.ndarray:
    size = float(np.linalg.norm(values))
    return values / size if size > 0 else values


def _joined(blocks: list[np.ndarray]) -> Units:
    """One unit. Each block is scaled by the root of its length, so that a mean square over features counts blocks alike
    and the distance of two unit vectors does not depend on how many values there are."""
    longest = max(map(len, blocks))
    padded = [np.pad(block, (0, longest - len(block))) for block in blocks]
    return np.sqrt(longest) * np.concatenate(padded)[None]


def _log_norm(values: np.ndarray) -> float:
    return float(np.log(max(np.linalg.norm(values), TINY)))


def _composition_rows(found: dict[tuple[str, str, str], float], part: str) -> Units:
    if part.startswith("embed"):
        return np.array([_ordered({w: s for (w, r, _), s in found.items() if r == "unembed"})])
    if part.endswith(".mlp"):
        return np.array([_ordered({w: s for (w, r, _), s in found.items() if r == part})])
    heads = sorted({r for _, r, _ in found if r.startswith(f"{part.removesuffix('attn')}H")})
    return np.array(
        [
            [s for i in "QKV" for s in _ordered({w: s for (w, r, name), s in found.items() if (r, name) == (head, i)})]
            for head in heads
        ]
    )


def _ordered(by_writer: dict[str, float]) -> list[float]:
    """Scores by writer; heads of one layer from the highest score to the lowest."""
    groups: dict[str, list[float]] = {}
    for writer, score in by_writer.items():
        groups.setdefault(writer.split(".H")[0] if ".H" in writer else writer, []).append(score)
    return [score for group in groups.values() for score in sorted(group, reverse=True)]
