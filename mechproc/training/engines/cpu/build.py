"""Compiles the CPU kernel once and keeps it in the user's cache.

The file in the cache is named by a digest of source, flags and instruction set, never ``-march=native``, so machines
that share a home directory share it safely. A build goes to a file of its own and is renamed into place: processes that
build at the same time each finish, and none sees half a file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

from mechproc.errors import require

SOURCE = Path(__file__).with_name("kernel.cpp")
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
"""No -ffast-math: it gains nothing here and switches the whole process to flushing small numbers to zero."""
COMPILERS = ("c++", "g++", "clang++", "clang")
ARCHITECTURES = {16: "x86-64-v4", 8: "x86-64-v3"}
"""SIMD lanes (float32 numbers) -> instruction set. 16 lanes without AVX-512 would be far slower than 8."""
_NEEDED = {
    16: {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"},
    8: {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"},
}


LANES = "MECHPROC_LANES"
"""Environment variable with the SIMD lanes to use where nothing else is said, 8 or 16: with 8, processors with AVX-512
compute the bits of those with AVX2."""


class KernelUnavailableError(RuntimeError):
    """The CPU kernel cannot be used here; the message is one line that says why and what would help."""


def cpu_flags() -> set[str]:
    """Instruction-set flags of this machine's CPU, empty where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def widest(flags: Collection[str]) -> int:
    """SIMD lanes to use on a CPU with these flags: 16 (AVX-512) or 8 (AVX2)."""
    for lanes, needed in _NEEDED.items():
        if needed <= set(flags):
            return lanes
    system = f"{platform.system()} on {platform.machine()}"
    raise KernelUnavailableError(f"the CPU kernel needs Linux and an x86-64 CPU with AVX2 and FMA (this is {system})")


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$XDG_CACHE_HOME/mechproc`` or ``~/.cache/mechproc``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mechproc"


def library(lanes: int | None = None) -> ctypes.CDLL:
    """The compiled kernel with ``lanes`` SIMD lanes, built if need be; when ``None``, those of the environment variable
    ``MECHPROC_LANES``, or else the widest of this CPU.

    Raises ``KernelUnavailableError`` when the CPU is too old, no compiler is found, or the cache cannot be written, and
    ``ConfigError`` for a variable with another value than 8 or 16.
    """
    lanes = _checked(lanes)
    path = kernel_path(lanes)
    if path.is_file():
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # damaged, or built against another C library: build it again
            pass
    _build(lanes, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelUnavailableError(
            f"the CPU kernel was built but cannot be loaded: {_one_line(str(error))}"
        ) from None


def source_digest() -> str:
    """The first digits of the SHA-256 of the kernel's source and flags: what decides its bits beside the SIMD width."""
    return hashlib.sha256(SOURCE.read_bytes() + "\0".join(FLAGS).encode()).hexdigest()[:12]


def kernel_path(lanes: int) -> Path:
    """Where the compiled kernel with so many lanes is kept."""
    key = hashlib.sha256(SOURCE.read_bytes() + "\0".join(_options(lanes)).encode()).hexdigest()[:20]
    return cache_folder() / f"kernel-{key}.so"


def _options(lanes: int) -> tuple[str, ...]:
    return (*FLAGS, f"-march={ARCHITECTURES[lanes]}", f"-DLANES={lanes}")


def _checked(lanes: int | None) -> int:
    widest_here = widest(cpu_flags())
    lanes = (_wanted() or widest_here) if lanes is None else lanes
    if lanes not in ARCHITECTURES or lanes > widest_here:
        raise KernelUnavailableError(f"the CPU kernel cannot use {lanes} SIMD lanes on this CPU (it has {widest_here})")
    return lanes


def _wanted() -> int | None:
    value = os.environ.get(LANES, "")
    known = [str(lanes) for lanes in ARCHITECTURES]
    require(value in ("", *known), LANES, value, f"one of {', '.join(known)}")
    return int(value) if value else None


def _build(lanes: int, path: Path) -> None:
    compilers = [compiler for name in COMPILERS if (compiler := shutil.which(name))]
    if not compilers:
        raise KernelUnavailableError(
            "the CPU kernel needs a C++ compiler: none of c++, g++, clang++, clang is installed (try: apt install g++)"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".so", prefix=path.stem, dir=path.parent)
    except OSError as error:
        raise KernelUnavailableError(
            f"the CPU kernel cannot be kept in {path.parent}: {error.strerror} (set XDG_CACHE_HOME)"
        ) from None
    os.close(handle)
    unfinished, failure = Path(name), ""
    try:
        for compiler in compilers:
            done = subprocess.run(
                [compiler, *_options(lanes), "-o", str(unfinished), str(SOURCE)], capture_output=True, text=True
            )
            if done.returncode == 0:
                unfinished.chmod(0o755)
                unfinished.replace(path)
                return
            failure = failure or f"{compiler}: {_one_line(done.stderr)}"
        raise KernelUnavailableError(f"the CPU kernel did not compile: {failure}")
    except OSError as error:
        raise KernelUnavailableError(f"the CPU kernel did not compile: {_one_line(str(error))}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _one_line(text: str) -> str:
    """The line of a compiler's output that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if " error: " in line), lines[0] if lines else "no message")[:200]
