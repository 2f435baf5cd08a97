"""``mechproc run FILE``: one training from a config, its donors first."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.runs.config import RunConfig
    from mechproc.runs.store import Store
    from mechproc.training.loop import Progress


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("run", help="train what a config file says, its donors first; resumes by itself")
    parser.add_argument("config", type=Path, help="a run config in JSON (the config of a run's config.json)")
    parser.add_argument("--store", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument("--engine", default="auto", help="auto (default), reference, torch or cpu, the C++ kernel")
    parser.add_argument("--device", default="cpu", help="where the torch engine trains, such as cuda (default: cpu)")
    parser.add_argument(
        "--no-wait", action="store_true", help="fail where another process trains one of these runs, and do not wait"
    )
    add_allow_code(parser)
    parser.set_defaults(run=run)


def add_allow_code(parser: Any) -> None:
    """Declare ``--allow-code``."""
    parser.add_argument(
        "--allow-code", metavar="FILE.py", action="append", default=[], help="execute this file where a config names it"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or say that the run is complete; print the test scores."""
    from mechproc.cli.progress import Lines
    from mechproc.cli.scores import bits, spelled
    from mechproc.errors import ConfigError, require
    from mechproc.files import read_json
    from mechproc.procedures import allow
    from mechproc.provenance import provenance
    from mechproc.runs.config import RunConfig
    from mechproc.runs.store import Store
    from mechproc.threads import one_thread
    from mechproc.training.engines import choose

    allow(*args.allow_code)
    plain = read_json(args.config)
    config = RunConfig.from_dict(plain.get("config", plain), where=args.config.name)
    recorded = plain.get("identity", config.identity) if "config" in plain else config.identity
    if recorded != config.identity:
        raise ConfigError(
            f"identity = {str(recorded)[:12]}... in {args.config} is not allowed: that is {config.name} now, as a "
            "procedure or mechproc has changed since; without that line it is trained anew"
        )
    choose(args.engine, config.model, device=args.device)  # an engine that cannot train is refused at once
    store = Store(args.store)
    missing = store.missing([config])
    if not missing:
        made = store.provenance(config)
        print(f"{config.name} is complete: it was computed by the engine {made['engine']} on {made['device']}")
        engine, device = made["engine"].split(",")[0].split()[0], made["device"]
        allowed = f"which computed {store.folder(config)}; or remove that first"
        require(args.engine in ("auto", engine), "engine", args.engine, f"{engine!r}, {allowed}")
        same = args.device == "cpu" or provenance(device=args.device)["device"] == device
        require(same, "device", args.device, f"{device!r}, {allowed}")
    with one_thread():
        for needed in missing:
            print(f"{needed.name}: training {needed.procedure.kind}, {needed.training.last_step} steps", flush=True)
            _train(needed, store, Lines(), args)
    test = store.test(config)
    print(f"{store.folder(config)}: accuracy {test['accuracy']:.4f} on {test['n_items']} test items", end="")
    print(f" (ceiling {spelled(test['ceiling'])}, best baseline {max(test['baselines'].values()):.4f})")
    if config.procedure.scored_unit == "character":
        print(f"{bits(test['loss'])} (best baseline {bits(min(test['baseline_losses'].values()))})")
    return 0


def _train(run: RunConfig, store: Store, progress: Progress, args: argparse.Namespace) -> None:
    """Train one run; where another process trains it already, wait for that one."""
    from mechproc.runs.execute import execute
    from mechproc.runs.store import RunBusyError

    waiting = False
    while True:
        try:
            return execute(run, store, progress, args.engine, args.device)
        except RunBusyError:
            if args.no_wait:
                raise
            if not waiting:
                print(f"{run.name}: waiting for another process that trains it", flush=True)
            waiting = True
            time.sleep(1.0)
