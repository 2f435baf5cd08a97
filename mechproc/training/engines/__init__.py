"""Engines that make the same updates as ``mechproc.training.engines.base.ReferenceEngine``, faster."""

from mechproc.training.engines.choice import EngineChoice, EngineName, checked_device, choose
from mechproc.training.engines.cpu.engine import CpuEngine
from mechproc.training.engines.cpu.kernel import CpuKernel

__all__ = ["CpuEngine", "CpuKernel", "EngineChoice", "EngineName", "checked_device", "choose"]
