"""The page of the search: what was run and what was not, what predicts transfer, and the log of everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mechproc.pages import table, write_between
from mechproc.result import Result
from mechproc.runs.store import Store
from mechproc.statistics.prediction import Prediction
from mechproc.studies import transferable_reading as reading
from mechproc.studies.pretraining import FROZEN
from mechproc.studies.transferable import CROSSED, DONOR_STEPS, PROBE, SEEDS

NAME = "transferable"
"""The name of the marks between which the results stand."""


def markdown(store: Store, statistics: Result | None = None, seeds: Sequence[int] = SEEDS) -> str:
    """What the records say; ``statistics``: of the donors' weights, as ``analyses.transferable`` gives them."""
    found: Any = reading.probes(store, seeds)
    return "\n".join(
        [
            *_status(found, store, seeds),
            "",
            "## What was frozen",
            "",
            *_frozen(found),
            "",
            "## What predicts transfer",
            "",
            *_predictors(found, statistics),
            "",
            "## By level of each factor",
            "",
            *_levels(found),
            "",
            "## Log of all that was searched",
            "",
            *_log(found),
        ]
    )


def write(path: Path, text: str) -> None:
    """Put the results between the marks of a page. Errors: ``StoreError``."""
    write_between(path, NAME, text)


def _status(found: Any, store: Store, seeds: Sequence[int]) -> list[str]:
    n_planned = len(found) + int(found["has_full"].sum())
    n_run = int(found["full"].notna().sum() + found["attention"].notna().sum())
    lines = [
        f"Run so far: {n_run:,} of {n_planned:,} probes, of donors with the seeds {', '.join(map(str, seeds))}; with "
        f"their donors they took {reading.core_hours(store, seeds):.1f} hours of one core.",
        "",
    ]
    rows = []
    for (rule, task), of_rule in found.groupby(["rule", "task"], sort=False):
        whole = of_rule.groupby(["cell", "seed"])["earliest"].apply(lambda steps: bool(steps.notna().all()))
        known = of_rule[of_rule["earliest"].notna()]
        missing = "nothing" if whole.all() else f"{int((~whole).sum())} donors"
        crossed = f"{int(known['crossed'].astype(bool).sum())} of {len(known)}"
        rows.append([rule, task, len(whole), int(whole.sum()), crossed, missing])
    head = ("rule", "task", "donors planned", "donors with all probes", "rows that crossed", "missing")
    lines.append(table(head, rows))
    random = reading.random_starts(store, seeds)
    lines += ["", "Probes of no donor (random starts):"]
    for row in random.to_dict("records"):
        end = "crossed" if row["steps"] < PROBE.last_step else "did not cross"
        lines.append(f"- {row['task']}, seed {row['seed']}: {end}; best validation accuracy {100 * row['best']:.1f} %")
    return lines if len(random) else [*lines, "- none is run"]


def _frozen(found: Any) -> list[str]:
    rows = []
    for row in reading.best(found).to_dict("records"):
        used = "" if row["rule"] in FROZEN else "as the list rules: pilot runs had crossed with it"
        crossed = f"{100 * row['crossed']:.0f} %"
        rows.append([row["rule"], row["cell"], f"{row['donor_steps']:,}", crossed, f"{row['steps']:,.0f}", used])
    head = (
        "rule",
        "donor",
        "updates",
        "rows of this donor that crossed",
        "crossing with these updates",
        "taken instead",
    )
    return [
        "Of each rule the donor of which most rows crossed, of those the one with the earliest mean crossing, at the "
        "number of updates with the earliest crossing.",
        "",
        table(head, rows) if rows else "Nothing crossed so far.",
    ]


def _predictors(found: Any, statistics: Result | None) -> list[str]:
    predictors, about = reading.predictors(found, statistics)
    scored = reading.scored(predictors, about)
    head = ("predictor", "skill, leaving one rule out", "p", "donors", "skill on each rule that was left out")
    rows = []
    ranked = sorted(scored.items(), key=lambda item: -item[1].skill if isinstance(item[1], Prediction) else np.inf)
    for name, each in ranked:
        if isinstance(each, str):
            rows.append([name, f"not known: {each}", "", "", ""])
            continue
        p = "too few donors" if each.p is None else f"{each.p:.3f}"
        rules = ", ".join(f"{rule} {skill:+.2f}" for rule, skill in each.by_group.items())
        rows.append([name, f"{each.skill:+.2f}", p, each.n_units, rules])
    lines = [table(head, rows), "", *(f"- *{name}*: {text}." for name, text in about.items())]
    if statistics is None:
        lines += ["- Attention scores and statistics of the weights are missing: no donor's weights were measured."]
    return lines


def _levels(found: Any) -> list[str]:
    head = ("task", "factor", "level", "donors", "rows", "crossed", f"mean crossing, at most {PROBE.last_step:,}")
    rows = []
    for row in reading.by_level(found).to_dict("records"):
        level = f"{row['level']:g}" if isinstance(row["level"], float) else row["level"]
        crossed, steps = f"{100 * row['crossed']:.0f} %", f"{row['steps']:,.0f}"
        rows.append([row["task"], row["factor"], level, row["donors"], row["rows"], crossed, steps])
    return [table(head, rows)]


def _log(found: Any) -> list[str]:
    lines = [
        f"Updates of the task until validation accuracy was at least {CROSSED:g}, for full / attention only, after so "
        f"many updates of the donor; `>` did not cross within {PROBE.last_step:,}, `.` is not run, `-` cannot be run. "
        "In brackets the donor's accuracy on its rule.",
        "",
    ]
    rows = []
    waiting: dict[int, list[str]] = {}
    for (cell, seed), of_donor in found.groupby(["cell", "seed"], sort=False):
        if of_donor["full"].isna().all() and of_donor["attention"].isna().all():
            waiting.setdefault(seed, []).append(cell)
            continue
        cells = []
        for row in of_donor.to_dict("records"):
            full = _step(row["full"]) if row["has_full"] else "-"
            known = "" if np.isnan(row["accuracy"]) else f" ({row['accuracy']:.2f})"
            cells.append(f"{full} / {_step(row['attention'])}{known}")
        rows.append([cell, seed, *cells])
    lines.append(table(("donor", "seed", *(f"{n:,}" for n in DONOR_STEPS)), rows))
    for seed, names in waiting.items():
        lines += ["", f"Not run with seed {seed}, {len(names)} donors: {'; '.join(names)}."]
    return lines


def _step(steps: float) -> str:
    if np.isnan(steps):
        return "."
    return f"{steps:,.0f}" if steps < PROBE.last_step else ">"
