"""The spectrum of each matrix of a model: norm, ranks, singular values.

With the singular values s_1 >= s_2 >= ...:

- norm: sqrt(sum s_i^2), Frobenius;
- stable rank: sum s_i^2 / s_1^2 (Rudelson and Vershynin 2007);
- effective rank: exp of the entropy of s_i / sum s (Roy and Vetterli 2007);
- participation ratio: (sum s_i^2)^2 / sum s_i^4;
- copying: of an OV circuit from token to logits, sum of the eigenvalues / sum of their absolute values, from -1 to 1
  (Elhage et al. 2021); 1 where every token raises its own logit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses.matrices import MATRICES, Factors, Matrices, matrix_parts, said_of, singular_values
from analyses.models import Models, by_seed, sized_threads
from mechproc.errors import require
from mechproc.result import Result, Where

MEASURES = ("norm", "stable rank", "effective rank", "participation ratio", "copying")
MAX_VALUES = 16
"""Singular values that are returned, the largest."""
DOES_NOT_SHOW = (
    "whether the part matters: beside a decoy, a head that does the same where nobody reads, the largest norm was that "
    "of the planted head in 11 of 20 planted models (results/analyses/weights/error_rates.json); nor which directions "
    "the matrix reads and writes"
)


@sized_threads
def spectrum(models: Models, parts: Sequence[str] | None = None, *, folded: bool = True) -> Result:
    """Norm, ranks and singular values: axes ``part``, ``matrix``, ``quantity`` and ``seed``.

    - ``parts``: heads, their ``.QK`` or ``.OV``, MLPs, ``embed``, ``pos``, ``unembed``; ``None`` for all of them;
    - ``folded``: whether LayerNorms are folded into the weights that read them.

    A head has the matrices QK and OV, neither of which depends on the basis inside the head; an MLP has W_in and W_out,
    whose values do not depend on the order of its neurons. A matrix that a part does not have is undefined.
    Errors: ``PartError`` for a part without a matrix of its own; ``ConfigError`` for models that do not fit.
    """
    of_seed = by_seed(models)
    all_matrices = [Matrices.of(model, folded, label) for label, model in of_seed.items()]
    cfg = all_matrices[0].cfg
    rows = matrix_parts(cfg) if parts is None else list(parts)
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    had = {part: all_matrices[0].of_part(part) for part in rows}
    columns = [name for name in MATRICES if any(name in matrices for matrices in had.values())]
    n_values = min(MAX_VALUES, max(len(singular_values(f)) for matrices in had.values() for f in matrices.values()))
    quantities = [*MEASURES, *(f"singular value {i + 1}" for i in range(n_values))]
    values = np.full((len(rows), len(columns), len(quantities), len(of_seed)), np.nan)
    for column, matrices in enumerate(all_matrices):
        for row, part in enumerate(rows):
            for name, factors in matrices.of_part(part).items():
                values[row, columns.index(name), :, column] = _quantities(matrices, name, factors, n_values)
    undefined: list[tuple[Where, str]] = [
        ({"part": part, "matrix": name}, f"{part} has no {name}")
        for part in rows
        for name in columns
        if name not in had[part]
    ]
    undefined += _undefined_quantities(values, rows, columns, quantities, list(of_seed), had)
    return Result(
        name="spectrum",
        values=values,
        axes=("part", "matrix", "quantity", "seed"),
        coordinates={"part": rows, "matrix": columns, "quantity": quantities, "seed": list(of_seed)},
        unit="norm and singular values: units of weight; ranks: directions; copying: -1 to 1",
        direction="higher: larger, or spread over more directions; copying: a token raises its own logit",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        undefined=undefined,
        metadata=said_of(all_matrices),
    )


def ranks(s: np.ndarray) -> tuple[float, float, float]:
    """Stable rank, effective rank and participation ratio of these singular values; NaN of a matrix of zeros."""
    s = np.asarray(s, dtype=np.float64)
    if s.size == 0 or s.max() == 0:
        return np.nan, np.nan, np.nan
    s = s / s.max()
    share = s[s > 0] / s.sum()
    return float((s**2).sum()), float(np.exp(-(share * np.log(share)).sum())), float((s**2).sum() ** 2 / (s**4).sum())


def copying(matrices: Matrices, factors: Factors) -> float:
    """Sum of the eigenvalues of W_E W_V W_O W_U over the sum of their absolute values; NaN when all are 0.

    They are those of W_O W_U W_E W_V, [d_head, d_head], and zeros.
    """
    w_v, w_o = factors
    assert w_o is not None
    eigenvalues = np.linalg.eigvals(w_o @ matrices.state["unembed.W_U"] @ matrices.state["embed.W_E"] @ w_v)
    size = np.abs(eigenvalues).sum()
    return float(eigenvalues.real.sum() / size) if size > 0 else np.nan


def _quantities(matrices: Matrices, name: str, factors: Factors, n_values: int) -> np.ndarray:
    s = singular_values(factors)
    tokens = matrices.cfg.input == "tokens"
    found = [np.linalg.norm(s), *ranks(s), copying(matrices, factors) if name == "OV" and tokens else np.nan]
    return np.array([*found, *s[:n_values], *[np.nan] * max(0, n_values - len(s))], dtype=np.float64)


def _undefined_quantities(
    values: np.ndarray, rows: list[str], columns: list[str], quantities: list[str], seeds: list, had: dict
) -> list[tuple[Where, str]]:
    """The cells of matrices that are there, whose quantity means nothing."""
    found: list[tuple[Where, str]] = []
    for row, column, number in np.argwhere(np.isnan(values).any(axis=3)):
        part, name, quantity = rows[row], columns[column], quantities[number]
        if name not in had[part]:
            continue
        where = {"part": part, "matrix": name, "quantity": quantity}
        if quantity.startswith("singular value"):
            found.append((where, "the matrix has fewer singular values that can differ from 0"))
        elif quantity == "copying" and name != "OV":
            found.append((where, "it is defined for OV circuits of models that read tokens"))
        else:
            empty = np.flatnonzero(np.isnan(values[row, column, number]))
            found += [({**where, "seed": seeds[i]}, "all of its values are 0, or it reads no tokens") for i in empty]
    return found
