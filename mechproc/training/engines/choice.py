"""Which engine trains a model on this machine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.training.engine import Engine, ReferenceEngine
from mechproc.training.engines.build import KernelUnavailableError, library
from mechproc.training.engines.cpu import refusal
from mechproc.training.engines.cpu_engine import CpuEngine

EngineName = Literal["auto", "reference", "cpu"]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """An engine for ``mechproc.training.loop.train`` and what provenance records of it."""

    make: Callable[..., Engine]
    name: Literal["reference", "cpu"]
    lanes: int | None = None
    """SIMD width of the CPU kernel."""
    hint: str | None = None
    """Why ``auto`` did not take the CPU kernel, in one line."""

    @property
    def label(self) -> str:
        """What provenance records: the engine, and its SIMD width where it has one of its own."""
        return self.name if self.lanes is None else f"{self.name}, {self.lanes} lanes"


def choose(name: EngineName, cfg: ModelConfig, threads: int = 1) -> Chosen:
    """The engine of that name; ``auto`` takes the CPU kernel where it works and says why where it does not.

    Raises ``ConfigError`` when ``cpu`` is asked for and cannot be had.
    """
    if name == "reference":
        return Chosen(ReferenceEngine, "reference")
    reason = refusal(cfg)
    if reason is None:
        try:
            lanes: int = library().mechproc_lanes()
            return Chosen(functools.partial(CpuEngine, threads=threads, lanes=lanes), "cpu", lanes)
        except KernelUnavailableError as error:
            reason = str(error)
    if name == "cpu":
        raise ConfigError(f"engine = 'cpu' is not allowed: {reason}")
    return Chosen(ReferenceEngine, "reference", hint=reason)
