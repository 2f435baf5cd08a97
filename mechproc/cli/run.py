"""``mechproc run FILE``: one training from a config, its donors first."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser("run", help="train what a config file says, its donors first; resumes by itself")
    parser.add_argument("config", type=Path, help="a run config in JSON (the config of a run's config.json)")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument("--engine", default="auto", help="auto (default), reference, torch or cpu, the C++ kernel")
    parser.add_argument("--device", default="cpu", help="where the torch engine trains, such as cuda (default: cpu)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, or say that it is done already; print the test scores."""
    from mechproc.cli.progress import Lines
    from mechproc.cli.scores import bits, spelled
    from mechproc.errors import ConfigError
    from mechproc.files import read_json
    from mechproc.runs.config import RunConfig
    from mechproc.runs.execute import execute
    from mechproc.runs.executors.processes import one_thread
    from mechproc.runs.store import Store
    from mechproc.training.engines import choose

    plain = read_json(args.config)
    config = RunConfig.from_dict(plain.get("config", plain), where=args.config.name)
    recorded = plain.get("identity", config.identity) if "config" in plain else config.identity
    if recorded != config.identity:
        raise ConfigError(
            f"identity = {str(recorded)[:12]}... in {args.config} is not allowed: that is {config.name} now, as a "
            "procedure or mechproc has changed since; without that line it is trained anew"
        )
    choose(args.engine, config.model, device=args.device)  # what cannot train is said before anything starts
    store = Store(args.store)
    with one_thread():
        for needed in store.missing([config]):
            print(f"{needed.name}: training {needed.procedure.kind}, {needed.training.last_step} steps", flush=True)
            execute(needed, store, Lines(), args.engine, args.device)
    test = store.test(config)
    print(f"{store.folder(config)}: accuracy {test['accuracy']:.4f} on {test['n_items']} test items", end="")
    print(f" (ceiling {spelled(test['ceiling'])}, best baseline {max(test['baselines'].values()):.4f})")
    if config.procedure.scored_unit == "character":
        print(f"{bits(test['loss'])} (best baseline {bits(min(test['baseline_losses'].values()))})")
    return 0
