"""``mechproc import``: a GPT-2 of ``transformers`` becomes a model of ours. The only command that may read a pickle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser("import", help="turn a GPT-2 folder of transformers into a mechproc model file")
    parser.add_argument("folder", type=Path, help="a folder with config.json and model.safetensors")
    parser.add_argument("out", type=Path, help="the model file to write, such as gpt2.safetensors")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read pytorch_model.bin where there is no model.safetensors (weights only: no code in it is run)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, write, and say what it is."""
    from mechproc.errors import require
    from mechproc.model.gpt2 import load_gpt2
    from mechproc.model.io import save_model
    from mechproc.model.state import n_parameters

    require(not args.out.exists(), "out", str(args.out), "a file that does not exist yet")
    cfg, state = load_gpt2(args.folder, allow_pickle=args.allow_pickle)
    path = save_model(args.out, cfg, state, {"imported_from": args.folder.name})
    print(
        f"{path}: {cfg.n_layers} layers, {cfg.n_heads} heads, d_model {cfg.d_model}, {n_parameters(cfg):,} parameters"
    )
    return 0
