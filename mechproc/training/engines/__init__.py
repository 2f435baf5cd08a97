"""Engines that make the same updates as ``mechproc.training.engine.ReferenceEngine``, faster."""

from mechproc.training.engines.choice import Chosen, EngineName, choose
from mechproc.training.engines.cpu import CpuKernel
from mechproc.training.engines.cpu_engine import CpuEngine

__all__ = ["Chosen", "CpuEngine", "CpuKernel", "EngineName", "choose"]
