"""What parts cost together: the interaction of two, and exact Shapley values of up to ten."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from analyses.ablation.kinds import OF_THE_KIND, Kind, kind_of, rows_of, sites_under
from analyses.ablation.run import effects
from analyses.interventions.items import Pairs
from analyses.interventions.metrics import Function, Metric
from analyses.matrices import layer_parts
from analyses.models import Models, by_seed, sized_threads
from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Site, select
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Result, Where
from mechproc.result.references import spelled_range
from mechproc.statistics.shapley import coalitions, shapley_values

MOST = 10
"""Parts that share what is lost: every coalition of them is ablated."""


@sized_threads
def shapley(
    models: Models,
    items: Procedure | Items | Pairs,
    parts: Sequence[str] | None = None,
    ablation: Kind = "mean",
    metric: str | Metric | Function = "loss",
    **settings: Any,
) -> Result:
    """How the loss of all ``parts`` together is shared among them: axes ``part`` and ``seed``.

    Every coalition of up to 10 parts is ablated, 2^n in all; the exact Shapley value of a part is the mean of what its
    ablation costs after those of the parts before it, over all orders (``mechproc.statistics.shapley``). The values of
    a seed add up to ``metadata["together"]``, what ablating all of them costs, so that twins of which either is enough
    share what neither shows alone. ``metadata["alone"]`` has what each costs by itself.

    - ``parts``: at most 10 that do not overlap; by default the attention and the MLP of each layer.

    Other arguments are those of ``run``. Errors: those of ``run``; ``ConfigError`` for more than 10 parts,
    ``PartError`` for parts that overlap.
    """
    cfg = next(iter(by_seed(models).values())).cfg
    rows = [part for part in layer_parts(cfg) if part.startswith("L")] if parts is None else list(parts)
    require(0 < len(set(rows)) == len(rows) <= MOST, "parts", rows, f"1 to {MOST} parts, each once")
    groups = [group for group in coalitions(rows) if group]
    for part, other in itertools.combinations(rows, 2):
        if select(part, cfg) & select(other, cfg):
            raise PartError(f"{other!r} and {part!r} overlap: a part can be in one player only")
    kind = kind_of(ablation)
    names = {" + ".join(part for part in rows if part in group): group for group in groups}
    together = {name: _joint(group, cfg, kind) for name, group in names.items()}
    lost = effects(models, items, together, kind, metric, **settings)
    values = np.concatenate([np.zeros((1, lost.values.shape[1])), lost.values])  # without anything ablated: no loss
    shares = shapley_values(values, len(rows))
    seeds = [str(seed) for seed in lost.coordinates["seed"]]
    together_cost = dict(zip(seeds, lost.values[-1].tolist(), strict=True))
    alone = {part: dict(zip(seeds, lost.select(part=part).values.tolist(), strict=True)) for part in rows}
    return dataclasses.replace(
        lost,
        name=f"{lost.name}: Shapley value",
        values=shares,
        coordinates={"part": rows, "seed": lost.coordinates["seed"]},
        direction="positive: the part carries some of what is lost without all of them",
        what_it_does_not_show="whether a part works alone or only with others: hold the value against what it costs "
        f"alone; {OF_THE_KIND[kind]}.",
        metadata={
            **lost.metadata,
            "together": together_cost,
            "alone": alone,
            "n_coalitions": 2 ** len(rows),
            "sentences": [
                _costs("All of them cost", {"together": together_cost}, lost.unit),
                _alone(alone, lost.unit),
            ],
        },
    )


@sized_threads
def pairs(
    models: Models,
    items: Procedure | Items | Pairs,
    parts: Sequence[str] | None = None,
    ablation: Kind = "zero",
    metric: str | Metric | Function = "loss",
    **settings: Any,
) -> Result:
    """What two parts cost together beyond what each costs alone: axes ``part``, ``other`` and ``seed``.

    The value is the interaction: the effect of ablating both less the sum of the effects of ablating each, symmetric in
    the two parts; effects are those of ``run``, positive when the ablation hurts. Positive: the two do the same work,
    or one takes over when the other is gone, so that ablating one shows too little: twins, a head and its backup.
    Negative: they work one after the other, or one undoes the other, so that the second has less left to take away.
    About 0: they work apart. ``metadata["alone"]`` has what each part costs by itself, by seed.

    A backup takes over only where the ablation takes away what holds it back: with zeros it may show where means and
    resampling leave the main head's constants in place. A part with itself, or with one that overlaps it, is undefined.
    Every two parts are ablated, n (n + 1) / 2 interventions in all for n parts; ``parts=None`` stands for what ``run``
    takes. Other arguments are those of ``run``. Errors: those of ``run``; ``ConfigError`` for fewer than two parts.
    """
    cfg, kind = next(iter(by_seed(models).values())).cfg, kind_of(ablation)
    rows = rows_of(parts, cfg, kind)
    require(len(rows) > 1, "parts", rows, "at least two")
    groups: dict[str, tuple[Site, ...]] = {part: sites_under(part, cfg, kind) for part in rows}
    undefined: list[tuple[Where, str]] = [({"part": part, "other": part}, "a part with itself") for part in rows]
    cells = {}
    for i, j in itertools.combinations(range(len(rows)), 2):
        first, second = rows[i], rows[j]
        if select(first, cfg) & select(second, cfg):
            for part, other in ((first, second), (second, first)):
                undefined.append(({"part": part, "other": other}, "the two overlap"))
        else:
            cells[i, j] = len(groups)
            groups[f"({first}) and ({second})"] = _joint((first, second), cfg, kind)
    require(bool(cells), "parts", rows, "two that do not overlap")
    lost = effects(models, items, groups, kind, metric, **settings)
    seeds = [str(seed) for seed in lost.coordinates["seed"]]
    values = np.full((len(rows), len(rows), len(seeds)), np.nan)
    for (i, j), row in cells.items():
        values[i, j] = values[j, i] = lost.values[row] - (lost.values[i] + lost.values[j])
    alone = {part: dict(zip(seeds, lost.values[i].tolist(), strict=True)) for i, part in enumerate(rows)}
    return dataclasses.replace(
        lost,
        name=f"{lost.name}: interaction of two parts",
        values=values,
        axes=("part", "other", "seed"),
        coordinates={"part": rows, "other": rows, "seed": lost.coordinates["seed"]},
        direction="positive: both together cost more than the sum of each alone",
        what_it_does_not_show="that two parts without interaction have nothing to do with each other, as a third may "
        "stand in for both; nor, where the score has reached its floor, how much more was to be lost; "
        f"{OF_THE_KIND[kind]}.",
        undefined=undefined,
        metadata={**lost.metadata, "alone": alone, "sentences": [_alone(alone, lost.unit)]},
    )


def _joint(parts: Iterable[str], cfg: ModelConfig, kind: str) -> tuple[Site, ...]:
    """The sites of several parts that are ablated together."""
    return sites_under(functools.reduce(operator.or_, (select(part, cfg) for part in parts)), cfg, kind)


def _alone(alone: Mapping[str, Mapping[str, float]], unit: str) -> str:
    return _costs("Each alone costs", alone, unit)


def _costs(what: str, of_parts: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """What parts cost, lowest and highest over the seeds."""
    each = [f"{part} {spelled_range(of_seed.values(), unit)}" for part, of_seed in of_parts.items()]
    return f"{what} {', '.join(each)}."
