"""What a study's runs have measured so far, read from a store: Results by arm and seed, donors, one tidy table.

A cell whose run is not complete is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from mechproc.errors import ConfigError
from mechproc.procedures.arithmetic import Arithmetic
from mechproc.procedures.lengths import Fixed
from mechproc.provenance import PROVENANCE_FIELDS
from mechproc.result import Result
from mechproc.runs.config import RankedHeads, RunAtStep, RunConfig
from mechproc.runs.donors import ShippedModel
from mechproc.runs.store import Store
from mechproc.statistics.measures import (
    Measure,
    digits_by_position,
    digits_by_stairs,
    mean_over_steps,
    measure,
    steps_to,
)
from mechproc.statistics.survival import crossing_steps
from mechproc.statistics.verdicts import Levels

if TYPE_CHECKING:
    from mechproc.runs.config import Donor
    from mechproc.studies.study import Study


def is_known(store: Store, run: RunConfig) -> bool:
    """Whether the scores of ``run`` can be read."""
    return store.has_scores(run)


def measured(study: Study, store: Store, name: str = "accuracy") -> Result:
    """One measure of every run, axes (arm, seed); see ``mechproc.statistics.measures``."""
    what = measure(name)
    values = [[_value(what, run, store) for run in row] for row in _grid(study, store)]
    return _result(
        study,
        store,
        values,
        name=f"{study.name}: {'test accuracy' if name == 'accuracy' else name}",
        unit=what.unit,
        direction=what.direction,
        what_it_does_not_show=what.what_it_does_not_show,
    )


def crossings(study: Study, store: Store, threshold: float) -> Result:
    """First validation step at which token accuracy was at least ``threshold``, axes (arm, seed).

    A run that never got there has no step: its cell is undefined, with the number of steps it was given.
    """
    steps, never = [], []
    for arm, row in zip(study.arms, _grid(study, store), strict=True):
        steps.append([])
        for run in row:
            metrics = None if run is None else store.metrics(run)
            crossing = None if metrics is None else _crossing(metrics, threshold)
            steps[-1].append(crossing.step if crossing and crossing.crossed else float("nan"))
            if run is not None and crossing and not crossing.crossed:
                never.append(({"arm": arm, "seed": run.seed}, f"not within {crossing.step:.0f} steps"))
    return _result(
        study,
        store,
        steps,
        name=f"{study.name}: steps to {threshold:.0%}",
        unit="steps",
        direction="lower: learned sooner",
        what_it_does_not_show="anything finer than the distance between two validations",
        undefined=never,
    )


def curves(study: Study, store: Store) -> Result:
    """Validation token accuracy along training, axes (arm, seed, step); missing after a run has stopped."""
    rows = [
        [None if run is None else store.metrics(run).set_index("step")["token_accuracy"] for run in row]
        for row in _grid(study, store)
    ]
    steps = sorted({int(step) for row in rows for curve in row if curve is not None for step in curve.index})
    if not steps:
        raise ConfigError(f"study {study.name!r} has no complete run in {store.root}")
    never = [float("nan")] * len(steps)
    values = [[never if curve is None else curve.reindex(steps).tolist() for curve in row] for row in rows]
    return _result(
        study,
        store,
        values,
        name=f"{study.name}: validation accuracy",
        direction="higher: more of the scored tokens are predicted",
        what_it_does_not_show="test accuracy: these items steer nothing here, but they are fewer",
        axes=("arm", "seed", "step"),
        coordinates={"arm": study.arms, "seed": study.seeds, "step": steps},
    )


class DonorScore(NamedTuple):
    """How well a donor knows its own rule."""

    accuracy: float
    ceiling: float | None
    baseline: float
    """The best accuracy of a predictor that does not know the rule."""
    baseline_name: str
    steps: int


def donor_score(donor: Donor, store: Store) -> DonorScore | None:
    """Accuracy of a donor on its rule, on test items, or on validation items for a run at a step; None where it is not
    known: a model file, or a run that is not complete."""
    if isinstance(donor, ShippedModel):
        from mechproc.pretrained import card

        about = card(donor.rule)
        entry = next(e for e in about["donors"] if e["seed"] == donor.seed)
        accuracy = entry["accuracy"] if donor.step is None else entry["curve"].get(str(donor.step))
        steps = entry["steps"] if donor.step is None else donor.step
        return None if accuracy is None else _donor_score(accuracy, about, steps)
    if isinstance(donor, RankedHeads):
        return donor_score(donor.run, store)
    if isinstance(donor, RunConfig):
        test = store.test(donor) if is_known(store, donor) else None
        return None if test is None else _donor_score(test["accuracy"], test, test["steps"])
    if isinstance(donor, RunAtStep) and is_known(store, donor.run):
        metrics = store.metrics(donor.run)
        accuracy = dict(zip(metrics["step"].tolist(), metrics["token_accuracy"].tolist(), strict=True))
        if donor.step in accuracy:
            return _donor_score(accuracy[donor.step], store.test(donor.run), donor.step)
    return None


def donors(study: Study, store: Store) -> pd.DataFrame:
    """One row for each donor: its accuracy on its own rule, the ceiling, and the best trivial baseline.

    Those whose accuracy is not known have no row.
    """
    rows: dict[str, dict[str, Any]] = {}
    for _, run in study.runs:
        for name, donor in run.donors.items():
            score = donor_score(donor, store)
            if score is not None:
                rows[donor.identity] = {"donor": name, "seed": donor.seed, **score._asdict()}
    columns = ["donor", "seed", *DonorScore._fields]
    return pd.DataFrame(list(rows.values()), columns=columns).sort_values(["donor", "seed"], ignore_index=True)


def levels(run: RunConfig, store: Store) -> Levels:
    """Floor and ceiling of the task of a complete run, on its test items."""
    test = store.test(run)
    best = max(test["baselines"], key=test["baselines"].get)
    return Levels(test["baselines"][best], best, test["ceiling"])


def donor_notes(study: Study, store: Store, arm: str) -> tuple[str, ...]:
    """What must be known of the donors of an arm: those that do not beat the best predictor without their rule."""
    notes = []
    runs = study.by_arm[arm]
    for name in dict.fromkeys(name for run in runs.values() for name in run.donors):
        scores = [donor_score(run.donors[name], store) for run in runs.values() if name in run.donors]
        known = [score for score in scores if score is not None]
        above = sum(score.accuracy > score.baseline for score in known)
        if known and 2 * above < len(known):
            mean, floor = np.mean([s.accuracy for s in known]), np.mean([s.baseline for s in known])
            notes.append(
                f"{above} of {len(known)} donors {name} are above the best predictor that does not know their rule "
                f"({known[0].baseline_name}): {100 * mean:.1f} % on average, {100 * floor:.1f} % without the rule"
            )
    return tuple(notes)


def table(study: Study, store: Store) -> pd.DataFrame:
    """One row for each complete run: study, arm, seed, identity, scores, floor, ceiling, and the donors' accuracies."""
    rows = []
    for arm, run in study.runs:
        if not is_known(store, run):
            continue
        test, floor = store.test(run), levels(run, store)
        metrics = store.metrics(run)
        scores = {name: donor_score(donor, store) for name, donor in run.donors.items()}
        known = [f"{name} {score.accuracy:.4f}" for name, score in scores.items() if score]
        rows.append(
            {
                "study": study.name,
                "arm": arm,
                "seed": run.seed,
                "procedure": run.procedure.short_name,
                "identity": run.identity,
                "accuracy": test["accuracy"],
                "item_accuracy": test["item_accuracy"],
                "loss": test["loss"],
                "loss_area": _loss_area(metrics),
                "steps": test["steps"],
                "stopped": test["stopped"],
                "baseline": floor.baseline,
                "baseline_name": floor.baseline_name,
                "ceiling": floor.ceiling,
                "donors": ", ".join(known),
                "seconds": test["seconds"],
            }
        )
    return pd.DataFrame(rows)


