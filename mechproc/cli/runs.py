"""``mechproc runs list|show|rm|verify``: what a folder of runs holds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("runs", help="list, show, remove or verify the runs of a folder")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line for each run")
    listing.add_argument("--procedure", help="only runs on this procedure")
    listing.add_argument(
        "--status",
        choices=["complete", "running", "interrupted", "failed", "damaged"],
        help="only runs with this status",
    )
    verify = actions.add_parser("verify", help="read every file of every run, and name each that is damaged")
    verify.add_argument("--records", type=Path, help="folder of records that are read, and compared with the runs")
    every = [listing, verify]
    for name, text in (("show", "settings, environment, validations and scores of one run"), ("rm", "remove one run")):
        action = actions.add_parser(name, help=text)
        every.append(action)
        action.add_argument("run_name", metavar="RUN", help="its name, or the beginning of its identity")
        if name == "rm":
            action.add_argument("--yes", action="store_true", help="do not ask")
            action.add_argument("--force", action="store_true", help="even if other runs have it as a donor")
    for action in every:  # there too, where it is looked for
        action.add_argument("--store", type=Path, default=argparse.SUPPRESS, help="folder of runs (default: runs)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return {"list": _list, "show": _show, "rm": _rm, "verify": _verify}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from mechproc.runs.catalogue import entries

    runs, problems = entries(args.store)
    kept = [
        entry
        for entry in runs
        if args.procedure in (None, entry.config["procedure"]["kind"]) and args.status in (None, entry.status)
    ]
    print(f"{'run':34}{'seed':>5}  {'status':12}{'accuracy':>9}{'seconds':>9}  start")
    for entry in kept:
        scores = f"{entry.test['accuracy']:9.4f}{entry.test['seconds']:9.1f}" if entry.test else f"{'':18}"
        print(f"{entry.folder.name:34}{entry.config['seed']:5}  {entry.status:12}{scores}  {entry.recipe}")
    print(f"{len(kept)} runs in {args.store}")
    for problem in problems:
        print(f"mechproc: {problem}", file=sys.stderr)
    return 0


def _show(args: argparse.Namespace) -> int:
    from mechproc.runs.catalogue import entry

    chosen = entry(args.store, args.run_name)
    print(f"{chosen.folder}: {chosen.status}\nidentity {chosen.identity}\n")
    for name, value in chosen.config.items():
        print(f"{name:12}{json.dumps(value)}")
    if chosen.error:
        print(f"\n{chosen.status}: {chosen.error}")
    if chosen.folder.environment.exists():
        print("\n" + ", ".join(f"{key} {value}" for key, value in chosen.folder.read_environment().items()))
    if chosen.folder.metrics.exists():
        print("\nlast validations:", *map(json.dumps, chosen.folder.read_metrics()[-3:]), sep="\n  ")
    if chosen.test:
        each = ("files", "checksum")
        print("\ntest: " + ", ".join(f"{key} {value}" for key, value in chosen.test.items() if key not in each))
    return 0


def _rm(args: argparse.Namespace) -> int:
    from mechproc.runs.catalogue import entry, remove

    chosen = entry(args.store, args.run_name)
    if not args.yes:
        print(f"remove {chosen.folder} ({chosen.status}) for good? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 1
    print(f"removed {remove(chosen, args.force)}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from mechproc.runs.catalogue import folders
    from mechproc.runs.verify import verify

    kept = folders(args.store)
    damages = verify(kept, args.records)
    for damage in damages:
        print(f"mechproc: {damage}", file=sys.stderr)
    print(f"{len(kept)} runs in {args.store}, {len(damages) or 'no'} damages")
    return 1 if damages else 0
