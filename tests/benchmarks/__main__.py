"""Speed and memory, each figure beside its peer in one run: ``python tests/benchmarks [SECTION ...]``.

Writes the record (JSON) after each section and a page made from it. Nothing is asserted: a benchmark is not a test.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import page
import sections
from many_runs import many_runs
from measure import machine

from mechproc.files import atomic_write, write_json

ROOT = Path(__file__).parents[2]
OTHERS = ("gpu", "populations")
ON_CPU = ("steps", "trainings", "data", "growth", "memory", "interventions", "many_runs")


def main() -> None:
    """Run the sections asked for, those of the CPU by default; the others stay as they are in the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(ON_CPU + OTHERS)}")
    parser.add_argument("--runs", type=int, default=100_000, help="of the store of many runs (default: 100,000)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    args = parser.parse_args()
    unknown = set(args.sections) - {*ON_CPU, *OTHERS}
    if unknown:
        parser.error(f"unknown sections: {', '.join(sorted(unknown))}")
    record = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.sections or ON_CPU:
        started = time.monotonic()
        found = (
            many_runs(200 if args.quick else args.runs) if name == "many_runs" else getattr(sections, name)(args.quick)
        )
        record[name] = {"machine": machine(), "measured": found}
        write_json(args.out, record)
        atomic_write(args.page, page.of(record).encode())
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print(page.of(record))


if __name__ == "__main__":
    main()
