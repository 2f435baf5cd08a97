"""``mechproc list``: the pretrained models that come with mechproc."""

from __future__ import annotations

import argparse
from typing import Any


def add(subparsers: Any) -> None:
    """Declare the verb."""
    parser = subparsers.add_parser("list", help="the pretrained models that come along, with their scores")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each rule; accuracies are over scored tokens, from 0 to 1."""
    from mechproc.pretrained import DATA, card, shipped

    print(
        f"{'rule':14}{'seeds':>6}{'lowest':>9}{'mean':>9}{'highest':>9}{'ceiling':>9}{'baseline':>10}{'mastered':>10}"
    )
    for rule in shipped():
        known = card(rule)
        scores = [donor["accuracy"] for donor in known["donors"]]
        figures = (min(scores), sum(scores) / len(scores), max(scores), known["ceiling"])
        columns = "".join(f"{value:9.4f}" for value in figures)
        best, n = max(known["baselines"].values()), len(scores)
        print(f"{rule:14}{n:6}{columns}{best:10.4f}{len(known['mastered']):>6} of {n}")
    print(f'\nmechproc.load_pretrained("set", seed=3) loads one; their cards: {DATA}/RULE/card.md')
    return 0
