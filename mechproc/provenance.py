"""Where a number was computed.

Identity says *what* was run, provenance *on what*. Equal bits are promised within one provenance only: another engine,
device or SIMD width rounds differently, and a plateau amplifies a rounding difference into another final score.
"""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROVENANCE_FIELDS = ("engine", "device", "simd", "threads", "python", "numpy", "torch", "mechproc")
"""What two runs must have in common before their scores are compared. ``engine`` names the kernel's source, too."""


def provenance(engine: str = "reference", device: str = "cpu") -> dict[str, str]:
    """The provenance of a run made now, in this process: every field of ``PROVENANCE_FIELDS``, and the commit, as text.

    The commit says which code was run; runs of two commits are compared all the same.
    """
    import torch

    on_gpu = device.startswith("cuda")
    return {
        "engine": engine,
        "device": torch.cuda.get_device_name(device) if on_gpu else f"{device} {platform.machine()}",
        "simd": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("numpy", "torch", "mechproc")},
        "commit": commit(),
    }


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The fields in which two provenances differ, each as ``"field: a / b"``; empty when bits are comparable."""
    return [
        f"{field}: {one.get(field, 'unknown')} / {other.get(field, 'unknown')}"
        for field in PROVENANCE_FIELDS
        if one.get(field) != other.get(field)
    ]


@functools.cache
def commit() -> str:
    """The commit of the checkout that this package is imported from, ``+changed`` behind it when files differ from it;
    ``none`` outside a checkout."""
    package = Path(__file__).parent
    ask = ["git", "-C", str(package)]
    try:
        head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30)
        tracked = subprocess.run([*ask, "ls-files", "--error-unmatch", __file__], capture_output=True, timeout=30)
        if head.returncode or tracked.returncode:  # an installed package may lie inside somebody else's checkout
            return "none"
        changed = subprocess.run(
            [*ask, "status", "--porcelain", "--untracked-files=no", "--", "."], capture_output=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return head.stdout.strip() + ("+changed" if changed.stdout.strip() else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
