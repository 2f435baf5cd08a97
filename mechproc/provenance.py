"""Where a number was computed.

Identity says *what* was run, provenance *on what*. Equal bits are promised within one provenance only: another engine,
device or SIMD width rounds differently, and a plateau amplifies a rounding difference into another final score.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PROVENANCE_FIELDS = ("engine", "device", "simd", "threads", "python", "numpy", "torch", "mechproc")
"""What two runs must have in common before their scores are compared."""


def provenance(engine: str = "reference", device: str = "cpu") -> dict[str, str]:
    """The provenance of a run made now, in this process: every field of ``PROVENANCE_FIELDS``, as text."""
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "engine": engine,
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{device} {platform.machine()}",
        "simd": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("numpy", "torch", "mechproc")},
    }


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The fields in which two provenances differ, each as ``"field: a / b"``; empty when bits are comparable."""
    return [
        f"{field}: {one.get(field, 'unknown')} / {other.get(field, 'unknown')}"
        for field in PROVENANCE_FIELDS
        if one.get(field) != other.get(field)
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
