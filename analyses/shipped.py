"""The command line of the modules that measure the shipped models for the worked questions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def asked(
    module: str, about: str, arguments: Sequence[str] | None, out: str = "folder to write into"
) -> argparse.Namespace:
    """What ``python -m module`` was asked: ``out``, a path, and ``donors``, whether those that ship as donors are
    measured instead of those that were trained to master their rules."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--donors", action="store_true", help="the models that ship as donors")
    return parser.parse_args(arguments)
