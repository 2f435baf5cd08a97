"""Results of analyses on a page: the figure that fits the axes of each, and all maps of parts beside each other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from analyses import figures
from analyses.figures.head_map import AXES as OF_A_HEAD
from analyses.report.document import Report
from analyses.report.evidence import heads_as_parts
from mechproc.result import Label, Result, in_words

MAX_FIGURES = 8
"""Figures of one Result; the rest of its numbers is in its CSV file and in the evidence."""
MAX_MAPS = 6
"""Maps of one Result beside those of the others."""
Drawn = list[go.Figure]


def add(page: Report, results: Sequence[Result]) -> None:
    """A section for each Result, and before them all maps of parts in the same rows where there are several."""
    _beside_each_other(page, results)
    titles = [result.title for result in results]
    for number, result in enumerate(results):
        title = result.title if titles.count(result.title) == 1 else f"{result.title}: {_whose(result)}"
        page.heading(f"{title[0].upper()}{title[1:]}", 2 if number == 0 or len(results) < 12 else 3)
        for sentence in result.metadata.get("sentences", []):
            page.text(str(sentence))
        drawn, n_left_out = figures_of(result)
        more = f" {n_left_out} more are not drawn; their numbers are in the CSV file." if n_left_out else ""
        if drawn:
            page.figure(drawn, _about(result) + more, result)
        else:
            page.table(result)
            page.evidence(result)


def figures_of(result: Result) -> tuple[Drawn, int]:
    """The figures that fit the axes of a Result, and how many were left out; none where a table is better."""
    for fits, draw in DRAWINGS:
        if fits(result):
            drawn = draw(result)
            return drawn[:MAX_FIGURES], max(0, len(drawn) - MAX_FIGURES)
    return [], 0


def maps_of(result: Result) -> list[tuple[str, Result]]:
    """The maps in a Result, parts by seeds, with what sets each apart from the others."""
    parts = _as_parts(result)
    if "part" not in parts.axes or {"position", "other", "matrix", "step"} & set(parts.axes):
        return []
    return [(f"{result.name}, {in_words(where)}" if where else result.name, one)
            for where, one in _each(parts, ("part", "seed"))]  # fmt: skip


# ---- inside ----------------------------------------------------------------------------------------------------------


def _beside_each_other(page: Report, results: Sequence[Result]) -> None:
    titles = [result.name for result in results]
    found: list[tuple[str, Result]] = []
    left_out = 0
    for result in results:
        maps = [each for each in maps_of(result) if np.isfinite(each[1].values).any()]
        whose = f", {_whose(result)}" if titles.count(result.name) > 1 and maps else ""
        found += [(f"{title}{whose}", one) for title, one in maps[:MAX_MAPS]]
        left_out += len(maps[MAX_MAPS:])
    if len(found) < 2:
        return
    page.heading("Maps beside each other")
    more = f" {left_out} more maps are below, with the Result that they are of." if left_out else ""
    page.text(f"Every map has the same rows, so that a part can be followed from one to the next.{more}")
    page.figure(figures.maps([one for _, one in found], [title for title, _ in found]))


def _whose(result: Result) -> str:
    """Which models a Result is of, as far as it says; else the name of its file."""
    models = (result.metadata.get("request") or {}).get("models") or {}
    return ", ".join(models) or str(result.metadata.get("file", "not named"))


def _each(result: Result, kept: Sequence[str]) -> list[tuple[dict[str, Label], Result]]:
    """The Result for every combination of labels of the axes that are not kept."""
    others = [axis for axis in result.axes if axis not in kept]
    return [(where := dict(zip(others, labels, strict=True)), result.select(**where))
            for labels in itertools.product(*(result.coordinates[axis] for axis in others))]  # fmt: skip


def _as_parts(result: Result) -> Result:
    """Heads by layer and number, and what writes, as parts."""
    result = heads_as_parts(result)
    if "sender" in result.axes and "receiver" not in result.axes:
        return _renamed(result, sender="part")
    return result


def _renamed(result: Result, **names: str) -> Result:
    return dataclasses.replace(
        result,
        axes=tuple(names.get(axis, axis) for axis in result.axes),
        coordinates={names.get(axis, axis): labels for axis, labels in result.coordinates.items()},
        undefined=[({names.get(a, a): label for a, label in where.items()}, why) for where, why in result.undefined],
        provenance=[({names.get(a, a): label for a, label in where.items()}, e) for where, e in result.provenance],
    )


def _about(result: Result) -> str:
    warnings = [f"Warning: {sentence.rstrip('.')}." for sentence in result.warnings]
    return " ".join(warnings) if not result.axes else ""


def _axes(*names: str) -> Callable[[Result], bool]:
    return lambda result: set(result.axes) == set(names)


def _part_maps(result: Result) -> Drawn:
    each = _each(_as_parts(result), ("part", "seed"))
    return [figures.ablation_map(one) for _, one in each if np.isfinite(one.values).any()]


def _position_maps(result: Result) -> Drawn:
    return [figures.position_map(one) for _, one in _each(result, ("part", "position"))]


def _square_maps(rows: str, columns: str) -> Callable[[Result], Drawn]:
    def draw(result: Result) -> Drawn:
        drawn = []
        for _, one in _each(result, (rows, columns)):
            figure = figures.position_map(_renamed(one, **{rows: "part", columns: "position"}))
            figure.update_xaxes(title={"text": columns, "standoff": 8})
            drawn.append(figure)
        return drawn

    return draw


def _circuits(result: Result) -> Drawn:
    return [figures.circuit_graph(result, seed) for seed in result.coordinates["seed"]]


def _probes(result: Result) -> Drawn:
    quantities = [q for q in result.coordinates["quantity"] if np.isfinite(result.select(quantity=q).values).any()]
    return [figures.probe_map(result, str(quantity)) for quantity in quantities]


def _is_spectrum(result: Result) -> bool:
    return _axes("part", "matrix", "quantity", "seed")(result) and "singular value 1" in result.coordinates["quantity"]


def _is_part_map(result: Result) -> bool:
    parts = _as_parts(result)
    return {"part", "seed"} <= set(parts.axes) and len(parts.axes) <= 3


DRAWINGS: tuple[tuple[Callable[[Result], bool], Callable[[Result], Drawn]], ...] = (
    (lambda result: result.name == "edges of the circuit", _circuits),
    (_axes("measure", "step", "seed"), figures.over_training),
    (_is_spectrum, lambda result: [figures.spectra(result)]),
    (_axes("latent", "site", "quantity", "seed"), _probes),
    (lambda result: tuple(result.axes) in OF_A_HEAD, lambda result: [figures.head_map(result)]),
    (_axes("start", "task", "seed"), lambda result: [figures.arm_matrix(result)]),
    (_axes("arm", "seed"), lambda result: [figures.arms(result)]),
    (_axes("arm", "seed", "step"), lambda result: [figures.curves(result)]),
    (lambda result: {"part", "position"} <= set(result.axes) and "item" not in result.axes, _position_maps),
    (_axes("sender", "receiver", "seed"), _square_maps("sender", "receiver")),
    (_axes("part", "other", "seed"), _square_maps("part", "other")),
    (_is_part_map, _part_maps),
)
"""Which Results are drawn, and how; the first that fits."""
