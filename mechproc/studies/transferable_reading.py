"""What the search of ``transferable`` has found so far: one row for each donor and number of its steps, from records.

The outcome of a row is the earlier of the two crossings of its probes, full and attention only, in updates of the task;
a probe that did not cross within its 4,000 updates counts with 4,000. It is known when both probes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechproc.errors import require
from mechproc.result import Result
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.runs.store import Store
from mechproc.statistics.measures import steps_to
from mechproc.statistics.prediction import MIN_GROUPS, Prediction, leave_one_group_out
from mechproc.studies.readings import donor_score
from mechproc.studies.transferable import (
    CROSSED,
    DONOR_STEPS,
    HAYSTACK,
    PROBE,
    REVERSED_ADDITION,
    SEEDS,
    Cell,
    cells,
    random_start,
    runs,
)

FACTORS = ("alphabet", "tied", "lengths", "rate", "donor_steps")
"""What the search varies."""
KNOWN_FROM_RECORDS = {
    "accuracy": "the donor's token accuracy on its rule",
    "above baseline": "the same, minus that of the best predictor that does not know the rule",
    "loss": "the donor's validation loss on its rule, in nats",
    "log steps": "logarithm of the donor's updates",
}
"""Predictors that need no weights."""


def probes(store: Store, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """One row for each donor training and number of its steps, those that are not run included (NaN)."""
    return pd.DataFrame([_row(cell, seed, steps, store) for seed in seeds for cell in cells() for steps in DONOR_STEPS])


def random_starts(store: Store, seeds: Sequence[int] = SEEDS) -> pd.DataFrame:
    """Crossing and best validation accuracy of the probe of no donor, by task and seed; those that are run."""
    rows = []
    for seed in seeds:
        for task in (HAYSTACK, REVERSED_ADDITION):
            run = random_start(task, seed)
            if store.has_scores(run):
                best = float(store.metrics(run)["token_accuracy"].to_numpy().max())
                rows.append({"task": task.short_name, "seed": seed, "steps": _crossing(run, store), "best": best})
    return pd.DataFrame(rows, columns=["task", "seed", "steps", "best"])


def core_hours(store: Store, seeds: Sequence[int] = SEEDS) -> float:
    """What the runs of the search took that are complete, donors included, in hours of one core."""
    every = {each.identity: each for run in runs(seeds) for each in run.with_donors()}
    return sum(store.test(run)["seconds"] for run in every.values() if store.has_scores(run)) / 3600


def predictors(found: pd.DataFrame, statistics: Result | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """``found`` with a column for each predictor, and what each says.

    ``statistics``: of donors' weights, as ``analyses.donor_statistics`` gives them; axes ``donor`` (identity of the
    donor at a step) and ``statistic``. A donor that is not among them has NaN.
    """
    about = dict(KNOWN_FROM_RECORDS)
    table = found.assign(**{"log steps": np.log(found["donor_steps"])})
    if statistics is not None:
        rows = dict(zip(statistics.coordinates["donor"], statistics.values, strict=True))
        for number, name in enumerate(statistics.coordinates["statistic"]):
            table[str(name)] = [rows[d][number] if d in rows else float("nan") for d in table["donor"]]
            about[str(name)] = str(statistics.metadata.get("about", {}).get(str(name), name))
    return table, about


def scored(table: pd.DataFrame, names: Mapping[str, str] | Sequence[str]) -> dict[str, Prediction | str]:
    """How well each predictor tells the crossing, leaving one rule out; or why that cannot be said.

    The unit is one donor training with all of its probes complete; a predictor that a donor lacks leaves the donor out.
    """
    found: dict[str, Prediction | str] = {}
    for name in names:
        x: Any = table.pivot(index=["rule", "cell", "seed"], columns="donor_steps", values=name)
        y: Any = table.pivot(index=["rule", "cell", "seed"], columns="donor_steps", values="earliest")
        whole = (np.isfinite(x.to_numpy()) & np.isfinite(y.to_numpy())).all(axis=1)
        rules = x.index.get_level_values("rule")[whole].tolist()
        if len(set(rules)) < MIN_GROUPS:
            found[name] = f"donors: {len(rules)}, rules: {len(set(rules))}, of at least {MIN_GROUPS} that are needed"
        else:
            found[name] = leave_one_group_out(x[whole].to_numpy(), y[whole].to_numpy(), rules)
    return found


def crossings(found: pd.DataFrame) -> Result:
    """The outcome of each donor that has one: axes ``donor``, labelled by cell and seed, and ``donor_steps``."""
    table: Any = found.assign(donor=found["cell"] + ", seed " + found["seed"].astype(str))
    table = table[table.groupby("donor")["earliest"].transform(lambda steps: steps.notna().any())]
    require(len(table) > 0, "records", "none of the search", "at least one donor with both probes")
    values = table.pivot(index="donor", columns="donor_steps", values="earliest").loc[table["donor"].unique()]
    return Result(
        name="earlier crossing of full and attention only",
        values=values.to_numpy(),
        axes=("donor", "donor_steps"),
        coordinates={"donor": values.index.tolist(), "donor_steps": values.columns.tolist()},
        unit="steps",
        direction="lower: the donor's parts helped sooner",
        what_it_does_not_show="which of the two crossed, or what a longer training on the task would have given",
        metadata={
            "rule": dict(zip(table["donor"].tolist(), table["rule"].tolist(), strict=True)),
            "budget": PROBE.last_step,
        },
    )


def by_level(found: pd.DataFrame) -> pd.DataFrame:
    """For each task and level of each factor: donors seen, share of rows that crossed, and their mean crossing.

    Averages over what was run, not effects: the design is a fraction, and levels of one factor may have met other
    rules and other levels of the rest.
    """
    known: Any = found[np.isfinite(found["earliest"])]
    rows = []
    for factor in FACTORS:
        for (task, level), group in known.groupby(["task", factor], sort=True, dropna=False):
            rows.append(
                {
                    "task": task,
                    "factor": factor.replace("_", " "),
                    "level": level,
                    "donors": len(group[["cell", "seed"]].drop_duplicates()),
                    "rows": len(group),
                    "crossed": float(group["crossed"].mean()),
                    "steps": float(group["earliest"].mean()),
                }
            )
    return pd.DataFrame(rows, columns=["task", "factor", "level", "donors", "rows", "crossed", "steps"])


def best(found: pd.DataFrame) -> pd.DataFrame:
    """For each rule the pretraining that carries most: the cell of which most rows crossed, of those the one with the
    earliest mean crossing, and its number of updates with the earliest crossing, the smallest of those.

    Cells with a row that is not known are left out, and so are rules of which nothing crossed.
    """
    whole: Any = found.groupby(["cell", "seed"]).filter(lambda rows: bool(rows["earliest"].notna().all()))
    chosen = []
    for rule, of_rule in whole.groupby("rule", sort=False):
        cells = of_rule.groupby("cell", sort=False).agg(share=("crossed", "mean"), mean=("earliest", "mean"))
        cell = cells.sort_values(["share", "mean"], ascending=[False, True], kind="stable").index[0]
        if cells.loc[cell, "share"] == 0:
            continue
        at = of_rule[of_rule["cell"] == cell].groupby("donor_steps")["earliest"].mean()
        chosen.append(
            {
                "rule": rule,
                "cell": cell,
                "donor_steps": int(at.idxmin()),
                "crossed": float(cells.loc[cell, "share"]),
                "steps": float(at.min()),
            }
        )
    return pd.DataFrame(chosen, columns=["rule", "cell", "donor_steps", "crossed", "steps"])


def _row(cell: Cell, seed: int, steps: int, store: Store) -> dict[str, Any]:
    rule, support = cell.rule, cell.rule.lengths.support()
    alphabet = next((getattr(rule, f) for f in ("n_symbols", "k", "width") if hasattr(rule, f)), None)
    planned = {arm: run for arm, at, run in cell.probes(seed) if at == steps}
    crossed = {arm: _crossing(run, store) for arm, run in planned.items()}
    donor = RunAtStep(cell.donor(seed), steps)
    earliest = min(crossed.values()) if all(map(np.isfinite, crossed.values())) else float("nan")
    score, loss = donor_score(donor, store), float("nan")
    if score is not None:
        metrics = store.metrics(donor.run)
        loss = float(metrics.loc[metrics["step"] == steps, "loss"].iloc[0])
    return {
        "task": cell.task.short_name,
        "rule": rule.kind,
        "cell": cell.name,
        "seed": seed,
        "alphabet": alphabet,
        "tied": cell.tied,
        "lengths": f"{support[0]}" if len(support) == 1 else f"{support[0]}-{support[-1]}",
        "rate": cell.learning_rate,
        "donor_steps": steps,
        "donor": donor.identity,
        "full": crossed.get("full", float("nan")),
        "attention": crossed.get("attention", float("nan")),
        "has_full": "full" in planned,
        "earliest": earliest,
        "crossed": bool(earliest < PROBE.last_step) if np.isfinite(earliest) else None,
        "accuracy": float("nan") if score is None else score.accuracy,
        "above baseline": float("nan") if score is None else score.accuracy - score.baseline,
        "loss": loss,
    }


def _crossing(run: RunConfig, store: Store) -> float:
    """The restricted crossing of a probe; NaN before it is run. One that crosses at its last update has crossed."""
    if not store.has_scores(run):
        return float("nan")
    metrics = store.metrics(run)
    steps, accuracy = metrics["step"].to_numpy(), metrics["token_accuracy"].to_numpy()
    return steps_to(steps, accuracy, CROSSED, run.training.last_step)
