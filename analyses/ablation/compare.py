"""Kinds of ablation side by side, and how alike they rank the parts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from analyses.ablation.kinds import (
    DOES_NOT_SHOW,
    LAYERNORM_KINDS,
    Kind,
    kind_of,
    layernorms,
    map_parts,
    rows_of,
    sites_under,
    undefined_reason,
)
from analyses.ablation.measure import answers, question
from analyses.ablation.run import result_of
from analyses.interventions.items import Pairs
from analyses.interventions.metrics import Function, Metric, metric_of
from analyses.models import Models, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.parts import select
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Label, Result, Where, stack


@sized_threads
def compare(
    models: Models,
    items: Procedure | Items | Pairs,
    parts: Sequence[str] | None = None,
    ablations: Sequence[Kind] = ("zero", "mean", "resample"),
    metric: str | Metric | Function = "accuracy",
    **settings: Any,
) -> Result:
    """Several ablations side by side: axes ``ablation``, ``part`` and ``seed``.

    A cell where an ablation means nothing is undefined, with the part table's reason. ``parts=None`` stands for the
    embeddings, every head with its QK and OV, and every MLP; and every LayerNorm, where a kind is one of theirs. Other
    arguments are those of ``run``, ``parts`` may name sets of rows as there; what differs in ``run``'s metadata stands
    under ``metadata["ablation"]``.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    kinds = [kind_of(ablation) for ablation in ablations]
    require(bool(kinds) and len(set(kinds)) == len(kinds), "ablations", kinds, "at least one, each once")
    more = layernorms(cfg) if set(kinds) & set(LAYERNORM_KINDS) else []
    rows = [*map_parts(cfg), *more] if parts is None else rows_of(parts, cfg, kinds[0])
    for part in rows:
        select(part, cfg)  # what does not exist is an error, not an undefined cell
    undefined: list[tuple[Where, str]] = []
    draw = functools.cache(functools.partial(_draw, items, settings.get("seed", 0)))
    questions = []
    for kind in kinds:
        reasons = {part: reason for part in rows if (reason := undefined_reason(part, cfg, kind))}
        defined = {part: sites_under(part, cfg, kind) for part in rows if part not in reasons}
        require(bool(defined), "parts", rows, f"one, at least, where {kind} is defined")
        questions.append(question(items, cfg, defined, kind, draw=draw, **settings))
        undefined += [({"ablation": kind, "part": part}, reason) for part, reason in reasons.items()]
    measured = metric_of(metric)
    found = answers(of_seed, questions, measured, settings.get("seed", 0))
    procedure = items if isinstance(items, Procedure) else None
    maps: dict[Label, Result] = {}
    for number, ask in enumerate(questions):
        of_kind = {label: each[number] for label, each in found.items()}
        maps[ask.kind] = result_of(ask, of_kind, procedure, measured).reindex("part", rows)
    shared = {"name": measured.change, "what_it_does_not_show": f"{DOES_NOT_SHOW}."}
    joined = stack({k: dataclasses.replace(r, **shared) for k, r in maps.items()}, "ablation")
    return dataclasses.replace(joined, undefined=undefined)


def _draw(items: Any, seed: int, n: int, split: str) -> Items:
    """Items of the procedure that ``compare`` was given."""
    return items.items(n, seed=seed, split=split)


def agreement(compared: Result) -> Result:
    """How alike two kinds of ablation rank the parts: axes ``first``, ``second`` and ``seed``.

    ``compared`` is what ``compare`` returns. The value is Spearman's rank correlation over the parts where both kinds
    are defined; undefined where fewer than three are, or where all effects of a kind are the same.
    """
    require(set(compared.axes) == {"ablation", "part", "seed"}, "axes", tuple(compared.axes), "those of compare()")
    kinds, seeds = compared.coordinates["ablation"], compared.coordinates["seed"]
    values = np.full((len(kinds), len(kinds), len(seeds)), np.nan)
    undefined: list[tuple[Where, str]] = []
    for column, seed in enumerate(seeds):
        effects = [compared.select(ablation=kind, seed=seed).values for kind in kinds]
        for i, first in enumerate(effects):
            for j, second in enumerate(effects):
                both = np.isfinite(first) & np.isfinite(second)
                flat = both.sum() < 3 or np.ptp(first[both]) == 0 or np.ptp(second[both]) == 0
                if flat:
                    where = {"first": kinds[i], "second": kinds[j], "seed": seed}
                    undefined.append((where, "fewer than three parts, or all effects the same"))
                else:
                    ranks: Any = spearmanr(first[both], second[both])
                    values[i, j, column] = ranks.statistic
    return Result(
        name=f"rank correlation of kinds of ablation ({compared.name})",
        values=values,
        axes=("first", "second", "seed"),
        coordinates={"first": kinds, "second": kinds, "seed": seeds},
        unit="correlation",
        direction="1: the same order of parts; 0: no relation; -1: the reverse order",
        what_it_does_not_show="which kind is right, nor that the largest effects agree: many small ones weigh as much.",
        undefined=undefined,
    )
