"""Which engine trains a model on this machine."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import typing
from collections.abc import Callable
from typing import Literal

import torch

from mechproc.errors import ConfigError, first_line, require
from mechproc.model.config import ModelConfig
from mechproc.training.engines.base import Engine, ReferenceEngine
from mechproc.training.engines.cpu.build import KernelUnavailableError, library, source_digest
from mechproc.training.engines.cpu.engine import CpuEngine
from mechproc.training.engines.cpu.kernel import refusal
from mechproc.training.engines.parity import mismatch
from mechproc.training.engines.torch import TorchEngine
from mechproc.training.optimizer import VERSION

EngineName = Literal["auto", "reference", "torch", "cpu"]


@dataclasses.dataclass(frozen=True)
class EngineChoice:
    """An engine for ``mechproc.training.loop.train`` and what provenance records of it."""

    make: Callable[..., Engine]
    name: Literal["reference", "torch", "cpu"]
    lanes: int | None = None
    """SIMD width of the CPU kernel."""
    device: str = "cpu"
    """Torch's name of the device on which it trains."""
    hint: str | None = None
    """Why ``auto`` did not take the CPU kernel, in one line."""

    @property
    def label(self) -> str:
        """What provenance records: the engine, what decides its bits beside it, and the version of the optimizer."""
        if self.lanes is not None:
            return f"{self.name} {source_digest()}, {self.lanes} lanes, optimizer {VERSION}"
        rounding = f", rounding {rounding_of_torch()}" if self.device == "cpu" else ""
        return f"{self.name}{rounding}, optimizer {VERSION}"


def choose(name: EngineName | str, cfg: ModelConfig, threads: int = 1, device: str = "cpu") -> EngineChoice:
    """The engine of that name; ``auto`` takes the CPU kernel where it works and says why where it does not.

    ``device`` is torch's name of one, such as ``"cuda"``; on any other than the CPU only ``torch`` trains. Raises
    ``ConfigError`` when the device is not there, the engine does not run on it, or it is an MPS device that does not
    compute what the reference does.
    """
    known = typing.get_args(EngineName)
    require(name in known, "engine", name, f"one of {', '.join(known)}")
    device = checked_device(device)
    if device != "cpu":
        require(name in ("auto", "torch"), "engine", name, f"'torch' on device {device!r}")
    if name == "torch" or device != "cpu":
        return EngineChoice(functools.partial(TorchEngine, device=device), "torch", device=device)
    if name == "reference":
        return EngineChoice(ReferenceEngine, "reference")
    reason = refusal(cfg)
    if reason is None:
        try:
            lanes: int = library().mechproc_lanes()
            return EngineChoice(functools.partial(CpuEngine, threads=threads, lanes=lanes), "cpu", lanes)
        except KernelUnavailableError as error:
            reason = str(error)
    if name == "cpu":
        raise ConfigError(f"engine = 'cpu' is not allowed: {reason}")
    return EngineChoice(TorchEngine, "torch", hint=reason)


@functools.cache
def rounding_of_torch() -> str:
    """Eight digits that differ where torch's functions round differently: on CPUs they ask Intel's MKL, which computes
    by the processor's make, not by its instruction set alone."""
    numbers = torch.linspace(0.01, 8.0, 4096)
    found = torch.stack([numbers.sqrt(), numbers.exp(), numbers.log(), numbers.tanh()])
    return hashlib.sha256(found.numpy().tobytes()).hexdigest()[:8]


@functools.cache
def _mismatch_on(device: str) -> str | None:
    """Silent wrong results are known of this kind of device, so it is checked once in each process."""
    return mismatch(functools.partial(TorchEngine, device=device))


def checked_device(device: str) -> str:
    """Torch's name of a device, without the number of a CPU, of which there is one.

    Raises ``ConfigError`` when it is not there, or is an MPS device that does not compute what the reference does.
    """
    if device != "cpu":
        _check_device(device)
    if device.startswith("mps") and (reason := _mismatch_on(device)):
        raise ConfigError(f"device = {device!r} is not allowed: it does not compute what the CPU does ({reason})")
    return "cpu" if device.startswith("cpu:") else device


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend that is not there raises its own
        allowed = f"a device that torch can use here ({first_line(error)})"
        raise ConfigError(f"device = {device!r} is not allowed: {allowed}") from None
