"""Tables about the arms of a study: what each starts from, how it was trained, what the comparisons say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mechproc.runs.config import RunConfig
from mechproc.statistics.verdicts import Verdict
from mechproc.studies.study import Study
from mechproc.transfer import Recipe


def moved(study: Study) -> pd.DataFrame:
    """What each arm's recipe moves."""
    return pd.DataFrame([{"arm": arm, **start(next(iter(study.by_arm[arm].values())).recipe)} for arm in study.arms])


def start(recipe: Recipe) -> dict[str, str]:
    """What a recipe moves, and how that is changed afterwards."""
    parts = [f"{part} of {donor}" if donor != part else part for part, donor in recipe.parts.items()]
    factors = [f"{factor} ({getattr(recipe, factor)})" for factor in recipe.factors]
    changes = [f"{part}: {change.to_dict()['kind']}" for part, change in recipe.perturb.items()]
    return {"moved": ", ".join([*parts, *factors]) or "nothing", "changed after it was moved": ", ".join(changes)}


def verdict_rows(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row for each comparison, in hundredths where the measure is a fraction."""
    return pd.DataFrame([_row(verdict) for verdict in verdicts])


def _row(verdict: Verdict) -> dict[str, Any]:
    low, high = verdict.interval.low, verdict.interval.high
    unit = verdict.family.unit
    name = "points" if unit == "fraction" else unit
    return {
        "comparison": f"{verdict.comparison.treatment} against {verdict.comparison.control}",
        name: signed(verdict.comparison.mean, unit),
        "interval": f"{signed(low, unit)} to {signed(high, unit)}" if verdict.interval.bounded else "unbounded",
        "seeds": verdict.n_seeds,
        "p": f"{verdict.p:.3g}",
        "p after Holm": f"{verdict.adjusted_p:.3g}",
        "verdict": verdict.word,
    }


def donor_rows(donors: pd.DataFrame) -> pd.DataFrame:
    """The donors of a study under names that a reader knows."""
    return donors.rename(
        columns={
            "ceiling": "best attainable",
            "baseline": "without the rule",
            "baseline_name": "which predictor",
            "steps": "updates",
        }
    )


def signed(value: float, unit: str) -> str:
    """A difference with its sign: in hundredths of a fraction, else in its unit."""
    return f"{100 * value:+.1f}" if unit == "fraction" else f"{value:+.4g}"


def settings(run: RunConfig, provenance: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """What was run, a setting a row, the donors' rules and trainings included."""
    rows: dict[str, Any] = {"task": run.procedure, "model": run.model, "training": run.training, "recipe": run.recipe}
    for name, donor in ((name, needed) for name, origin in run.donors.items() for needed in origin.needs):
        rows |= {f"donor {name}: rule": donor.procedure, f"donor {name}: training": donor.training}
    spelled = {what: spelled_out(config.to_dict()) for what, config in rows.items()}
    if provenance is not None:
        spelled["computed with"] = spelled_out(dict(provenance))
    return pd.DataFrame({"what": list(spelled), "settings": list(spelled.values())})


def spelled_out(plain: Any) -> str:
    """Plain JSON as text: ``"steps 100, lengths uniform (low 2, high 20)"``; what is not set is left out."""
    if not isinstance(plain, dict):
        return str(plain)
    said = []
    for key, value in plain.items():
        if value is None or value == [] or value == {}:
            continue
        if not isinstance(value, dict):
            said.append(str(value) if key == "kind" else f"{key} {value}")
            continue
        kind = value.get("kind")
        rest = spelled_out({name: each for name, each in value.items() if name != "kind"})
        said.append(" ".join([key, *([str(kind)] if kind else []), *([f"({rest})"] if rest else [])]))
    return ", ".join(said)
