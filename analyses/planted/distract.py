"""Weights of heads and MLPs that do nothing for the task, with the norms of those that do."""

from __future__ import annotations

import numpy as np

from mechproc.model.config import ModelConfig

HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
MLP = ("W_in", "W_out", "b_in", "b_out")
Norms = dict[str, list[dict[str, float]]]
"""For ``head`` and ``mlp``, the Frobenius norms of the tensors of each part that does something."""


def head_norms(references: Norms, cfg: ModelConfig, rng: np.random.Generator) -> dict[str, float]:
    """The norms of a distractor: those of one of the heads that do something; where there is none, those of a head with
    scores of deviation 3 nats and a write of norm 1."""
    if references["head"]:
        return references["head"][rng.integers(len(references["head"]))]
    width = float(cfg.d_head or 1)
    attends, moves = float(np.sqrt(3 * width)), float(width**0.25)
    return dict(zip(HEAD, (attends, attends, moves, moves, 1.0, 1.0, 1.0), strict=True))


def mlp_norms(references: Norms, cfg: ModelConfig, rng: np.random.Generator) -> dict[str, float]:
    """The norms of a distractor: those of one of the MLPs that do something; where there is none, those of an MLP whose
    hidden activations have a deviation of about 1."""
    if references["mlp"]:
        return references["mlp"][rng.integers(len(references["mlp"]))]
    width = float(np.sqrt(cfg.d_mlp or 1))
    return dict(zip(MLP, (2 * width, width / 2, width, 0.0), strict=True))


def random_of_norm(
    shape: tuple[int, ...], norm: float, rng: np.random.Generator, unread: np.ndarray | None
) -> np.ndarray:
    """Normal numbers of this Frobenius norm; nothing is read along the unit vector ``unread`` [shape[0]]."""
    drawn = rng.normal(size=shape)
    if unread is not None:
        drawn -= np.outer(unread, unread @ drawn)
    return norm * drawn / np.linalg.norm(drawn)


def fine_writer(hidden: np.ndarray, direction: np.ndarray, norm: float) -> np.ndarray:
    """Output weights [neuron, d_model] of Frobenius norm ``norm`` for an MLP that writes vectors of mean square norm 1.

    Weights fitted to a task are large where hidden activations hardly vary; random ones of the same norm would write
    many times more. So the random weights ``direction`` [neuron, d_model] are split by the principal axes of the hidden
    activations [row, neuron]: the upper half is scaled to the write, the lower half to what is left of the norm.
    """
    centred = hidden - hidden.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    half = len(axes) // 2
    fine, coarse = (axes[:, part] @ axes[:, part].T @ direction for part in (slice(half), slice(half, None)))
    coarse = coarse / np.sqrt(((centred @ coarse) ** 2).sum(1).mean())
    left = norm**2 - float(np.linalg.norm(coarse)) ** 2
    return coarse + np.sqrt(max(left, 0.0)) * fine / np.linalg.norm(fine)
