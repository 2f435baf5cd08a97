"""``mechproc export``: a model of ours for another library."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "export",
        help="write a model for transformers (GPT-2) or for TransformerLens (HookedTransformer)",
        description="Writes a new folder with config.json and model.safetensors, which `mechproc import` reads too. "
        "What the other side cannot hold is refused.",
    )
    parser.add_argument("model", type=Path, help="a model file, or a folder with model.safetensors, such as a run's")
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist, or be empty")
    parser.add_argument(
        "--to",
        choices=("gpt2", "tl"),
        required=True,
        help="gpt2: what GPT2LMHeadModel.from_pretrained reads; tl: a state dict in HookedTransformer's names",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, write, and say what it is."""
    from mechproc.cli.import_model import summary
    from mechproc.files import check_new_folder
    from mechproc.model.gpt2 import save_gpt2
    from mechproc.model.io import load_model
    from mechproc.model.tl_checkpoint import save_hooked_transformer

    check_new_folder(args.out)
    cfg, state, _ = load_model(args.model)
    (save_gpt2 if args.to == "gpt2" else save_hooked_transformer)(args.out, cfg, state)
    print(f"{args.out}: {summary(cfg)}")
    return 0
