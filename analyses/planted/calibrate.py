"""How often each method finds what was planted, and how often it finds what was not.

The rule is one, fixed beforehand: a part is flagged when its effect exceeds ``FLOOR``, and the ``QUANTILE`` of the
effects of inert heads and MLPs in ``N_CALIBRATION`` plantings of the same family and contrast. Rates are measured on
other plantings. The unit is the planting (all that should be found was found; any alarm); rates of parts stand beside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy.stats import binomtest

from analyses.planted.applies import ASKED, asked
from analyses.planted.family import Family, families
from analyses.planted.methods import METHODS, Method
from analyses.planted.planting import Planting, plant
from analyses.planted.roles import ALARMS, EXPECTED, Role, is_hit
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.progress import progress
from mechproc.provenance import commit
from mechproc.result import Result

FLOOR, QUANTILE, N_CALIBRATION = 0.05, 0.99, 20
"""In the unit of the method, nats of most; a share; plantings."""
RATES = ("hit", "alarm", "part hit", "part alarm")
BOUNDS = ("", " low", " high")
QUANTITIES = (
    "threshold",
    *(f"{rate}{bound}" for rate in RATES for bound in BOUNDS),
    *(f"flagged: {r.value}" for r in Role),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One question: a method, a family, a contrast."""

    method: str
    family: str
    contrast: str

    @property
    def label(self) -> str:
        """Such as ``"zero ablation / offset / any item"``."""
        return f"{self.method} / {self.family} / {self.contrast}"


