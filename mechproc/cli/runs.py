"""``mechproc runs list|show|rm|verify|repair|gc|copy``: what a folder of runs holds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mechproc.cli.run import add_allow_code


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("runs", help="list, show, remove, verify or repair the runs of a folder")
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
    repair = actions.add_parser("repair", help="restore damaged files from records and weights; name what cannot be")
    repair.add_argument("--records", type=Path, help="folder of records to restore from, and to repair")
    repair.add_argument("--dry-run", action="store_true", help="only say what would be done")
    repair.add_argument(
        "--remove-damaged", action="store_true", help="move damaged records that cannot be restored to FILE.damaged"
    )
    add_allow_code(repair)
    gc = actions.add_parser(
        "gc", help="list temporary files, resume points of complete runs, and folders without a run"
    )
    gc.add_argument("--yes", action="store_true", help="remove what is listed")
    copy = actions.add_parser("copy", help="add the records to those at a URL, such as s3://bucket/records")
    copy.add_argument("url", metavar="URL", help="any URL that fsspec knows")
    copy.add_argument(
        "--records", type=Path, default=Path("results/records"), help="records of runs (default: results/records)"
    )
    every = [listing, verify, repair, gc]
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
    return {"list": _list, "show": _show, "rm": _rm, "verify": _verify, **MENDING}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from mechproc.runs.catalogue import lines

    runs, problems = lines(args.store)
    kept = [line for line in runs if args.procedure in (None, line.procedure) and args.status in (None, line.status)]
    print(f"{'run':34}{'seed':>5}  {'status':12}{'accuracy':>9}{'seconds':>9}  start")
    for line in kept:
        scores = f"{line.accuracy:9.4f}{line.seconds:9.1f}" if line.status == "complete" else f"{'':18}"
        print(f"{line.name:34}{line.seed:5}  {line.status:12}{scores}  {line.start}")
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


def _repair(args: argparse.Namespace) -> int:
    from mechproc.procedures import allow
    from mechproc.runs.catalogue import folders
    from mechproc.runs.records import Records
    from mechproc.runs.repair import repair

    allow(*args.allow_code)
    records = None if args.records is None else Records(args.records)
    actions = repair(folders(args.store), records, dry_run=args.dry_run, remove_damaged=args.remove_damaged)
    for action in actions:
        print(action if action.done else f"mechproc: {action}", file=sys.stdout if action.done else sys.stderr)
    left = sum(not action.done for action in actions)
    print(f"{len(actions) - left} {'would be ' if args.dry_run else ''}repaired, {left or 'no'} damages left")
    return 1 if left else 0


def _gc(args: argparse.Namespace) -> int:
    from mechproc.runs.catalogue import folders
    from mechproc.runs.repair import garbage, remove

    found = garbage(args.store, folders(args.store))
    for action in found:
        print(action)
    if args.yes:
        remove(found)
    print(f"{len(found)} {'removed' if args.yes else 'to remove (with --yes)'}")
    return 0


def _copy(args: argparse.Namespace) -> int:
    from mechproc.runs.copies import copy_records

    print(f"{copy_records(args.records, args.url)} records added at {args.url}")
    return 0


MENDING = {"repair": _repair, "gc": _gc, "copy": _copy}
