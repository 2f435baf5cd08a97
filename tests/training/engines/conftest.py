"""The SIMD widths to test."""

from __future__ import annotations

import pytest

from mechproc.training.engines.cpu.build import KernelUnavailableError, cpu_flags, library, widest


def usable_lanes() -> list[int]:
    """The SIMD widths that this machine can compute with."""
    try:
        most = widest(cpu_flags())
        library(most)
    except KernelUnavailableError:
        return []
    return [lanes for lanes in (16, 8) if lanes <= most]


@pytest.fixture(params=usable_lanes() or [pytest.param(0, marks=pytest.mark.skip("the CPU kernel cannot run here"))])
def lanes(request: pytest.FixtureRequest) -> int:
    return request.param