def cells_of(kind: str, methods: Iterable[Method]) -> list[Cell]:
    """What methods are asked of a family."""
    chosen = list(methods)
    return [Cell(m.name, kind, contrast) for contrast in ASKED[kind] for m in chosen if asked(kind, contrast, m.kind)]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a method says of one planting."""

    roles: Mapping[str, Role]
    effects: Mapping[str, float]
    """In the unit of the method, by part; parts that the method cannot measure are absent."""
    draws: int = 1
    """Draws until the planting was accepted."""


class Journal(Protocol):
    """Where what was measured of each planting is kept, by family with its settings, method, contrast and seed."""

    def get(self, family: Mapping[str, Any], method: str, contrast: str, seed: int) -> Measured | None:
        """What was measured, if it was."""

    def add(self, family: Mapping[str, Any], method: str, contrast: str, seed: int, measured: Measured) -> None:
        """Keep what was measured."""


def run(
    methods: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    *,
    n_plantings: int = 100,
    n_calibration: int = N_CALIBRATION,
    settings: Mapping[str, Any] | None = None,
    first_seed: int = 0,
    journal: Journal | None = None,
) -> Result:
    """Hit and false-alarm rates: axes ``cell`` (method / family / contrast) and ``quantity``.

    - ``methods``: names of ``analyses.planted.methods.METHODS``; ``None``: all;
    - ``kinds``: families; ``None``: all that some method is asked about;
    - ``n_plantings``: plantings that rates are measured on, after ``n_calibration`` others for the threshold; they have
      the seeds from ``first_seed`` on;
    - ``settings``: of the families, such as ``{"d_model": 32, "n_items": 256}``; a family that needs more width takes
      its least;
    - ``journal``: where what was measured is kept, so that a run that was stopped goes on from there.

    Rates are fractions, with 95 % Wilson intervals (``low``, ``high``); those of parts count each part of each planting
    as one, although the parts of a planting are not independent. ``flagged: ROLE`` is the share of the parts of a role
    that are flagged; ``metadata["expected"]`` has what the method must say of it. The threshold is in the unit of the
    method.

    Errors: ``ConfigError`` for a name that is not known; ``PlantingError`` where a family cannot be planted.
    """
    chosen = [METHODS[name] for name in _known("methods", methods, METHODS)]
    require(n_plantings >= 1, "n_plantings", n_plantings, "at least 1")
    require(n_calibration >= 1, "n_calibration", n_calibration, "at least 1")
    rows: dict[Cell, np.ndarray] = {}
    draws: dict[str, int] = {}
    for kind in _known("kinds", kinds, ASKED):
        cells = cells_of(kind, chosen)
        if not cells:
            continue
        family = _family(kind, settings or {})
        measurements: dict[Cell, list[Measured]] = {cell: [] for cell in cells}
        seeds = range(first_seed, first_seed + n_calibration + n_plantings)
        draws[kind] = 0
        for seed in progress(seeds, kind, unit="planting"):
            keys = {cell: (family.to_dict(), cell.method, cell.contrast, seed) for cell in cells}
            known = {cell: None if journal is None else journal.get(*key) for cell, key in keys.items()}
            planting = None if all(known.values()) else plant(family, seed)
            for cell in cells:
                one = known[cell] or _measure(planting, cell)
                if journal is not None and known[cell] is None:
                    journal.add(*keys[cell], one)
                measurements[cell].append(one)
            draws[kind] += measurements[cells[0]][-1].draws
        for cell, measured in measurements.items():
            limit = threshold(measured[:n_calibration])
            rows[cell] = rates(METHODS[cell.method], limit, measured[n_calibration:])
    require(bool(rows), "methods", [m.name for m in chosen], "one that is asked about one of the families")
    return _result(rows, n_plantings, n_calibration, first_seed, dict(settings or {}), draws)


def _measure(planting: Planting | None, cell: Cell) -> Measured:
    assert planting is not None  # made wherever something is not known
    effects = METHODS[cell.method].measure(planting, cell.contrast)
    return Measured(planting.roles_for[cell.contrast], effects, planting.draws)


def threshold(measured: Iterable[Measured]) -> float:
    """The effect above which a part is flagged: the rule of this module, from calibration plantings."""
    inert = [
        effect
        for one in measured
        for part, effect in one.effects.items()
        if one.roles[part] in ALARMS - {Role.DECOY} and "+" not in part
    ]
    return max(FLOOR, float(np.quantile(inert, QUANTILE))) if inert else FLOOR


def rates(method: Method, limit: float, measured: Sequence[Measured]) -> np.ndarray:
    """The quantities of one cell, float64 [quantity]; NaN where no part has a role that would count."""
    hits, alarms = [], []
    flagged: dict[Role, list[bool]] = {role: [] for role in Role}
    for one in measured:
        flags = {part: effect > limit for part, effect in one.effects.items()}
        for part, flag in flags.items():
            flagged[one.roles[part]].append(flag)
        hits.append([flag for part, flag in flags.items() if is_hit(one.roles[part], method.kind)])
        alarms.append([flag for part, flag in flags.items() if one.roles[part] in ALARMS])
    counts = {
        "hit": [all(flags) for flags in hits if flags],
        "alarm": [any(flags) for flags in alarms if flags],
        "part hit": [flag for each in hits for flag in each],
        "part alarm": [flag for each in alarms for flag in each],
    }
    values = [limit]
    for rate in RATES:
        values += _wilson(counts[rate])
    values += [float(np.mean(flags)) if flags else np.nan for flags in flagged.values()]
    return np.array(values)


def _wilson(outcomes: Sequence[bool]) -> list[float]:
    """A rate and its 95 % Wilson interval (Wilson 1927)."""
    if not outcomes:
        return [np.nan] * 3
    interval = binomtest(sum(outcomes), len(outcomes)).proportion_ci(0.95, method="wilson")
    return [float(np.mean(outcomes)), float(interval.low), float(interval.high)]


def _family(kind: str, settings: Mapping[str, Any]) -> Family:
    """The family with these settings, at its least width where they ask for less."""
    cls = families()[kind]
    width = max(int(settings.get("d_model", cls.min_width)), cls.min_width)
    return cls(**{**settings, "d_model": width})


def _known(field: str, names: Sequence[str] | None, known: Mapping[str, object]) -> list[str]:
    """The names, each of which is known; all when ``None``."""
    chosen = list(known) if names is None else list(names)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"{field}: {name!r} is not one of {', '.join(known)}{nearest(name, known)}")
    require(bool(chosen) and len(set(chosen)) == len(chosen), field, chosen, "at least one, each once")
    return chosen


def _result(
    rows: dict[Cell, np.ndarray],
    n_plantings: int,
    n_calibration: int,
    first_seed: int,
    settings: dict[str, Any],
    draws: dict[str, int],
) -> Result:
    values = np.stack(list(rows.values()))
    undefined = [
        ({"cell": cell.label, "quantity": quantity}, "no part of a planting counts here, or the method cannot see it")
        for cell, row in rows.items()
        for quantity, value in zip(QUANTITIES, row, strict=True)
        if np.isnan(value)
    ]
    expected = {cell.label: {r.value: EXPECTED[r][METHODS[cell.method].kind] for r in Role} for cell in rows}
    return Result(
        name="hit and false-alarm rates on planted models",
        values=values,
        axes=("cell", "quantity"),
        coordinates={"cell": [cell.label for cell in rows], "quantity": QUANTITIES},
        unit="fraction (threshold: the unit of the method)",
        direction="higher is better for hits, worse for alarms; a role's share is to be held against what is expected",
        what_it_does_not_show="how a method does on trained models, whose parts share their work and whose effects are "
        "smaller: the planted ones are saturated, a part is either essential or without effect",
        undefined=undefined,
        metadata={
            "rule": {"floor": FLOOR, "quantile": QUANTILE, "n_calibration": n_calibration},
            "n_plantings": n_plantings,
            "first_seed": first_seed,
            "settings": settings,
            "cells": {cell.label: dataclasses.asdict(cell) for cell in rows},
            "expected": expected,
            "commits": dict.fromkeys([cell.label for cell in rows], commit()),
            "acceptance": {kind: (n_plantings + n_calibration) / n for kind, n in draws.items()},
        },
    )
