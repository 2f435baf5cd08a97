"""Tables of a report: from a Result to rows by seed, and from a data frame to cells."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses.figures.style import visible
from mechproc.result import Result
from mechproc.statistics.intervals import over_seeds

if TYPE_CHECKING:
    import pandas as pd

NOTHING = ("undefined", "missing", "no mean")
"""Texts that stand where there is no number."""
MIDDLE, LONG = 24, 48
"""Characters from which on the cells of a column are wrapped: between words, and anywhere."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell, and the classes of its style."""

    text: str
    style: str = ""


@dataclasses.dataclass(frozen=True)
class Column:
    """One column's heading."""

    name: str
    style: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """What a page prints."""

    columns: list[Column]
    rows: list[list[Cell]]


def seed_table(result: Result, level: float = 0.95, most: int | None = None) -> pd.DataFrame:
    """One row for each label of the axes other than ``seed``: mean over seeds, interval, number of seeds, each seed.

    A mean that misses a seed, and an interval that has too few, are printed as such. Heads and neurons that are named
    by their index have no mean: an index is a different part in each seed. ``most``: the first so many rows.
    """
    import pandas as pd

    result = _first(result, most)
    others = [a for a in result.axes if a != "seed"]
    spec = ".3f" if result.unit == "fraction" else ".4g"
    texts = np.moveaxis(result.texts(spec), tuple(result.axes).index("seed"), -1)
    over = over_seeds(result, level=level)
    nothing = np.asarray(result.is_undefined.all(axis=tuple(result.axes).index("seed")))
    rows = []
    for index in np.ndindex(texts.shape[:-1]):
        row: dict[str, Any] = {a: result.coordinates[a][i] for a, i in zip(others, index, strict=True)}
        mean, low, high = over.values[index].tolist()
        if np.isfinite(mean):
            row["mean"] = format(mean, spec)
            interval = f"{low:{spec}} to {high:{spec}}" if np.isfinite(low) else "too few seeds"
        elif over.is_missing[index][0]:
            row["mean"] = interval = "missing"
        else:
            row["mean"] = interval = "undefined" if nothing[index] else "no mean"
        row[f"{100 * level:.3g} % interval"] = interval
        row["seeds"] = texts.shape[-1]
        by_seed = zip(result.coordinates["seed"], texts[index].tolist(), strict=True)
        rows.append(row | {f"seed {s}": text for s, text in by_seed})
    return pd.DataFrame(rows)


def _first(result: Result, most: int | None) -> Result:
    """The first labels of the first axis, as many as it takes for so many rows."""
    axis = next((a for a in result.axes if a != "seed"), None)
    if most is None or axis is None:
        return result
    labels = list(result.coordinates[axis])
    of_one = result.values.size // len(labels) // len(result.coordinates["seed"])
    return result.select(**{axis: labels[: max(1, -(-most // of_one))]})


def table_of(frame: pd.DataFrame) -> Table:
    """The cells of a data frame as they are printed: numbers to the right, long texts wrapped."""
    columns, by_column = [], []
    for name in frame.columns:
        values = list(frame[name])
        number = all(_is_number(v) for v in values if v not in NOTHING)
        longest = max((len(_text(v)) for v in values), default=0)
        style = "number" if number else "long" if longest > LONG else "middle" if longest > MIDDLE else ""
        columns.append(Column(str(name), style))
        by_column.append([Cell(_text(v), f"{style} nothing".strip() if v in NOTHING else style) for v in values])
    return Table(columns, [list(row) for row in zip(*by_column, strict=True)])


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, str) and value and not value.strip():
        return visible(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
