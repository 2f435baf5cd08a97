"""``mechproc doctor``: what this machine has, what training will use, and what to do about what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

PACKAGES = {
    "torch": "torch",
    "transformer-lens": "transformer_lens",
    "transformers": "transformers",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
    "plotly": "plotly",
    "circuitsvis": "circuitsvis",
}
"""What everything needs, by distribution, and the module that is imported."""
EXTRAS = {
    "kaleido": ("images", "figures as PNG or PDF"),
    "ray": ("cluster", "studies on a cluster"),
    "ipywidgets": ("notebooks", "progress bars in notebooks"),
}


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser(
        "doctor", help="versions, devices, compiler, engines; what is missing and what to do"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each thing; 0 when training works and computes what the reference does, else 1."""
    works = True
    for part in (_software, _machine, _engines):
        for line, fine in part():
            print(line, flush=True)
            works &= fine
        if not works:
            break
    bad = "training does not work as it should: see the lines that say MISSING, BROKEN or WRONG"
    print("training works" if works else bad)
    return 0 if works else 1


def _software() -> Iterator[tuple[str, bool]]:
    """A line for each package, and whether it is as it should be."""
    import importlib
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from mechproc import __version__
    from mechproc.errors import first_line

    system = f"Python {platform.python_version()} on {platform.platform(terse=True)}"
    yield _line("mechproc", f"{__version__}, {system}"), True
    for package, module in PACKAGES.items():
        try:
            found = version(package)
            importlib.import_module(module)
            yield _line(package, found), True
        except PackageNotFoundError:
            yield _line(package, "MISSING: pip install --editable . in the folder of mechproc"), False
        except Exception as error:
            repair = f"pip install --force-reinstall {package}"
            yield _line(package, f"BROKEN: {type(error).__name__}: {first_line(error)}; {repair}"), False
    for package, (extra, purpose) in EXTRAS.items():
        try:
            yield _line(package, version(package)), True
        except PackageNotFoundError:
            yield _line(package, f'not there; for {purpose}: pip install "mechproc[{extra}]"'), True


def _machine() -> Iterator[tuple[str, bool]]:
    import os
    import shutil

    import torch

    from mechproc.threads import usable_cores
    from mechproc.training.engines.cpu.build import COMPILERS

    pages = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    known = hasattr(os, "sysconf") and set(pages) <= set(os.sysconf_names)
    memory = f", {os.sysconf(pages[0]) * os.sysconf(pages[1]) / 2**30:.0f} GiB of memory" if known else ""
    threads = f"torch uses {torch.get_num_threads()} threads"
    yield _line("cores", f"{usable_cores()} for this process{memory}; {threads}"), True
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield _line("cuda", ", ".join(gpus) or "no device"), True
    yield _line("mps", "a device" if torch.backends.mps.is_available() else "no device"), True
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    yield _line("compiler", compiler or "none: training takes about twice as long; install g++ or clang"), True


def _engines() -> Iterator[tuple[str, bool]]:
    """A line for each engine and device, and whether it is as it should be."""
    import torch

    from mechproc.errors import ConfigError
    from mechproc.training.engines import choose
    from mechproc.training.engines.cpu.build import KernelUnavailableError, cache_folder, library
    from mechproc.training.engines.parity import CFG, mismatch

    try:
        lanes = library().mechproc_lanes()
        yield _line("kernel", f"built, {lanes} SIMD lanes, in {cache_folder()}"), True
    except KernelUnavailableError as error:
        yield _line("kernel", f"not to be had: {error}"), True
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    for device in devices:
        for name in ("reference", "cpu", "torch") if device == "cpu" else ("torch",):
            try:
                reason = mismatch(choose(name, CFG, device=device).make)
            except ConfigError as error:
                yield _line(f"{name} engine", str(error)), True
                continue
            said = f"WRONG: {reason}" if reason else "computes what the reference does"
            yield _line(f"{name} engine", f"on {device}: {said}"), reason is None
    chosen = choose("auto", CFG)
    yield _line("auto takes", chosen.label + (f": {chosen.hint}" if chosen.hint else "")), True


def _line(name: str, text: str) -> str:
    return f"{name:20}{text}"
