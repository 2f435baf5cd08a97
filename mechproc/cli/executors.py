"""The options that say where trainings run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechproc.runs.executors import Executor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--executor",
        choices=["processes", "ray"],
        default="processes",
        help="processes of this machine (default), or tasks of a Ray cluster (the extra 'cluster')",
    )
    ray = parser.add_argument_group("with --executor ray")
    ray.add_argument("--address", help="HOST:PORT of the cluster, or auto (default: start Ray on this machine)")
    ray.add_argument("--cpus", type=float, help="cores that a task takes (default: 1)")
    ray.add_argument("--gpus", type=float, help="GPUs that a task takes, such as 0.25 (default: none, on the CPU)")
    ray.add_argument("--pack", type=int, metavar="N", help="runs that a task trains one after the other (default: 1)")


def chosen(args: argparse.Namespace) -> Executor | None:
    """The executor that the options name; ``None`` for processes. Errors: ``ConfigError`` for options of the other."""
    from mechproc.errors import require

    given = {name: getattr(args, name) for name in ("address", "cpus", "gpus", "pack")}
    given = {name: value for name, value in given.items() if value is not None}
    if args.executor == "processes":
        for name, value in given.items():
            require(False, f"--{name}", value, "an option of --executor ray")
        return None
    from mechproc.runs.executors.ray import Ray

    require(args.workers is None, "--workers", args.workers, "an option of --executor processes")
    return Ray(**given)
