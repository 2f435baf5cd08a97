"""``mechproc parts [EXPRESSION]``: the table of parts, the parts of a model, or what an expression names in it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.model.config import ModelConfig

DEFAULT_SHAPE = {"n_layers": 2, "n_heads": 4, "d_model": 16, "n_ctx": 64, "d_vocab": 128}
MOST_ROWS = 24
"""Activations that are printed before the rest is only counted."""


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser(
        "parts",
        help="what parts a model has; with an expression: what it names",
        description="Without arguments: the table of parts. With options: the parts of a model of that shape. With an "
        "expression, such as 'attn - L0.H2': its tensors, its activations, and what ablations mean there.",
    )
    parser.add_argument("expression", nargs="?", help="parts joined with + and removed with -")
    shape = parser.add_argument_group("shape of the model", "2 layers, 4 heads, width 16 unless given")
    for option, field, text in [
        ("--layers", "n_layers", "layers"),
        ("--heads", "n_heads", "heads in a layer"),
        ("--width", "d_model", "width of the residual stream"),
        ("--mlp", "d_mlp", "neurons in a layer; 0 for none (4 times the width)"),
        ("--positions", "n_ctx", "positions"),
        ("--vocab", "d_vocab", "tokens"),
    ]:
        shape.add_argument(option, dest=field, type=int, default=argparse.SUPPRESS, metavar="N", help=text)
    shape.add_argument(
        "--tied", dest="tied_embeddings", action="store_true", default=argparse.SUPPRESS, help="tied embeddings"
    )
    shape.add_argument(
        "--no-layernorm",
        dest="normalization_type",
        action="store_const",
        const=None,
        default=argparse.SUPPRESS,
        help="no LayerNorms",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what is asked for."""
    from mechproc.model.config import ModelConfig
    from mechproc.model.parts import model_markdown, table_markdown

    shape = {name: value for name, value in vars(args).items() if name in ModelConfig.__dataclass_fields__}
    cfg = ModelConfig.from_dict(DEFAULT_SHAPE | shape, where="shape")
    if args.expression is not None:
        print(describe(args.expression, cfg))
    else:
        print(model_markdown(cfg) if shape else table_markdown())
    return 0


def describe(expression: str, cfg: ModelConfig) -> str:
    """The tensors and the activations of an expression in a model of this shape, as Markdown."""
    from mechproc.errors import PartError
    from mechproc.model.parts import Ablation, Selection, Undefined, meaning, select, sites
    from mechproc.model.parts.table import markdown

    selection, total = select(expression, cfg), select("all", cfg).n_parameters
    tensors = []
    for name, indices in selection.tensors().items():
        count = Selection(cfg, frozenset(s for s in selection.slices if s.tensor == name)).n_parameters
        tensors.append((f"`{name}`", "all" if indices is None else _ranges(indices), f"{count:,}"))
    share = selection.n_parameters / total
    lines = [f"{expression}: {selection.n_parameters:,} of {total:,} parameters ({share:.1%})", ""]
    lines += [markdown(("tensor", "heads or neurons", "parameters"), tensors), ""]
    try:
        found = sites(expression, cfg)
    except PartError as error:
        return "\n".join([*lines, f"No ablation: {error}"])
    rows = []
    for site in found[:MOST_ROWS]:
        texts = [meaning(site, ablation) for ablation in Ablation]
        cells = (f"*undefined*: {text}" if isinstance(text, Undefined) else text for text in texts)
        rows.append((f"`{site.part}`", f"`{site.address}`", *cells))
    lines.append(markdown(("part", "activation", *(a.value for a in Ablation)), rows))
    if len(found) > MOST_ROWS:
        lines.append(f"and {len(found) - MOST_ROWS} more")
    covered = frozenset[Any]().union(*(select(site.part, cfg).slices for site in found))
    for left in Selection(cfg, selection.slices - covered):
        lines.append(f"\nNo ablation reaches {left.tensor}: it belongs to all of its layer, of which this is a part.")
    return "\n".join(lines)


def _ranges(indices: tuple[int, ...]) -> str:
    """``(0, 1, 2, 5)`` -> ``"0-2, 5"``."""
    known = set(indices)
    starts = [i for i in indices if i - 1 not in known]
    ends = [i for i in indices if i + 1 not in known]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
