"""``mechproc model list|show|import|export``: shipped models, model files, and models of other libraries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.model.config import ModelConfig
    from mechproc.model.state import State


MODEL = "a shipped model, such as set:3, a model file, or a folder with model.safetensors, such as a run's"
IMPORT = """\
SOURCE is one of
  - a GPT-2 of transformers: a folder with config.json and model.safetensors (or its shards, or pytorch_model.bin);
  - a HookedTransformer of TransformerLens 3.x and before: a file that holds its state dict, or a folder with
    model.safetensors; its settings are JSON, beside it as FILE.json or config.json, or given with --config;
  - a checkpoint of nanoGPT, such as out/ckpt.pt.

These lines of Python write a HookedTransformer, settings included, so that "mechproc model import model.pt
OUT --allow-pickle" reads it:

  import json, torch
  torch.save(model.state_dict(), "model.pt")
  json.dump(model.cfg.to_dict(), open("model.json", "w"), default=str)

From Python, mechproc.model.convert reads models that are in memory, TransformerLens 4's bridges included.
The weights keep their dtype. What our models cannot hold is refused."""
EXPORT = (
    "Writes a new folder with config.json and model.safetensors, which `mechproc model import` reads too. What the "
    "other side cannot hold is refused. The weights keep their dtype; --to tl names one other than float32 in "
    "config.json (HookedTransformerConfig wants it as torch.NAME)."
)


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("model", help="list, show, import and export models")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="the models that come along: seeds of each rule, their scores")
    show = actions.add_parser("show", help="shape, origin and scores of a model, or the card of a rule's models")
    show.add_argument("model", help=f"a rule with shipped models, such as set; {MODEL}")
    importing = actions.add_parser(
        "import",
        help="turn a GPT-2 of transformers, a HookedTransformer or a nanoGPT into a mechproc model file",
        description=IMPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importing.add_argument("source", type=Path, help="a folder, or the file of a state dict")
    importing.add_argument("out", type=Path, help="the model file to write, such as gpt2.safetensors")
    importing.add_argument("--config", type=Path, metavar="FILE", help="the settings of a HookedTransformer, in JSON")
    importing.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read files of torch.save, .pt or pytorch_model.bin (weights only: no code in them is run)",
    )
    exporting = actions.add_parser(
        "export", help="write a model for transformers (GPT-2) or TransformerLens", description=EXPORT
    )
    exporting.add_argument("model", help=MODEL)
    exporting.add_argument("out", type=Path, help="the folder to write; it must not exist, or be empty")
    exporting.add_argument(
        "--to",
        choices=("gpt2", "tl"),
        required=True,
        help="gpt2: what GPT2LMHeadModel.from_pretrained reads; tl: a state dict in HookedTransformer's names",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    return {"list": _list, "show": _show, "import": _import, "export": _export}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    """Print one line for each rule; accuracies are over scored tokens, from 0 to 1."""
    from mechproc.pretrained import card, shipped

    names = shipped()
    width = 2 + max(map(len, names))
    print(
        f"{'rule':{width}}{'seeds':>6}{'lowest':>9}{'mean':>9}{'highest':>9}{'ceiling':>9}{'baseline':>10}{'mastered':>10}"
    )
    for rule in names:
        known = card(rule)
        scores = [donor["accuracy"] for donor in known["donors"]]
        figures = (min(scores), sum(scores) / len(scores), max(scores), known["ceiling"])
        columns = "".join(f"{value:9.4f}" for value in figures)
        best, n = max(known["baselines"].values()), len(scores)
        print(f"{rule:{width}}{n:6}{columns}{best:10.4f}{len(known['mastered']):>6} of {n}")
    print('\nmechproc model show RULE: their card; mechproc.load_pretrained("set", seed=3) loads one')
    return 0


def _show(args: argparse.Namespace) -> int:
    """Print the card of a rule's models, or the facts of one model, one a line."""
    from mechproc.pretrained import DATA, shipped

    if args.model in shipped():
        print((DATA / args.model / "card.md").read_text(encoding="utf-8"), end="")
        return 0
    cfg, state, facts = read(args.model)
    print(f"{args.model}: {summary(cfg, state)}")
    for name, value in (cfg.to_dict() | facts).items():
        print(f"  {name:20}{value}")
    return 0


def _import(args: argparse.Namespace) -> int:
    """Convert a model, write its file and print its size."""
    from mechproc.errors import require
    from mechproc.model.io import save_model

    require(not args.out.exists(), "out", str(args.out), "a file that does not exist yet")
    cfg, state = _foreign(args.source, args.config, args.allow_pickle)
    path = save_model(args.out, cfg, state, {"imported_from": args.source.name})
    print(f"{path}: {summary(cfg, state)}")
    return 0


def _export(args: argparse.Namespace) -> int:
    """Convert a model, write its folder and print its size."""
    from mechproc.files import check_new_folder
    from mechproc.model.convert.gpt2 import save_gpt2
    from mechproc.model.convert.hooked_transformer import save_hooked_transformer

    check_new_folder(args.out)
    cfg, state, _ = read(args.model)
    (save_gpt2 if args.to == "gpt2" else save_hooked_transformer)(args.out, cfg, state)
    print(f"{args.out}: {summary(cfg, state)}")
    return 0


def read(model: str) -> tuple[ModelConfig, State, dict[str, Any]]:
    """Config and weights of what stands at a path, or else of the shipped model ``RULE:SEED``; what is known of it."""
    from mechproc.model.io import load_model
    from mechproc.pretrained import card, pretrained_weights

    rule, _, seed = model.rpartition(":")
    if not rule or not seed.isdecimal() or Path(model).exists():
        return load_model(model)
    cfg, state = pretrained_weights(rule, int(seed))
    known = card(rule)
    (facts,) = [donor for donor in known["donors"] if donor["seed"] == int(seed)]
    kept = {name: facts[name] for name in ("accuracy", "item_accuracy", "steps", "run")}
    return cfg, state, {"rule": rule, "ceiling": known["ceiling"]} | kept


def summary(cfg: ModelConfig, state: State) -> str:
    """The size of a model in a few words, and its dtype unless that is float32."""
    from mechproc.model.state import dtype_of, n_parameters

    dtype = str(dtype_of(state)).removeprefix("torch.")
    sizes = f"{cfg.n_layers} layers, {cfg.n_heads} heads, d_model {cfg.d_model}, {n_parameters(cfg):,} parameters"
    return sizes + (", tied embeddings" if cfg.tied_embeddings else "") + ("" if dtype == "float32" else f", {dtype}")


def _foreign(source: Path, config: Path | None, allow_pickle: bool) -> tuple[ModelConfig, State]:
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
