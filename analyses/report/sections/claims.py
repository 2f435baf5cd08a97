"""The declared claims of a study: their words, effects, the controls that they survived, and what is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analyses.report.document import Report
from analyses.report.sections.arms import signed
from mechproc.result import Result
from mechproc.runs.store import Store
from mechproc.statistics.claim_verdicts import ClaimVerdict
from mechproc.statistics.claims import Claim
from mechproc.statistics.measures import measure
from mechproc.statistics.paired import interval
from mechproc.studies.study import Study

NOT_RUN = "not run"


def add(page: Report, study: Study, store: Store) -> None:
    """A table of the claims, and one of the controls."""
    if not study.claims:
        return
    page.heading("Claims")
    page.text(
        "Each claim was declared before its runs, with its contrasts, the smallest effect that matters and the number "
        "of seeds. A wrong word is said of one with a probability of at most 5 %."
    )
    verdicts = study.judge_claims(store, allow_mixed_provenance=True)
    stated = [{"claim": v.claim.name, "statement": v.claim.statement, "verdict": v.word,
               "what is missing": missing(study, store, v)} for v in verdicts]  # fmt: skip
    page.table(pd.DataFrame(stated), "The claims, what is said of each, and what a decision lacks, with its price.")
    contrasts = [row for verdict in verdicts for row in _rows(verdict)]
    if contrasts:
        page.table(pd.DataFrame(contrasts),
                   "The contrasts of the claims: mean over paired seeds, 95 % interval, p after Holm over the "
                   "contrasts of the claim.")  # fmt: skip
    scores = {what: study.scores(store, what) for what in dict.fromkeys(claim.measure for claim in study.claims)}
    controls = [row for claim in study.claims for row in survived(study, store, claim, scores[claim.measure])]
    run = [row for row in controls if row["difference"] != NOT_RUN]
    if len(run) < len(controls):
        page.note(f"Of {len(controls) - len(run)} of {len(controls)} comparisons of a claim's arm with a control fewer "
                  "than two seeds are complete.")  # fmt: skip
    if run:
        page.table(
            pd.DataFrame(run),
            "Each claim's arms against the random start and against perturbed arms of the same task: a claim about "
            "what was learned survives a control when the interval of the difference lies beyond zero. Without a "
            "correction.",
        )
    for note in dict.fromkeys(note for verdict in verdicts for note in verdict.notes):
        page.note(f"Note: {note}.")


def survived(study: Study, store: Store, claim: Claim, scores: Result) -> list[dict[str, Any]]:
    """One row for each arm that the claim is about and each control of its task: what the difference is.

    ``scores``: the claim's measure of every arm and seed.
    """
    what = measure(claim.measure)
    sign = 1.0 if what.higher_is_better else -1.0
    praised = dict.fromkeys(arm for c in claim.contrasts for arm, weight in c.weights.items() if weight > 0)
    rows = []
    for arm in praised:
        if _is_control(study, arm):
            continue
        for control in _controls(study, arm):
            row: dict[str, Any] = {"claim": claim.name, "arm": arm, "control": control}
            seeds = study.complete_seeds(store, [arm, control])
            if len(seeds) < 2:
                rows.append(row | {"difference": NOT_RUN, "interval": "", "seeds": len(seeds), "survived": ""})
                continue
            pair = scores.select(arm=[arm, control], seed=seeds).values
            within = interval(sign * (pair[0] - pair[1]))
            ends = (
                f"{signed(within.low, what.unit)} to {signed(within.high, what.unit)}"
                if within.bounded
                else "unbounded"
            )
            word = "too few seeds" if not within.bounded else "yes" if within.low > 0 else "no"
            mean = signed(float(np.mean(sign * (pair[0] - pair[1]))), what.unit)
            rows.append(row | {"difference": mean, "interval": ends if within.bounded else "unbounded",
                               "seeds": len(seeds), "survived": word})  # fmt: skip
    return rows


def missing(study: Study, store: Store, verdict: ClaimVerdict) -> str:
    """The seeds and trainings that a word lacks, with their price where it is known; else what a decision takes."""
    claim = verdict.claim
    if verdict.n_seeds < claim.n_seeds:
        wanted = [run for arm in claim.arms for run in list(study.by_arm[arm].values())[: claim.n_seeds]]
        n = len(store.missing(wanted))
        minutes = study.minutes_per_seed(store, claim.arms)
        cost = "" if minutes is None else f", {minutes * (claim.n_seeds - verdict.n_seeds):,.0f} minutes of one core"
        return f"{claim.n_seeds - verdict.n_seeds} of {claim.n_seeds} seeds: {n} trainings{cost}"
    return verdict.price(study.minutes_per_seed(store, claim.arms)) or "nothing"


# ---- inside ----------------------------------------------------------------------------------------------------------


def _rows(verdict: ClaimVerdict) -> list[dict[str, Any]]:
    """One row for each contrast that there are numbers of."""
    rows = []
    for row in verdict.rows():
        if "mean" not in row:
            continue
        unit = str(row["unit"])
        rows.append(
            {
                "claim": row["claim"],
                "contrast": row["contrast"],
                "effect": signed(row["mean"], unit),
                "interval": f"{signed(row['low'], unit)} to {signed(row['high'], unit)}"
                if row["low"] is not None
                else "unbounded",
                "smallest that matters": signed(row["smallest_effect"], unit).removeprefix("+"),
                "unit": "points" if unit == "fraction" else unit,
                "p after Holm": f"{row['adjusted_p']:.3g}",
                "seeds": row["n_seeds"],
            }
        )
    return rows


def _is_control(study: Study, arm: str) -> bool:
    recipe = next(iter(study.by_arm[arm].values())).recipe
    return bool(recipe.perturb) or not recipe.donor_names


def _controls(study: Study, arm: str) -> list[str]:
    """The random start and the perturbed arms that are trained on the same task."""
    task = next(iter(study.by_arm[arm].values())).procedure
    return [other for other in study.arms if other != arm and _is_control(study, other)
            and next(iter(study.by_arm[other].values())).procedure == task]  # fmt: skip
