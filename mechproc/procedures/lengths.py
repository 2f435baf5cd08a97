"""How long the items of a procedure are.

The length distribution is part of a rule: a copy of one fixed length can be made by position alone, a copy of varying
lengths cannot. What a length counts (payload symbols, key-value pairs, digits, tokens) is stated by each procedure.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from mechproc.config import Config
from mechproc.errors import require


@dataclasses.dataclass(frozen=True)
class LengthDistribution(Config):
    """Base of the length distributions."""

    registry: ClassVar[dict[str, type[Config]] | None] = {}
    largest: ClassVar[int] = 1_000_000

    @abstractmethod
    def support(self, stage: int | None = None) -> np.ndarray:
        """The lengths that occur, ascending, int64 [n]; all are equally likely.

        ``stage`` counts the steps a curriculum has made; ``None`` stands for its end. Other distributions have one
        stage only and ignore it.
        """

    @property
    def n_stages(self) -> int:
        """How many stages a curriculum passes through; 1 for the others."""
        return 1

    @property
    def max(self) -> int:
        """The longest length that ever occurs."""
        return int(self.support()[-1])

    def draw(self, rng: np.random.Generator, n: int, stage: int | None = None) -> np.ndarray:
        """``n`` lengths, int64 [n]."""
        return rng.choice(self.support(stage), size=n)


@dataclasses.dataclass(frozen=True)
class Fixed(LengthDistribution):
    """Every item has the same length."""

    kind: ClassVar[str] = "fixed"
    length: int

    def __post_init__(self) -> None:
        require(self.length >= 1, "length", self.length, "at least 1")

    def support(self, stage: int | None = None) -> np.ndarray:
        return np.array([self.length], dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Uniform(LengthDistribution):
    """Lengths ``low, low + step, ..., high`` with equal probability."""

    kind: ClassVar[str] = "uniform"
    low: int
    high: int
    step: int = 1

    def __post_init__(self) -> None:
        require(self.low >= 1, "low", self.low, "at least 1")
        require(self.step >= 1, "step", self.step, "at least 1")
        require(self.high >= self.low, "high", self.high, f"at least low = {self.low}")

    def support(self, stage: int | None = None) -> np.ndarray:
        return np.arange(self.low, self.high + 1, self.step, dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class Curriculum(LengthDistribution):
    """Lengths grow as they are mastered: training moves one stage up when validation accuracy reaches ``threshold``.

    Stage s draws uniformly from ``start, ..., start + s * increment`` (``cumulative``), or has only the longest of
    these. The last stage is the first that reaches ``stop``.
    """

    kind: ClassVar[str] = "curriculum"
    start: int
    stop: int
    increment: int = 2
    threshold: float = 0.99
    cumulative: bool = True

    def __post_init__(self) -> None:
        require(self.start >= 1, "start", self.start, "at least 1")
        require(self.increment >= 1, "increment", self.increment, "at least 1")
        require(self.stop >= self.start, "stop", self.stop, f"at least start = {self.start}")
        require(0 < self.threshold <= 1, "threshold", self.threshold, "above 0, at most 1")

    @property
    def n_stages(self) -> int:
        return 1 + -(-(self.stop - self.start) // self.increment)

    def support(self, stage: int | None = None) -> np.ndarray:
        last = self.n_stages - 1
        stage = last if stage is None else stage
        require(0 <= stage <= last, "stage", stage, f"0 to {last}")
        top = min(self.start + stage * self.increment, self.stop)
        lengths = np.append(np.arange(self.start, top, self.increment), top).astype(np.int64)
        return lengths if self.cumulative else lengths[-1:]
