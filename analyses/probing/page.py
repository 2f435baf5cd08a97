"""The tables of ``docs/questions/stack-depth.md``, from what ``analyses.probing.of_rules`` wrote.

    python -m analyses.probing.page

Each table stands between marks in the page; the sentences around them are written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mechproc.pages import table, write_sections
from mechproc.result import Result

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results" / "analyses" / "probing"
OF_THE_DONORS = MEASURED / "transferable"
PAGE = ROOT / "docs" / "questions" / "stack-depth.md"
RULES = ("stack", "k-dyck")
SITES = {
    "L0.resid_pre": "embeddings and positions",
    "L0.attn": "attention of layer 0",
    "L0.resid_mid": "residual stream after it",
    "L0.mlp": "MLP of layer 0",
    "L0.resid_post": "residual stream after layer 0",
    "L1.attn": "attention of layer 1",
    "L1.resid_mid": "residual stream after it",
    "L1.mlp": "MLP of layer 1",
    "L1.resid_post": "residual stream at the end",
}
READ = {"accuracy": "", "untrained": "untrained", "control": "control", "description length": "code"}
USED = (("stack", "depth"), ("k-dyck", "depth"), ("k-dyck", "top"))
ABOVE = 0.05
"""Nats above the largest random change from which a seed counts."""


def sections() -> dict[str, str]:
    """The tables by the name of their marks, as Markdown. Errors: ``StoreError``."""
    folders = {"": MEASURED, "donors-": OF_THE_DONORS}
    return {
        f"{prefix}{name}": of(folder) for prefix, folder in folders.items()
        for name, of in (("readable", _readable), ("used", _used))
    }  # fmt: skip


def write(page: Path = PAGE) -> None:
    """Put every table into the page. Errors: ``StoreError``."""
    write_sections(page, sections())


def _readable(folder: Path) -> str:
    """How well depth is read at each site, means over the seeds; the majority in the last row."""
    found = {rule: Result.load(folder / f"{rule}-readable.json").select(latent="depth") for rule in RULES}
    head = ["site", *(name or rule for rule in RULES for name in READ.values())]
    rows = [
        [f"{text} (`{site}`)", *(_mean(found[rule], site=site, quantity=each) for rule in RULES for each in READ)]
        for site, text in SITES.items()
    ]
    majority = [_mean(each, site="L0.attn", quantity="majority") for each in found.values()]
    blanks = [""] * (len(READ) - 1)
    rows.append(["the most frequent depth", *(cell for one in majority for cell in (one, *blanks))])
    return table(head, rows)


def _used(folder: Path) -> str:
    """Loss gained by a patch along what a probe reads, beside random directions, and in how many seeds it is more."""
    found = {rule: Result.load(folder / f"{rule}-used.json") for rule in RULES}
    head = ["site", *(name for rule, latent in USED for name in (f"{rule}: {latent}", "random", "seeds"))]
    rows = []
    for site in SITES:
        row = [f"`{site}`"]
        for rule, latent in USED:
            cell = found[rule].select(latent=latent, site=site)
            patched, largest = (cell.select(quantity=q).values for q in ("patched", "patched, largest random"))
            more = f"{int((patched - largest > ABOVE).sum())} of {len(patched)}"
            row += [_mean(cell, quantity="patched"), _mean(cell, quantity="patched, random"), more]
        rows.append(row)
    return table(head, rows)


def _mean(found: Result, **labels: str) -> str:
    return f"{float(np.mean(found.select(**labels).values)):z.2f}"


if __name__ == "__main__":
    write()
    sys.exit(0)
