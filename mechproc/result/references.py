"""What the values of a Result are to be held against: intact scores, ceilings and baselines, where it knows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.result.core import Result


RUNS = {
    "intact": "intact {}",
    "clean": "{} of the clean run",
    "corrupt": "{} of the corrupt run",
    "base": "{} of the model",
    "source": "{} of its donor",
}
"""Runs whose scores by seed a Result may have in its metadata, and how they are said."""
MOST_APART = 8
"""Labels of an axis that are each held against scores of their own."""


def reference_scores(result: Result) -> list[str]:
    """What the values are to be held against, where ``result.metadata`` has it: one sentence, or none.

    Read are the scores, by seed, of the ``intact`` model or of the two runs of an exchange (``RUNS``), ``ceiling`` (the
    best attainable score) and ``baselines``: by name, the scores of predictors that do not know the rule; or these for
    each label of an axis.
    """
    if axis := _apart(result):
        each = {str(label): reference_scores(result.select(**{axis: label})) for label in result.coordinates[axis]}
        return [f"{label}: {sentence}" for label, said in each.items() for sentence in said]
    unnamed = "accuracy" if result.unit == "fraction" else "score"
    metric = str(result.metadata.get("metric", unnamed)).replace("logit_diff", "logit difference")
    parts = []
    for key, run in RUNS.items():
        of_seed = result.metadata.get(key)
        if isinstance(of_seed, dict) and of_seed and _are_numbers(of_seed):
            scores = spelled_range([float(score) for score in of_seed.values()], result.unit)
            parts.append(f"{run.format(metric)} {scores}")
    for name, score in reference_lines(result).items():
        what, _, which = name.partition(": ")
        parts.append(f"{what} {spelled_score(score, result.unit)}{f' ({which})' if which else ''}")
    for label, levels in _by_label(result).items():
        each = ", ".join(f"{name} {spelled_score(score, result.unit)}" for name, score in levels.items())
        parts.append(f"{label}: {each}")
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def reference_lines(result: Result) -> dict[str, float]:
    """The ceiling and the best baseline by name, where ``result.metadata`` has them."""
    lines = {}
    if isinstance(ceiling := result.metadata.get("ceiling"), (int, float)):
        lines["best attainable"] = float(ceiling)
    baselines = result.metadata.get("baselines")
    if isinstance(baselines, dict) and baselines and _are_numbers(baselines):
        lowest = result.metadata.get("metric") == "loss"
        best = (min if lowest else max)(baselines, key=lambda name: baselines[name])
        lines[f"best baseline: {best}"] = float(baselines[best])
    return lines


def spelled_score(score: float, unit: str) -> str:
    """A score with its unit; fractions in percent. Of a unit for each quantity, ``"logits (recovery: fraction)"``, what
    stands before the bracket; none where every quantity has its own, ``"norm: weight; rank: directions"``."""
    unit = unit.partition(" (")[0]
    return f"{100 * score:.1f} %" if unit == "fraction" else f"{score:.4g}{'' if ':' in unit else f' {unit}'}"


def spelled_range(scores: Iterable[float], unit: str) -> str:
    """The lowest and the highest score with their unit, one of them where they are spelled alike."""
    found = list(scores)
    low, high = (spelled_score(score, unit) for score in (min(found), max(found)))
    return low if low == high else f"{low} to {high}"


def _apart(result: Result) -> str:
    """The axis whose few labels have such scores of their own, as ``stack`` keeps them; empty where none has."""
    scores = {*RUNS, "ceiling", "baselines"}
    for axis in result.axes:
        own = result.metadata.get(axis)
        labels = {str(label) for label in result.coordinates[axis]}
        if not isinstance(own, dict) or set(own) != labels or not 1 < len(labels) <= MOST_APART:
            continue
        if all(isinstance(of, dict) and scores & set(of) for of in own.values()):
            return axis
    return ""


def _by_label(result: Result) -> dict[str, Mapping[str, float]]:
    """Baselines that differ between the labels of an axis, of the labels that the Result still has."""
    baselines = result.metadata.get("baselines")
    if not isinstance(baselines, dict):
        return {}
    labels = {str(label) for of_axis in result.coordinates.values() for label in of_axis}
    labels |= {str(label) for label in result.selected.values()}
    return {
        label: levels
        for label, levels in baselines.items()
        if label in labels and isinstance(levels, dict) and levels and _are_numbers(levels)
    }


def _are_numbers(values: Mapping[str, Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values.values())
