"""What training changed: size, rank and direction of each part's change against the start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses.matrices import finite_state
from analyses.models import Models, by_seed, sized_threads
from analyses.weights.spectra import ranks
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Selection, components, select
from mechproc.model.state import State
from mechproc.result import Result, Where

QUANTITIES = ("norm before", "norm after", "change", "relative change", "cosine", "effective rank of the change",
              "effective rank before")  # fmt: skip
LEFT_OUT = "b_K"
"""Adds the same to the scores of all keys: its gradient is rounding noise, and so is where it ends."""
ACROSS_RESIDUAL = {"W_E": 1, "W_pos": 1, "W_Q": 0, "W_K": 0, "W_V": 0, "W_O": 1, "W_in": 0, "W_out": 1, "W_U": 0}
"""Of each matrix, of two dimensions, the one that is the residual stream."""


@sized_threads
def change(models: Models, starts: Models, parts: Sequence[str] | None = None) -> Result:
    """What changed between ``starts`` and ``models``: axes ``part``, ``quantity`` and ``seed``.

    - ``models``: one for each seed, such as ``load_pretrained(rule, seed)``;
    - ``starts``: the same models at step 0, such as ``load_pretrained(rule, seed, step=0)``;
    - ``parts``: any part expressions; ``None``: embeddings, every head with its QK and OV, every MLP, LayerNorms.

    Quantities, over all numbers of a part but the key biases: the ``norm before`` and ``after`` and of the ``change``
    (Frobenius), the ``relative change`` (change / norm before), the ``cosine`` between before and after (1: the
    direction stayed), and the ``effective rank`` (Roy and Vetterli 2007) of the part's matrices side by side, as
    columns in the residual stream: over how many of its directions the change, or the start, is spread. LayerNorms are
    not folded.
    Undefined are shares of a start of zeros, and ranks of parts without a matrix.

    Errors: ``ConfigError`` for other seeds or shapes in the two, or weights that are not finite; ``PartError`` for
    parts that do not exist.
    """
    after, before = by_seed(models), by_seed(starts)
    require(list(after) == list(before), "starts", list(before), f"one for each of the seeds {list(after)}")
    cfg = ModelConfig.from_dict(next(iter(after.values())).cfg.to_dict())
    ours, theirs = (next(iter(each.values())).cfg.to_dict() for each in (after, before))
    for field, mine in ours.items():
        require(mine == theirs[field], f"{field} of the starts", theirs[field], f"{mine!r}, as of the models")
    rows = change_parts(cfg) if parts is None else list(parts)
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    selections = {part: select(part, cfg) for part in rows}
    old, new = ([finite_state(model, seed) for seed, model in each.items()] for each in (before, after))
    values = np.stack([_measured(*states, selections) for states in zip(old, new, strict=True)], axis=-1)
    undefined: list[tuple[Where, str]] = []
    for row, quantity, column in np.argwhere(np.isnan(values)):
        where = {"part": rows[row], "quantity": QUANTITIES[quantity], "seed": list(after)[column]}
        undefined.append((where, "no matrix, or one of zeros, or a start of zeros"))
    return Result(
        name="change against the start",
        values=values,
        axes=("part", "quantity", "seed"),
        coordinates={"part": rows, "quantity": list(QUANTITIES), "seed": list(after)},
        unit="norms and change: units of weight; relative change, cosine: fractions; ranks: directions",
        direction="higher change, lower cosine: training moved the part further",
        what_it_does_not_show="that what changed is used, or that what stayed is not: parts that nothing reads drift "
        "too, and weight decay shrinks what has no gradient.",
        undefined=undefined,
        metadata={"layernorms": "not folded", "biases": f"included, but for {LEFT_OUT}"},
    )


def change_parts(cfg: ModelConfig) -> list[str]:
    """The usual rows: those of an ablation map with all kinds, LayerNorms, and an unembedding of its own."""
    rows = ["embed", "pos"]
    for part in components(cfg):
        rows += [part] if part.endswith(".mlp") else [part, f"{part}.QK", f"{part}.OV"]
    rows += ["ln"] if cfg.normalization_type == "LN" else []
    return [*rows, *([] if cfg.tied_embeddings else ["unembed"])]


def _measured(old: State, new: State, selections: dict[str, Selection]) -> np.ndarray:
    """Float64 [part, quantity]."""
    rows = []
    for selection in selections.values():
        first, second = (_flat(selection, state) for state in (old, new))
        moved, size = second - first, float(np.linalg.norm(first))
        after_size = float(np.linalg.norm(second))
        cosine = float(first @ second / (size * after_size)) if size * after_size > 0 else np.nan
        relative = float(np.linalg.norm(moved)) / size if size > 0 else np.nan
        columns = [_columns(selection, state) for state in (old, new)]
        found = [np.nan, np.nan]
        if columns[0] is not None and columns[1] is not None:
            spectra = [np.linalg.svd(m, compute_uv=False) for m in (columns[1] - columns[0], columns[0])]
            found = [ranks(s)[1] for s in spectra]
        rows.append([size, after_size, float(np.linalg.norm(moved)), relative, cosine, *found])
    return np.array(rows)


def _flat(selection: Selection, state: dict) -> np.ndarray:
    """All numbers of the part, without key biases."""
    pieces = [piece.view(state).numpy().ravel() for piece in selection if not piece.tensor.endswith(f".{LEFT_OUT}")]
    return np.concatenate(pieces)


def _columns(selection: Selection, state: dict) -> np.ndarray | None:
    """The matrices of the part side by side, [d_model, columns]; ``None`` when it has none."""
    columns = []
    for piece in selection:
        leaf = piece.tensor.rpartition(".")[2]
        if leaf not in ACROSS_RESIDUAL:
            continue
        view = piece.view(state).numpy()
        if view.ndim == 1:  # one neuron
            columns.append(view[:, None])
        else:
            columns.append(view if ACROSS_RESIDUAL[leaf] == 0 else view.T)
    return np.concatenate(columns, axis=1) if columns else None
