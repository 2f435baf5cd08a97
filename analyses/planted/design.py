"""What a planted model computes, before it becomes weights: heads and MLPs in directions of the residual stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from analyses.interventions.items import Pairs
from analyses.planted.codes import circle, gap, residual_basis, turn
from analyses.planted.roles import Role
from mechproc.errors import require
from mechproc.procedures.base import Items, Procedure

BALLAST = 3.0
"""What every position has along one axis, in units of a code's length: it keeps LayerNorm's scale nearly constant."""
SHARPNESS = 12.0
"""By how many nats a head's right key exceeds every other one."""
ANY = "any item"
"""The contrast of an item with another one of its layout: what ablations ask."""


class Axes:
    """The axes of a residual stream that a design has not used yet, all orthogonal to the all-ones direction."""

    def __init__(self, d_model: int) -> None:
        basis = residual_basis(d_model)
        self.ones, self._rows, self._used = basis[0], basis[1:], 0

    def take(self, n: int) -> np.ndarray:
        """The next ``n`` axes, float64 [n, d_model], orthonormal rows."""
        left = len(self._rows) - self._used
        require(n <= left, "d_model", len(self.ones), f"wide enough for the design: {n} more axes, {left} left")
        self._used += n
        return self._rows[self._used - n : self._used]

    @property
    def free(self) -> np.ndarray:
        """The axes that nothing reads and nothing writes, float64 [n, d_model]."""
        return self._rows[self._used :]


@dataclasses.dataclass(frozen=True)
class Channel:
    """A term of a head's score: the product of what queries and keys read, in units of the softmax (nats)."""

    queries: np.ndarray
    """float64 [r, d_model]."""
    keys: np.ndarray
    """float64 [r, d_model]."""


def match(queries: np.ndarray, keys: np.ndarray, strength: float) -> Channel:
    """Score ``strength * <query code, key code>``; both [r, d_model]."""
    return Channel(np.sqrt(strength) * queries, np.sqrt(strength) * keys)


def prefer(ballast: np.ndarray, best: float, **kinds: tuple[np.ndarray, float]) -> Channel:
    """Score of a key by what it is, whatever the query: the sum of ``strength`` times what it has along ``direction``.

    ``kinds`` are (direction [d_model], strength). ``best`` is subtracted from every score, so that the key that should
    win has a score near 0: what other parts write changes LayerNorm's scale, and with it all scores by a factor, which
    a margin between large scores would not survive. Both that and the query's constant are read from the ballast.
    """
    constant = ballast / BALLAST
    keys = sum((strength * direction for direction, strength in kinds.values()), -best * constant)
    size = np.sqrt(np.linalg.norm(keys) / np.linalg.norm(constant))
    return Channel(size * constant[None], keys[None] / size)


def looks_back(place: np.ndarray, ballast: np.ndarray, n_pos: int, offset: int) -> tuple[Channel, Channel]:
    """Scores that are highest at the key ``offset`` places before the query, by ``SHARPNESS`` at least.

    ``place`` are the two axes of a circle of ``n_pos`` positions.
    """
    strength = look_back_strength(n_pos)
    return match(turn(n_pos, offset) @ place, place, strength), prefer(ballast, strength)


def look_back_strength(n_pos: int) -> float:
    """What the key at the right place is worth to a head that looks back, in nats; the next has ``SHARPNESS`` less."""
    return SHARPNESS / gap(circle(n_pos))


@dataclasses.dataclass(frozen=True)
class HeadPlan:
    """A head: where it looks, and what it moves from the keys' residual stream into the query's."""

    channels: tuple[Channel, ...]
    reads: np.ndarray
    """float64 [v, d_model]."""
    writes: np.ndarray
    """float64 [v, d_model]: what is read along ``reads[i]`` is written along ``writes[i]``."""


@dataclasses.dataclass(frozen=True)
class MLPPlan:
    """An MLP that is fitted: random hidden weights over ``reads``, output weights by ridge regression."""

    reads: np.ndarray
    """float64 [k, d_model]."""
    targets: Callable[[Items], np.ndarray]
    """What it shall write, float64 [item, pos, d_model]; NaN at positions that do not matter."""
    ridge: float = 1e-4
    """Ridge penalty, in units of the mean square of the hidden activations. A small one gives weights that are right
    for inputs of the fitted size alone."""


@dataclasses.dataclass(frozen=True)
class Loud:
    """A part that writes where nothing reads, more than a distractor does."""

    times: float = 1.0
    """By how much its output weights are larger."""
    steady: float = 0.0
    """The norm of a constant that it writes besides."""


Plan = HeadPlan | MLPPlan | Loud


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Pairs of items and what each part is to the difference between them."""

    description: str
    clean: Items
    corrupt: Items
    """Row i is the partner of row i of ``clean``; of the same layout."""
    roles: Mapping[str, Role]
    """Every head and MLP, and in some families other parts (``"L0.H2.QK"``), by its address."""

    @property
    def pairs(self) -> Pairs:
        """The pairs in the form that analyses take."""
        return Pairs(self.clean, self.corrupt)


@dataclasses.dataclass(frozen=True)
class Design:
    """All that a family decides about one model."""

    procedure: Procedure
    axes: Axes
    embed: np.ndarray
    """float64 [d_vocab, d_model]."""
    positions: np.ndarray
    """float64 [n_ctx, d_model]."""
    plans: Mapping[str, Plan]
    """The parts that do something, by their address."""
    unembed: np.ndarray
    """float64 [d_vocab, d_model]: a logit (nats) is the product with the residual stream."""
    roles: Mapping[str, Mapping[str, Role]]
    """For each contrast, the roles of what is in ``plans`` (and of smaller parts)."""
    variables: Mapping[str, str]
    """What each part that carries computes, by the name under which ``Family.interchanged`` knows it."""
