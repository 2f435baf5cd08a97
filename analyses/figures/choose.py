"""Which figure fits a Result: by its name where there is one for it alone, else by its axes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import plotly.graph_objects as go

from analyses.figures.ablation_map import ablation_map
from analyses.figures.arm_matrix import arm_matrix
from analyses.figures.arms import arms
from analyses.figures.circuit_functions import circuit_functions
from analyses.figures.circuit_graph import circuit_graph
from analyses.figures.curves import curves
from analyses.figures.dots import agreement, barriers, head_groups, statistics
from analyses.figures.head_map import AXES as OF_A_HEAD
from analyses.figures.head_map import head_map
from analyses.figures.lens import lens
from analyses.figures.over_training import over_training
from analyses.figures.position_map import position_map
from analyses.figures.probe_map import probe_map
from analyses.figures.reading_map import SHOWN, reading_map
from analyses.figures.spectra import spectra
from analyses.figures.weight_comparison import weight_comparison, weight_words
from mechproc.result import Label, Result

Drawn = list[go.Figure]


def figures_of(result: Result) -> Drawn:
    """The figures that fit a Result, the most telling first; none where a table is better.

    Every analysis of ``analyses.ANALYSES`` has one. Of a Result with more axes than a figure has, each combination of
    the other labels is a figure.
    """
    for fits, draw in DRAWINGS:
        if fits(result):
            return draw(result)
    return []


def each_of(result: Result, kept: Sequence[str]) -> list[tuple[dict[str, Label], Result]]:
    """The Result for every combination of labels of the axes that are not kept."""
    others = [axis for axis in result.axes if axis not in kept]
    return [(where := dict(zip(others, labels, strict=True)), result.select(**where))
            for labels in itertools.product(*(result.coordinates[axis] for axis in others))]  # fmt: skip


def as_parts(result: Result) -> Result:
    """Heads by layer and number, and what writes, as parts."""
    result = heads_as_parts(result)
    if "sender" in result.axes and "receiver" not in result.axes:
        return _renamed(result, sender="part")
    return result


def heads_as_parts(result: Result) -> Result:
    """A Result whose axes are ``layer`` and ``head`` with the axis ``part`` in their place; others stay as they are."""
    if not {"layer", "head"} <= set(result.axes) or {"query", "part"} & set(result.axes):
        return result
    others = [axis for axis in result.axes if axis not in ("layer", "head")]
    order = [tuple(result.axes).index(axis) for axis in (*others, "layer", "head")]
    layers, heads = result.coordinates["layer"], result.coordinates["head"]
    values = result.values.transpose(order).reshape(*(len(result.coordinates[a]) for a in others), -1)
    place = others.index("seed") if "seed" in others else len(others)
    axes = [*others[:place], "part", *others[place:]]
    coordinates: dict[str, list[Label]] = {axis: list(result.coordinates[axis]) for axis in others}
    coordinates["part"] = [f"L{layer}.H{head}" for layer in layers for head in heads]
    undefined = [(where, why) for where, why in result.undefined if not {"layer", "head"} & set(where)]
    return dataclasses.replace(
        result, values=np.moveaxis(values, -1, place), axes=tuple(axes), coordinates=coordinates, undefined=undefined,
        provenance=(),
    )  # fmt: skip


# ---- inside ----------------------------------------------------------------------------------------------------------


def _renamed(result: Result, **names: str) -> Result:
    return dataclasses.replace(
        result,
        axes=tuple(names.get(axis, axis) for axis in result.axes),
        coordinates={names.get(axis, axis): labels for axis, labels in result.coordinates.items()},
        undefined=[({names.get(a, a): label for a, label in where.items()}, why) for where, why in result.undefined],
        provenance=[({names.get(a, a): label for a, label in where.items()}, e) for where, e in result.provenance],
    )


def _axes(*names: str) -> Callable[[Result], bool]:
    return lambda result: set(result.axes) == set(names)


def _part_maps(result: Result) -> Drawn:
    each = each_of(as_parts(result), ("part", "seed"))
    return [ablation_map(one) for _, one in each if np.isfinite(one.values).any()]


def _position_maps(result: Result) -> Drawn:
    return [position_map(one) for _, one in each_of(result, ("part", "position"))]


def _square_maps(rows: str, columns: str) -> Callable[[Result], Drawn]:
    def draw(result: Result) -> Drawn:
        drawn = []
        for _, one in each_of(result, (rows, columns)):
            figure = position_map(_renamed(one, **{rows: "part", columns: "position"}))
            figure.update_xaxes(title={"text": columns, "standoff": 8})
            drawn.append(figure)
        return drawn

    return draw


def _circuits(result: Result) -> Drawn:
    return [circuit_graph(result, seed) for seed in result.coordinates["seed"]]


def _probes(result: Result) -> Drawn:
    return [probe_map(result, str(quantity)) for quantity in _measured(result, "quantity")]


def _is_spectrum(result: Result) -> bool:
    return _axes("part", "matrix", "quantity", "seed")(result) and "singular value 1" in result.coordinates["quantity"]


def _is_part_map(result: Result) -> bool:
    parts = as_parts(result)
    return {"part", "seed"} <= set(parts.axes) and len(parts.axes) <= 3


def _measured(result: Result, axis: str) -> list[Label]:
    """The labels of an axis that have a value."""
    return [label for label in result.coordinates[axis] if np.isfinite(result.select(**{axis: label}).values).any()]


def _of_heads(result: Result) -> Drawn:
    """The map of a head, of each seed where there are several."""
    return [head_map(one) for _, one in each_of(result, ("query", "key", "source", "output"))]


DRAWINGS: tuple[tuple[Callable[[Result], bool], Callable[[Result], Drawn]], ...] = (
    (lambda result: result.name == "edges of the circuit", _circuits),
    (_axes("edge", "group", "seed"), lambda result: [circuit_functions(result)]),
    (_axes("measure", "step", "seed"), over_training),
    (_is_spectrum, lambda result: [spectra(result)]),
    (_axes("latent", "site", "quantity", "seed"), _probes),
    (lambda result: any(set(axes) <= set(result.axes) <= {*axes, "seed"} for axes in OF_A_HEAD), _of_heads),
    (
        _axes("mask", "group", "rank", "seed"),
        lambda result: [head_groups(result, str(mask)) for mask in _measured(result, "mask")],
    ),
    (_axes("site", "seed"), lambda result: [lens(result)]),
    (_axes("site", "position", "seed"), _square_maps("site", "position")),
    (lambda result: result.name in SHOWN, lambda result: [reading_map(result, s) for s in result.coordinates["seed"]]),
    (_axes("statistic", "seed"), statistics),
    (_axes("map", "case"), lambda result: [agreement(result)]),
    (_axes("pair", "matching", "quantity"), lambda result: [barriers(result)]),
    (_axes("part", "first", "second"), lambda result: [weight_comparison(result)]),
    (
        lambda result: _axes("part", "quantity")(result) and "words" in result.metadata,
        lambda result: [weight_words(result)],
    ),
    (_axes("start", "task", "seed"), lambda result: [arm_matrix(result)]),
    (_axes("arm", "seed"), lambda result: [arms(result)]),
    (_axes("arm", "seed", "step"), lambda result: [curves(result)]),
    (lambda result: {"part", "position"} <= set(result.axes) and "item" not in result.axes, _position_maps),
    (_axes("sender", "receiver", "seed"), _square_maps("sender", "receiver")),
    (_axes("part", "other", "seed"), _square_maps("part", "other")),
    (_is_part_map, _part_maps),
)
"""Which Results are drawn, and how; the first that fits."""
