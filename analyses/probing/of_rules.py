"""Where stack depth is readable in the shipped models of ``stack`` and ``k-dyck``, and where it is used.

    python -m analyses.probing.of_rules --out results/analyses/probing
    python -m analyses.probing.of_rules --donors --out results/analyses/probing/transferable

writes two Results for each rule; with ``--donors`` of the models that ship as donors for other tasks
(``transferable/RULE``). The tables of ``docs/questions/stack-depth.md`` are made from them (``analyses.probing.page``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analyses.probing.causal import causal_effect
from analyses.probing.read import run
from analyses.shipped import asked
from mechproc.pretrained import TRANSFERABLE, card, load_pretrained
from mechproc.procedures import Procedure

LATENTS = {"stack": ["depth", "top", "top_position", "survives"], "k-dyck": ["depth", "top", "innermost"]}
OF_DONORS = {"stack": ["depth"], "k-dyck": ["depth", "top"]}
SEEDS, SEEDS_OF_DONORS = range(10), range(10, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the files."""
    settings = asked("analyses.probing.of_rules", "depth in shipped models", arguments)
    latents, seeds = (OF_DONORS, SEEDS_OF_DONORS) if settings.donors else (LATENTS, SEEDS)
    settings.out.mkdir(parents=True, exist_ok=True)
    for rule, of_rule in latents.items():
        name = f"{TRANSFERABLE}{rule}" if settings.donors else rule
        procedure = Procedure.from_dict(card(name)["procedure"])
        models = {seed: load_pretrained(name, seed) for seed in seeds}
        run(models, procedure, of_rule).save(settings.out / f"{rule}-readable.json")
        causal_effect(models, procedure, of_rule).save(settings.out / f"{rule}-used.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
