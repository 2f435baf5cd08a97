"""``mechproc demo``: the whole story on small models, with a report."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyses.story import Story
    from mechproc.studies.set_to_haystack import Sizes


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser("demo", help="set -> haystack: which part, which head (minutes); writes a report")
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder of the report and the runs (default: demo)"
    )
    parser.add_argument("--search", action="store_true", help="the seeds that its sizes were chosen on, for the record")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, analyse, write the report, and say what was found."""
    from mechproc.studies.set_to_haystack import SEARCH_SEEDS, SEEDS, Sizes

    started = time.monotonic()
    story = tell(args.out, SEARCH_SEEDS if args.search else SEEDS, Sizes(), args.workers)
    from mechproc.cli.progress import clock

    print(f"\n{args.out / 'report.html'} after {clock(time.monotonic() - started)}\n")
    print("\n".join(story.sentences()))
    return 0


def tell(out: Path, seeds: Sequence[int], sizes: Sizes, workers: int | None = None) -> Story:
    """Everything that ``mechproc demo`` does, for other seeds and sizes too."""
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
    print("  looking into the models", flush=True)
    from analyses import story as stories

    with one_thread():
        story = stories.run(planned, store, arm="attention", control="random", mask=MASK, crossed=CROSSED)
    stories.report(story).write(out / "report.html")
    for name in ("scores", "curves", "looking", "ablations"):
        getattr(story, name).save(out / f"{name}.json")
    seconds = {"training": round(trained - started, 1), "analysis": round(time.monotonic() - trained, 1)}
    machine = {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    environment = dict(story.scores.provenance[0][1])
    write_json(
        out / "summary.json",
        story.summary() | {"seconds": seconds, "trained": missing, **machine, "environment": environment},
    )
    return story
