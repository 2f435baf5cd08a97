"""``mechproc procedure list|show``: rules and tasks, and everything about one of them."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the noun."""
    parser = subparsers.add_parser("procedure", help="rules and tasks: worked examples, latents, ceiling, baselines")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="all procedures, each with a line and an example")
    listing.add_argument("--markdown", action="store_true", help="a page of Markdown with all worked examples")
    show = actions.add_parser("show", help="one procedure: settings, examples, latents, ceiling, baselines")
    show.add_argument("name", help="a procedure, such as set, or FILE.py:Class")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list, or one procedure."""
    from mechproc.procedures import get, procedures

    if args.action == "show":
        print(describe(get(args.name)))
    elif args.markdown:
        print(page())
    else:
        for name, cls in procedures().items():
            print(f"{name:20}{_first_line(cls)}")
            for example in cls.examples[:1]:
                print(f"{'':20}{example.text}")
    return 0


def describe(cls: Any) -> str:
    """One procedure at its default settings, as plain text."""
    from mechproc.cli.scores import bits, spelled
    from mechproc.pretrained import card, shipped
    from mechproc.procedures.display import show

    procedure = cls.from_dict({})
    block = procedure.items(1000)
    lines = [f"{cls.kind} {procedure.version}", "", *textwrap.wrap(_paragraphs(cls)[0], 100), ""]
    lines += ["Settings: " + ", ".join(f"{k} = {v}" for k, v in procedure.to_dict().items() if k != "kind")]
    lines += [
        f"A length counts {cls.length_unit}. Tokens: {procedure.d_vocab}. Longest item: {procedure.n_ctx} tokens.",
        "",
    ]
    lines += ["Worked examples:", *(textwrap.indent(_spread(example), "    ") + "\n" for example in cls.examples)]
    lines += ["Test items (scored tokens in brackets):", textwrap.indent(show(procedure, 2), "    "), ""]
    ceiling, losses = procedure.ceiling(block), procedure.baseline_losses(block)
    lines += [f"Best attainable {procedure.scored_unit} accuracy: {spelled(ceiling, 3)}"]
    lines += [
        f"Without the rule, {name}: {value:.3f}" + (f", {bits(losses[name])}" if name in losses else "")
        for name, value in procedure.baselines(block).items()
    ]
    if cls.kind in shipped():
        known = card(cls.kind)
        scores = [donor["accuracy"] for donor in known["donors"]]
        mastered = f"{len(known['mastered'])} of {len(scores)} master it"
        lines += ["", f"Donors: {len(scores)} seeds, accuracy {min(scores):.4f} to {max(scores):.4f}; {mastered}"]
    for title, table in _tables(cls).items():
        lines += ["", f"{title}:", *(f"    {name:18}{text}" for name, text in table.items())]
    return "\n".join(lines)


def page() -> str:
    """All shipped procedures as Markdown: what is the same on every machine."""
    from mechproc.procedures import builtin_procedures

    lines = [
        "# Procedures",
        "",
        "Written by `mechproc procedure list --markdown`. Tokens, positions and values are aligned; a latent",
    ]
    lines += [
        "without a value is a dot. `mechproc procedure show NAME` adds settings, items, ceiling and baselines.",
        "",
    ]
    for kind, cls in builtin_procedures().items():
        lines += [f"## {kind}", ""]
        lines += [line for paragraph in _paragraphs(cls) for line in (*textwrap.wrap(paragraph, 120), "")]
        for example in cls.examples:
            lines += ["```", _spread(example), "```", ""]
        for title, table in _tables(cls).items():
            lines += [f"{title}:", "", *(f"- `{name}`: {text}" for name, text in table.items()), ""]
    return "\n".join(lines).rstrip()


def _spread(example: Any) -> str:
    """A worked example: its tokens in columns, its latents under them, what is scored, and the settings it needs."""
    from mechproc.procedures import UNDEFINED

    tokens = example.text.split()
    latents = {name: ["." if v == UNDEFINED else str(v) for v in row] for name, row in example.latents.items()}
    widths = [max(map(len, column)) for column in zip(tokens, *latents.values(), strict=True)]
    rows = {"": tokens, **latents}
    left = max(13, *(len(name) + 1 for name in rows))
    lines = [
        f"{name:{left}}" + " ".join(v.rjust(w) for v, w in zip(row, widths, strict=True)) for name, row in rows.items()
    ]
    lines += [f"{'scored':{left}}{example.scored}"]
    if example.settings:
        lines += [f"{'with':{left}}" + ", ".join(f"{name} = {value}" for name, value in example.settings.items())]
    return "\n".join(lines)


def _tables(cls: Any) -> dict[str, dict[str, str]]:
    pairs = {name: kind.description for name, kind in cls.pair_kinds.items()}
    tables = {"Latents": cls.latent_names, "Attention targets": cls.attention_target_names, "Minimal pairs": pairs}
    return {title: table for title, table in tables.items() if table}


def _paragraphs(cls: Any) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in (cls.__doc__ or "").strip().split("\n\n")]


def _first_line(cls: Any) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]
