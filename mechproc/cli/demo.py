"""``mechproc demo``: one transfer on small models, from the trainings to a report."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyses.report.sections.transfer_findings import TransferFindings
    from mechproc.studies.set_to_haystack import Sizes


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("demo", help="transfer from set to haystack on small models (minutes); a report")
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder of the report and the runs (default: demo)"
    )
    parser.add_argument("--search", action="store_true", help="use the seeds that the sizes were chosen on")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, analyse, write the report, and print the finding."""
    from mechproc.cli.progress import clock
    from mechproc.studies.set_to_haystack import SEARCH_SEEDS, SEEDS, Sizes

    started = time.monotonic()
    findings = run_demo(args.out, SEARCH_SEEDS if args.search else SEEDS, Sizes(), args.workers)
    print(f"\n{args.out / 'report.html'} after {clock(time.monotonic() - started)}\n")
    print("\n".join([*(f"Note: {note}." for note in findings.verdicts.notes()), *findings.sentences()]))
    return 0


def run_demo(out: Path, seeds: Sequence[int], sizes: Sizes, workers: int | None = None) -> TransferFindings:
    """All that ``mechproc demo`` does, for any seeds and sizes; writes the report and the Results into ``out``."""
    from mechproc.cli.progress import RunLines
    from mechproc.files import write_json
    from mechproc.runs.store import Store
    from mechproc.studies.set_to_haystack import CROSSED, MASK, study
    from mechproc.threads import one_thread
    from mechproc.training.engines import choose

    planned, store = study(seeds, sizes), Store(out / "runs")
    missing = len(store.missing([run for _, run in planned.runs]))
    print(
        f"{planned.name}: {len(planned.arms)} arms, {len(planned.seeds)} seeds, {missing} trainings to do", flush=True
    )
    if hint := choose("auto", planned.runs[0][1].model).hint:
        print(f"  slower, with the torch engine: {hint}", flush=True)
    started = time.monotonic()
    planned.complete(store, workers, RunLines())
    trained = time.monotonic()
    print("  analysing the models", flush=True)
    from analyses.report.sections import transfer, transfer_findings

    with one_thread():
        findings = transfer_findings.collect(
            planned, store, arm="attention", control="random", mask=MASK, crossed=CROSSED
        )
    transfer.report(findings).write(out / "report.html")
    for name in ("scores", "curves", "target_attention", "ablations"):
        getattr(findings, name).save(out / f"{name}.json")
    seconds = {"training": round(trained - started, 1), "analysis": round(time.monotonic() - trained, 1)}
    machine = {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    environment = dict(findings.scores.provenance[0][1])
    write_json(
        out / "summary.json",
        findings.summary() | {"seconds": seconds, "trained": missing, **machine, "environment": environment},
    )
    return findings
