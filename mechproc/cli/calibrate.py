"""``mechproc calibrate``: hit and false-alarm rates of every method on planted models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

MOST_PLANTINGS = 100_000


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser(
        "calibrate",
        help="hit and false-alarm rates of every method on planted models",
        description="Runs every method on models whose answer is known because it was planted, a few seconds a "
        "planting. What was measured is kept beside the output: the same command goes on where it was stopped.",
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="such as 'zero ablation' (default: all)")
    parser.add_argument("--families", nargs="+", metavar="FAMILY", help="such as haystack twins (default: all)")
    parser.add_argument("--plantings", type=int, default=100, help="that rates are measured on (default: 100)")
    parser.add_argument("--calibration", type=int, default=20, help="others, for the threshold (default: 20)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the plantings (default: 0)")
    parser.add_argument(
        "--shape", nargs="+", default=[], metavar="NAME=VALUE", help="of the models: d_model=32 n_layers=3 n_items=256"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/calibration.json"), help="default: results/calibration.json"
    )
    parser.add_argument(
        "--join", nargs="+", type=Path, metavar="FILE", help="measure nothing: put the cells of these outputs into one"
    )
    parser.add_argument("--page", type=Path, help="also write the table into this page, such as docs/calibration.md")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what is missing, or join what was measured, print the table and write the Result."""
    from analyses.planted.join import joined
    from analyses.planted.page import markdown, write
    from mechproc.errors import require
    from mechproc.result import Result

    for name in ("plantings", "calibration"):
        n = getattr(args, name)
        require(1 <= n <= MOST_PLANTINGS, f"n_{name}", n, f"1 to {MOST_PLANTINGS:,}")

    result = joined([Result.load(path) for path in args.join]) if args.join else _measured(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result.save(args.out)
    print(f"{markdown(result)}\n\n{args.out}")
    if args.page:
        write(args.page, result)
        print(args.page)
    return 0


def _measured(args: argparse.Namespace) -> Any:
    from analyses.planted import calibrate
    from analyses.planted.journal import FileJournal
    from mechproc.threads import one_thread

    journal = FileJournal(args.out.with_suffix(".jsonl"))
    if len(journal):
        print(f"{journal.path}: {len(journal)} measurements of the same code are there", flush=True)
    with one_thread():
        return calibrate.run(
            args.methods,
            args.families,
            n_plantings=args.plantings,
            n_calibration=args.calibration,
            settings=dict(map(_setting, args.shape)),
            first_seed=args.first_seed,
            journal=journal,
        )


def _setting(text: str) -> tuple[str, Any]:
    """``"d_model=32"`` -> ``("d_model", 32)``."""
    from mechproc.errors import ConfigError

    name, sign, value = text.partition("=")
    try:
        if not sign:
            raise ValueError
        return name, json.loads(value) if value[:1].isdigit() else value
    except ValueError:
        raise ConfigError(f"shape = {text!r} is not allowed: NAME=VALUE, such as d_model=32") from None
