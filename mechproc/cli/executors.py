"""The options that say where trainings run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechproc.runs.executors import Executor

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "processes": ("workers",),
    "ray": ("address", "cpus", "gpus", "pack"),
    "population": ("size", "device"),
}
"""The options of each executor, which are refused with another one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--executor",
        choices=["processes", "ray", "population"],
        default="processes",
        help="processes of this machine (default), tasks of a Ray cluster (extra 'cluster'), or runs stacked on a GPU",
    )
    ray = parser.add_argument_group("with --executor ray")
    ray.add_argument("--address", help="HOST:PORT of the cluster, or auto (default: start Ray on this machine)")
    ray.add_argument("--cpus", type=float, help="cores that a task takes (default: 1)")
    ray.add_argument("--gpus", type=float, help="GPUs that a task takes, such as 0.25 (default: none, on the CPU)")
    ray.add_argument("--pack", type=int, metavar="N", help="runs that a task trains one after the other (default: 1)")
    population = parser.add_argument_group("with --executor population")
    population.add_argument(
        "--size", type=int, metavar="N", help="most runs that are trained at one time (default: 64)"
    )
    population.add_argument("--device", help="torch's name of the device (default: cuda)")


def chosen(args: argparse.Namespace) -> Executor | None:
    """The executor that the options name; ``None`` for processes. Errors: ``ConfigError`` for options of another."""
    from mechproc.errors import require

    given = {
        executor: {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        for executor, names in OPTIONS.items()
    }
    for executor, options in given.items():
        for name, value in options.items():
            require(executor == args.executor, f"--{name}", value, f"an option of --executor {executor}")
    if args.executor == "processes":
        return None  # with as many workers as are asked for
    if args.executor == "population":
        from mechproc.runs.executors.populations import Populations

        return Populations(**given["population"])
    from mechproc.runs.executors.ray import Ray

    return Ray(**given["ray"])
