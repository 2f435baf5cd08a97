"""``mechproc export``: a model of ours for another library."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.model.config import ModelConfig
    from mechproc.model.state import State


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "export",
        help="write a model for transformers (GPT-2) or for TransformerLens (HookedTransformer)",
        description="Writes a new folder with config.json and model.safetensors, which `mechproc import` reads too. "
        "What the other side cannot hold is refused. The weights keep their dtype; --to tl names one other than "
        "float32 in config.json (HookedTransformerConfig wants it as torch.NAME).",
    )
    parser.add_argument(
        "model", help="a model file, a folder with model.safetensors, such as a run's, or a donor, such as set:3"
    )
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist, or be empty")
    parser.add_argument(
        "--to",
        choices=("gpt2", "tl"),
        required=True,
        help="gpt2: what GPT2LMHeadModel.from_pretrained reads; tl: a state dict in HookedTransformer's names",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert a model, write its folder and print its size."""
    from mechproc.cli.import_model import summary
    from mechproc.files import check_new_folder
    from mechproc.model.convert.gpt2 import save_gpt2
    from mechproc.model.convert.hooked_transformer import save_hooked_transformer

    check_new_folder(args.out)
    cfg, state = _load(args.model)
    (save_gpt2 if args.to == "gpt2" else save_hooked_transformer)(args.out, cfg, state)
    print(f"{args.out}: {summary(cfg, state)}")
    return 0


def _load(model: str) -> tuple[ModelConfig, State]:
    """What stands at a path, or else the donor that ``RULE:SEED`` names."""
    from mechproc.model.io import load_model
    from mechproc.pretrained import pretrained_weights

    rule, _, seed = model.rpartition(":")
    if rule and seed.isdecimal() and not Path(model).exists():
        return pretrained_weights(rule, int(seed))
    return load_model(model)[:2]