def _value(what: Measure, run: RunConfig | None, store: Store) -> float:
    if run is None:
        return float("nan")
    if what.name in ("accuracy", "loss"):
        return store.test(run)[what.name]
    if what.name == "digits":
        return _digits(run, store)
    metrics = store.metrics(run)
    if what.threshold is not None:
        steps, accuracy = metrics["step"].to_numpy(), metrics["token_accuracy"].to_numpy()
        return steps_to(steps, accuracy, what.threshold, run.training.last_step)
    return _loss_area(metrics)


def _loss_area(metrics: pd.DataFrame) -> float:
    return mean_over_steps(metrics["step"].to_numpy(), metrics["loss"].to_numpy())


def _crossing(metrics: pd.DataFrame, threshold: float) -> Any:
    return crossing_steps(metrics["step"].to_numpy(), metrics["token_accuracy"].to_numpy(), threshold)


def _digits(run: RunConfig, store: Store) -> float:
    """Digits that the model predicts: by position where the test scores hold counts by position, else by stairs."""
    task = run.procedure
    if not isinstance(task, Arithmetic) or not isinstance(task.lengths, Fixed):
        raise ConfigError(
            f"measure = 'digits' is not allowed for {task.short_name}: an arithmetic task of fixed length"
        )
    items = task.items(256)
    is_digit = items.scored & (items.latents["place"] >= 0)
    n_digits, n_scored = int(is_digit.sum(axis=1).min()), float(items.scored.sum(axis=1).mean())
    test = store.test(run)
    if counts := test.get("by_position"):
        return digits_by_position(np.array(counts["correct"]), np.array(counts["scored"]), n_digits)
    return digits_by_stairs(test["accuracy"], n_digits, n_scored)


def _donor_score(accuracy: float, about: dict[str, Any], steps: int) -> DonorScore:
    best = max(about["baselines"], key=about["baselines"].get)
    return DonorScore(accuracy, about["ceiling"], about["baselines"][best], best, steps)


def _grid(study: Study, store: Store) -> list[list[RunConfig | None]]:
    """The runs by arm and seed; None where there is none, or none that is complete."""
    known = {arm: {s: run for s, run in runs.items() if is_known(store, run)} for arm, runs in study.by_arm.items()}
    return [[known[arm].get(seed) for seed in study.seeds] for arm in study.arms]


def _result(study: Study, store: Store, values: list, **fields: Any) -> Result:
    where = [
        ({"arm": arm, "seed": run.seed}, {k: store.provenance(run).get(k, "unknown") for k in PROVENANCE_FIELDS})
        for arm, run in study.runs
        if is_known(store, run)
    ]
    defaults = {
        "unit": "fraction",
        "axes": ("arm", "seed"),
        "coordinates": {"arm": study.arms, "seed": study.seeds},
        "metadata": {"study": study.name},
    }
    return Result(values=np.array(values, dtype=np.float64), provenance=where, **(defaults | fields))
