"""Floors and ceilings: how the intact models stand between the best baseline and the best attainable score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mechproc.procedures.base import Items, Procedure


def standing(procedure: Procedure | None, items: Items, accuracy: Mapping[str, float], metric: str) -> dict[str, Any]:
    """Metadata that puts intact models beside the rule: what a reader needs before any effect of an intervention.

    ``intact_accuracy`` by seed; of a procedure's items ``best_baseline`` (name and accuracy), and in the units of
    ``metric`` the ``ceiling`` (accuracy only) and the ``baselines`` by name (accuracy or loss). ``warnings``: a
    sentence when a model is not above the best baseline.
    """
    known: dict[str, Any] = {"intact_accuracy": dict(accuracy), "warnings": []}
    if procedure is None:
        return known
    baselines = procedure.baselines(items)
    if not baselines:
        return known
    name = max(baselines, key=lambda each: baselines[each])
    known["best_baseline"] = {"name": name, "accuracy": baselines[name]}
    if metric == "accuracy":
        ceiling = procedure.ceiling(items)
        known |= {"baselines": baselines} | ({} if ceiling is None else {"ceiling": ceiling})
    elif metric == "loss" and (losses := procedure.baseline_losses(items)):
        known["baselines"] = losses
    below = [seed for seed, score in accuracy.items() if score <= baselines[name]]
    if below:
        worst = min(accuracy[seed] for seed in below)
        known["warnings"] = [
            f"Intact, {len(below)} of {len(accuracy)} models are not above the best baseline ({name}, accuracy "
            f"{baselines[name]:.3f}) on {procedure.short_name}, the lowest at {worst:.3f} (seeds {', '.join(below)}): "
            "what a part of such a model does says nothing about the rule."
        ]
    return known
