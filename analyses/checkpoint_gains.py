"""What the checkpoints of a training are worth to another: runs that began with parts of them, found in records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mechproc.config import digest
from mechproc.model.config import ModelConfig
from mechproc.procedures.base import Procedure
from mechproc.result import Label
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.runs.donors import ShippedModel
from mechproc.runs.records import Records
from mechproc.transfer.arms import arm

Gains = dict[str, dict[int, np.ndarray]]
"""Test accuracy less that of the random start of the seed, by task and arm, and by step: float64 [seed]."""


def gains(
    records: str | Path, rule: Procedure, cfg: ModelConfig, steps: Sequence[int], seeds: Sequence[Label]
) -> tuple[Gains, list[str]]:
    """The gains from models of this rule and shape at some of ``steps``, and warnings about what is ambiguous.

    A run counts when a donor of it was trained on ``rule``, has the shape ``cfg``, one of ``seeds`` and one of
    ``steps``. Where several trainings of one seed do (other settings of the training), none of them is taken.
    """
    if not Path(records).is_dir():
        return {}, []
    base: dict[str, float] = {}
    began: list[tuple[dict[str, Any], float]] = []
    for record in Records(records).all():
        run, accuracy = record["run"], float(record["test"]["accuracy"])
        if not run.get("donors"):
            base[_setting(run)] = accuracy
        elif _may_be_of(run, rule):
            began.append((run, accuracy))
    cells: dict[tuple[str, int, Label], list[float]] = {}
    for plain, accuracy in began:
        run = RunConfig.from_dict(plain)
        at = _donor(run, rule, cfg)
        if at is None or at[0] not in steps or at[1] not in seeds or _setting(plain) not in base:
            continue
        name = f"gain: {run.procedure.short_name}, {arm(run.recipe)}"
        cells.setdefault((name, *at), []).append(accuracy - base[_setting(plain)])
    found: Gains = {}
    ambiguous = sorted({name for (name, _, _), values in cells.items() if len(values) > 1})
    for (name, step, seed), values in cells.items():
        if len(values) == 1:
            of_step = found.setdefault(name, {}).setdefault(step, np.full(len(seeds), np.nan))
            of_step[list(seeds).index(seed)] = values[0]
    warned = [f"{name}: several runs have a donor of this rule, seed and step; they are left out" for name in ambiguous]
    return found, warned


def _setting(run: dict[str, Any]) -> str:
    """What a run shares with its random start: task, model, training and seed."""
    return digest([run[field] for field in ("procedure", "model", "training", "seed")])


def _may_be_of(run: dict[str, Any], rule: Procedure) -> bool:
    """Whether the one donor of a run is at a step of a model of such a rule, before its config is read as a whole."""
    donors = list(run["donors"].values())
    trained = donors[0].get("run", {}).get("procedure", {}).get("kind", donors[0].get("rule"))
    return len(donors) == 1 and donors[0].get("step") is not None and trained == rule.to_dict().get("kind")


def _donor(run: RunConfig, rule: Procedure, cfg: ModelConfig) -> tuple[int, Label] | None:
    """Step and seed of the one donor of a run, where it is a model of this rule and shape at a step."""
    (donor,) = run.donors.values()
    if isinstance(donor, RunAtStep) and donor.run.procedure == rule and donor.model == cfg:
        return donor.step, donor.seed
    if isinstance(donor, ShippedModel) and donor.step is not None and donor.rule == rule.short_name:
        return donor.step, donor.seed
    return None
