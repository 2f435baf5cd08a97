"""Results laid beside each other, or joined along a new axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.result.core import Result
from mechproc.result.labels import Label


def align(first: Result, second: Result, axis: str, how: Literal["union", "shared"] = "union") -> tuple[Result, Result]:
    """Two Results with the same labels along ``axis``, so that they can be laid beside each other.

    ``union`` keeps every label, those of ``first`` in front, and the cells that one of them lacks are missing there;
    ``shared`` keeps the labels that both have, in the order of ``first``. Errors: ``ConfigError`` when they share none.
    """
    require(how in ("union", "shared"), "how", how, "'union' or 'shared'")
    ours, theirs = (r.coordinates[r.axes[r._axis(axis)]] for r in (first, second))
    shared = [label for label in ours if label in theirs]
    if not shared:
        raise ConfigError(f"{first.name!r} and {second.name!r} share no {axis}")
    labels = shared if how == "shared" else [*ours, *(label for label in theirs if label not in ours)]
    return first.reindex(axis, labels), second.reindex(axis, labels)


def stack(results: Mapping[Label, Result], axis: str) -> Result:
    """Results of one analysis, such as one for each seed, joined along a new first ``axis`` labelled by the keys.

    They must agree in name, unit, direction and every axis. What their ``metadata`` share is kept, what differs stands
    under ``metadata[axis][label]``, where ``select`` finds it; the warnings of any are those of the whole. ``selected``
    keeps the labels that all share. Where only some know their provenance, the whole has none.
    """
    require(len(results) > 0, "results", dict(results), "at least one Result")
    first = next(iter(results.values()))
    require(axis not in first.axes, "axis", axis, f"a name that differs from {tuple(first.axes)}")
    for label, result in results.items():
        for field in ("name", "unit", "direction", "what_it_does_not_show", "axes", "coordinates"):
            same = getattr(result, field) == getattr(first, field)
            require(
                same, f"{field} of {axis} {label}", getattr(result, field), f"{getattr(first, field)!r} as in the first"
            )
    known = all(result.provenance for result in results.values())
    selected = {
        a: label for a, label in first.selected.items() if all(r.selected.get(a) == label for r in results.values())
    }
    selected.pop(axis, None)
    return dataclasses.replace(
        first,
        values=np.stack([result.values for result in results.values()]),
        axes=(axis, *first.axes),
        coordinates={axis: list(results), **first.coordinates},
        undefined=[({axis: k, **where}, reason) for k, r in results.items() for where, reason in r.undefined],
        metadata=_metadata({str(label): dict(result.metadata) for label, result in results.items()}, axis),
        provenance=[({axis: k, **where}, e) for k, r in results.items() for where, e in r.provenance] if known else (),
        selected=selected,
    )


def _metadata(of_labels: dict[str, dict[str, Any]], axis: str) -> dict[str, Any]:
    """What all share, and below ``axis`` what differs, by label."""
    first, *others = of_labels.values()
    shared = {key: value for key, value in first.items() if all(key in m and m[key] == value for m in others)}
    own = {label: {key: m[key] for key in m if key not in shared or key == axis} for label, m in of_labels.items()}
    if len(shared) == len(first) and all(len(shared) == len(m) for m in others):
        return shared
    warnings = [sentence for m in of_labels.values() for sentence in m.get("warnings", [])]
    if "warnings" not in shared and warnings:
        shared["warnings"] = list(dict.fromkeys(warnings))
        own = {label: {"warnings": [], **m} for label, m in own.items()}
    return {**shared, axis: own}
