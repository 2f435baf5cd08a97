"""``mechproc import``: a model of another library becomes one of ours. The only command that may read a pickle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.model.config import ModelConfig
    from mechproc.model.state import State


DESCRIPTION = """\
SOURCE is one of
  - a GPT-2 of transformers: a folder with config.json and model.safetensors (or its shards, or pytorch_model.bin);
  - a HookedTransformer of TransformerLens 3.x and before: a file that holds its state dict, or a folder with
    model.safetensors; its settings are JSON, beside it as FILE.json or config.json, or given with --config;
  - a checkpoint of nanoGPT, such as out/ckpt.pt.

These lines of Python write a HookedTransformer, settings included, so that "mechproc import model.pt OUT
--allow-pickle" reads it:

  import json, torch
  torch.save(model.state_dict(), "model.pt")
  json.dump(model.cfg.to_dict(), open("model.json", "w"), default=str)

From Python, mechproc.model.convert reads models that are in memory, TransformerLens 4's bridges included.
The weights keep their dtype. What our models cannot hold is refused."""


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "import",
        help="turn a GPT-2 of transformers, a HookedTransformer or a nanoGPT into a mechproc model file",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a folder, or the file of a state dict")
    parser.add_argument("out", type=Path, help="the model file to write, such as gpt2.safetensors")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the settings of a HookedTransformer, in JSON")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read files of torch.save, .pt or pytorch_model.bin (weights only: no code in them is run)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert a model, write its file and print its size."""
    from mechproc.errors import require
    from mechproc.model.io import save_model

    require(not args.out.exists(), "out", str(args.out), "a file that does not exist yet")
    cfg, state = _load(args.source, args.config, args.allow_pickle)
    path = save_model(args.out, cfg, state, {"imported_from": args.source.name})
    print(f"{path}: {summary(cfg, state)}")
    return 0


def summary(cfg: ModelConfig, state: State) -> str:
    """The size of a model in a few words, and its dtype unless that is float32."""
    from mechproc.model.state import dtype_of, n_parameters

    dtype = str(dtype_of(state)).removeprefix("torch.")
    sizes = f"{cfg.n_layers} layers, {cfg.n_heads} heads, d_model {cfg.d_model}, {n_parameters(cfg):,} parameters"
    return sizes + (", tied embeddings" if cfg.tied_embeddings else "") + ("" if dtype == "float32" else f", {dtype}")


def _load(source: Path, config: Path | None, allow_pickle: bool) -> tuple[ModelConfig, State]:
    """A GPT-2 where a folder's settings are GPT-2's, a nanoGPT where a file is one, otherwise a HookedTransformer."""
    from mechproc.errors import require
    from mechproc.files import read_json
    from mechproc.model.convert.folder import CONFIG_FILE, read_content
    from mechproc.model.convert.gpt2 import load_gpt2
    from mechproc.model.convert.hooked_transformer import load_hooked_transformer
    from mechproc.model.convert.nanogpt import from_nanogpt, is_nanogpt
    from mechproc.model.io import MODEL_FILE

    require(source.exists(), "source", str(source), "a folder or file that exists")
    beside = (source / MODEL_FILE).with_suffix(".json")  # where only a HookedTransformer has its settings
    hooked = beside.exists() or config is not None or not source.is_dir()
    if not hooked and not {"n_layers", "d_model"} <= read_json(source / CONFIG_FILE).keys():
        return load_gpt2(source, allow_pickle)
    if config is None and source.is_file():
        content = read_content(source, allow_pickle)
        if is_nanogpt(content):
            return from_nanogpt(content, str(source))
    return load_hooked_transformer(source, config, allow_pickle)
