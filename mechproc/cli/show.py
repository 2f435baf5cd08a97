"""``mechproc show [NAME]``: the procedures, or everything about one of them."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser("show", help="the procedures; with a name: worked examples, latents, ceiling")
    parser.add_argument("name", nargs="?", help="a procedure, such as set, or FILE.py:Class")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list, or one procedure."""
    from mechproc.procedures import get, procedures

    if args.name is None:
        for name, cls in procedures().items():
            print(f"{name:20}{_first_line(cls)}")
            for example in cls.examples[:1]:
                print(f"{'':20}{example.text}")
        return 0
    print(describe(get(args.name)))
    return 0


def describe(cls: Any) -> str:
    """One procedure at its default settings, as plain text."""
    from mechproc.cli.scores import bits, spelled
    from mechproc.donors import card, shipped
    from mechproc.procedures.base import show

    procedure = cls.from_dict({})
    block = procedure.items(1000)
    lines = [f"{cls.kind} {procedure.version}", "", *textwrap.wrap(_paragraph(cls), 100), ""]
    lines += ["Settings: " + ", ".join(f"{k} = {v}" for k, v in procedure.to_dict().items() if k != "kind")]
    lines += [
        f"A length counts {cls.length_unit}. Tokens: {procedure.d_vocab}. Longest item: {procedure.n_ctx} tokens.",
        "",
    ]
    lines += ["Worked examples (what is scored, after the arrow):"]
    lines += [f"    {example.text}   ->   {example.scored}" for example in cls.examples]
    lines += ["", "Test items (scored tokens in brackets):", textwrap.indent(show(procedure, 2), "    "), ""]
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
    pairs = {name: kind.description for name, kind in cls.pair_kinds.items()}
    for title, table in [
        ("Latents", cls.latent_names),
        ("Attention targets", cls.mask_names),
        ("Minimal pairs", pairs),
    ]:
        if table:
            lines += ["", f"{title}:", *(f"    {name:18}{text}" for name, text in table.items())]
    return "\n".join(lines)


def _paragraph(cls: Any) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def _first_line(cls: Any) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]
