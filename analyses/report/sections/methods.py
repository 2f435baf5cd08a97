"""How what a page shows was made, from the configs themselves, and the commands that make it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analyses.report.document import Report
from analyses.report.sections.arms import settings, spelled_out
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.statistics.comparisons import MIN_SEEDS
from mechproc.studies.study import Study


def of_study(page: Report, study: Study, store: Store) -> None:
    """A paragraph for each task, the tests, and the settings of one run of each task."""
    page.heading("Methods")
    by_task: dict[Any, list[tuple[str, RunConfig]]] = {}
    for arm, run in study.runs:
        by_task.setdefault(run.procedure, []).append((arm, run))
    for runs in by_task.values():
        page.text(of_runs([run for _, run in runs], len({arm for arm, _ in runs})))
    if donors := _donors([run for _, run in study.runs]):
        page.table(pd.DataFrame(donors), "What the parts that are moved were pretrained on, and how.")
    differ = f" Compared arms may differ in {', '.join(study.may_differ)} too." if study.may_differ else ""
    page.text(
        "Within a seed all arms that are compared have the same task, fresh weights, order of data and test items, so "
        f"that their differences are paired.{differ} The seed is the unit: intervals are by inversion of the exact "
        "sign-flip test over seeds, p-values are corrected by Holm's method within each family of comparisons, which "
        f"were fixed before the runs, and no verdict is given under {MIN_SEEDS} seeds."
    )
    for runs in by_task.values():
        known = [run for _, run in runs if store.has_scores(run)]
        run = known[-1] if known else runs[-1][1]
        environment = store.provenance(run) if known else None
        page.table(settings(run, environment), f"The settings of one run on {run.procedure.short_name}, {run.name}.")


def of_runs(runs: Sequence[RunConfig], n_arms: int) -> str:
    """What was trained, in words."""
    first = runs[0]
    cfg, training = first.model, first.training
    seeds = sorted({run.seed for run in runs})
    listed = f"{seeds[0]} to {seeds[-1]}" if seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2 else \
        ", ".join(map(str, seeds))  # fmt: skip
    shapes = {spelled_out(run.model.to_dict()) for run in runs}
    trainings = {spelled_out(run.training.to_dict()) for run in runs}
    mlps = "no MLPs" if cfg.attn_only else f"MLPs of {cfg.d_mlp} neurons"
    text = [
        f"{n_arms} arm{'s' if n_arms > 1 else ''} of transformers with {cfg.n_layers} layers, {cfg.n_heads} heads, "
        f"width {cfg.d_model} and {mlps}{' (other shapes too)' if len(shapes) > 1 else ''} were trained on "
        f"{first.procedure.short_name} ({spelled_out(first.procedure.to_dict())}), seeds {listed}.",
        f"A training has at most {training.last_step:,} updates of {training.batch_size} items, learning rate "
        f"{training.learning_rate:g}, schedule {training.schedule}, weight decay {training.weight_decay:g}"
        f"{' (other settings too)' if len(trainings) > 1 else ''}; accuracy is that on {training.n_test:,} test items.",
    ]
    return " ".join(text)


def _donors(runs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """One row for each donor's name, rule and training, whatever its seed."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for run in runs:
        for name, origin in run.donors.items():
            for donor in origin.needs:
                training, rule = donor.training, spelled_out(donor.procedure.to_dict())
                row = {
                    "donor": name,
                    "rule": rule,
                    "updates": f"{training.last_step:,}",
                    "items in each": training.batch_size,
                    "learning rate": f"{training.learning_rate:g}",
                    "schedule": training.schedule,
                    "weight decay": f"{training.weight_decay:g}",
                }
                rows[tuple(map(str, row.values()))] = row
    return list(rows.values())


def of_results(page: Report, results: Sequence[Result]) -> None:
    """What each analysis was asked, as far as it says."""
    rows = []
    for result in results:
        facts = {key: value for key, value in result.metadata.items() if isinstance(value, int | float | str)}
        rows.append({"analysis": result.title, "settings": spelled_out(facts) or "not said",
                     "does not show": result.what_it_does_not_show})  # fmt: skip
    page.table(pd.DataFrame(rows), "What each analysis was run with, and the conclusion that does not follow from it.")


def commands(page: Report, lines: Sequence[str]) -> None:
    """The commands, each once."""
    page.heading("Commands")
    page.text("The same again, from the top of a checkout:")
    page.command("\n".join(dict.fromkeys(lines)))
