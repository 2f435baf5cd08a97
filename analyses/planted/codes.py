"""Vectors of equal length that planted models write: spherical codes, circles, arcs, and a basis to write them in."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct


def spherical_code(n: int, dim: int, rng: np.random.Generator, steps: int = 300) -> np.ndarray:
    """``n`` unit vectors far apart from each other, float64 [n, dim], in a random orientation.

    They repel each other by gradient descent on log sum exp of their cosines, sharper from step to step, so that the
    nearest pairs count most.
    """
    code = _unit(rng.normal(size=(n, dim)))
    if n == 1:
        return code
    for step in range(steps):
        sharpness = 4.0 * 50.0 ** (step / steps)
        cosines = code @ code.T
        np.fill_diagonal(cosines, -np.inf)
        weights = np.exp(sharpness * (cosines - cosines.max()))
        push = weights @ code
        push -= (push * code).sum(1, keepdims=True) * code
        longest = np.linalg.norm(push, axis=1).max()
        code = _unit(code - 0.3 * (1 - step / steps) ** 2 * push / max(longest, 1e-12))
    return code


def gap(code: np.ndarray) -> float:
    """One minus the largest cosine of two different vectors of a code: the margin by which each matches itself best."""
    cosines = code @ code.T
    np.fill_diagonal(cosines, -1.0)
    return float(1 - cosines.max())


def circle(n: int) -> np.ndarray:
    """``n`` equally spaced unit vectors, float64 [n, 2]: turning by ``turn(n, k)`` goes on by ``k`` of them."""
    angles = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def turn(n: int, k: int) -> np.ndarray:
    """The matrix [2, 2] with ``circle(n)[i] @ turn(n, k) == circle(n)[i + k]``."""
    angle = 2 * np.pi * k / n
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def arc(n: int, half_angle: float = np.pi / 3) -> np.ndarray:
    """``n`` unit vectors on an arc, float64 [n, 2]; the second coordinate increases from first to last."""
    angles = np.linspace(-half_angle, half_angle, n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def residual_basis(d_model: int) -> np.ndarray:
    """An orthonormal basis in rows, float64 [d_model, d_model], whose first row is the all-ones direction.

    What is written along the first row is removed by every LayerNorm's mean subtraction, which leaves the others alone.
    """
    return np.asarray(dct(np.eye(d_model), axis=0, norm="ortho"))


def random_rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix, float64 [dim, dim], uniform (QR of normals with the signs of R's diagonal)."""
    q, r = np.linalg.qr(rng.normal(size=(dim, dim)))
    return q * np.sign(np.diag(r))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
