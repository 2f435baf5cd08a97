"""``mechproc pretrained build``: train the shipped models again and pack them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("pretrained", help="train the models that come along again and pack them")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="train what is missing, and pack (an hour or two for all)")
    build.add_argument("rules", nargs="*", metavar="RULE", help="such as set or transferable/set (default: all)")
    build.add_argument("--out", type=Path, default=Path("pretrained"), help="folder to write (default: pretrained)")
    build.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    build.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, pack, and say where."""
    from mechproc.cli.progress import RunLines
    from mechproc.pretrained import shipped
    from mechproc.runs.store import Store
    from mechproc.studies.packing import build, recipe

    rules: list[str] = args.rules or shipped()
    for rule in rules:
        recipe(rule, 0)  # an unknown rule is said before anything starts
    for folder in build(rules, Store(args.store), args.out, workers=args.workers, report=RunLines()):
        print(folder / "card.md")
    return 0
