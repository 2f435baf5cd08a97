"""``mechproc report STUDY|RUN|RESULT...``: one page about studies, runs and analyses, that opens without a network."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

WHAT = "a study's name or file, a run (its folder, or its name in the store), a Result's file, or a folder of Results"


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser(
        "report", help="one page about a study, runs or Results, that opens without a network"
    )
    parser.add_argument("what", nargs="+", metavar="STUDY|RUN|RESULT", help=WHAT)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--scale", choices=["laptop", "paper"], help="of a study (default: its own)")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds of a study (default: its own)")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument(
        "--records", type=Path, default=Path("results/records"), help="records of runs (default: results/records)"
    )
    parser.add_argument(
        "--analyses", type=Path, default=Path("results/analyses"),
        help="kept analyses, of which those of the runs and studies are shown (default: results/analyses)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, and say where it is."""
    from analyses.report.collect import report
    from mechproc.runs.store import Store

    store = Store(args.store, args.records)
    page = report(
        args.what, store, scale=args.scale, n_seeds=args.seeds, kept=args.analyses, command=_command(args)
    )  # fmt: skip
    page.write(args.out)
    print(f"{args.out}: {page.title}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _command(args: argparse.Namespace) -> str:
    words = ["mechproc", "report", *args.what]
    for name, default in (("scale", None), ("seeds", None), ("store", "runs"), ("records", "results/records"),
                          ("analyses", "results/analyses"), ("out", "report.html")):  # fmt: skip
        value = getattr(args, name)
        words += [f"--{name}", str(value)] if value is not None and str(value) != default else []
    return shlex.join(words)
