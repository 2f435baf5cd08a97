"""What an analysis returns: a dense array with named axes, and everything one must know to read it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechproc.config import canonical_json, nearest
from mechproc.errors import ConfigError, StoreError, require

if TYPE_CHECKING:
    import pandas as pd

Label = str | int | float
Where = Mapping[str, Label]
"""Cells by their labels: ``{"part": "L0.mlp"}`` is every cell of that part, ``{}`` is every cell."""
FORMAT = "mechproc.result.1"
"""Marks a file as a Result, with the version of its layout."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A dense array with named, labelled axes. Checked when it is made, read-only afterwards.

    A cell is *measured* (a finite number), *undefined* (it means nothing; ``undefined`` says why) or *missing* (it
    could be measured and was not). The last two are NaN in ``values``. Two Results are equal when all they hold is.
    """

    name: str
    """What was measured, in a few words."""
    values: np.ndarray
    """float64, one dimension for each axis; copied and made read-only."""
    axes: Sequence[str]
    """Such as ``("part", "seed", "item")``."""
    coordinates: Mapping[str, Sequence[Label]]
    """The labels along each axis, no two of an axis alike."""
    unit: str
    """Such as ``"fraction"``, ``"nats"``, ``"tokens"`` or ``"steps"``."""
    direction: str
    """What the sign means, as in ``"positive: the ablation hurts"``."""
    what_it_does_not_show: str
    """The conclusion that a reader might draw and that does not follow."""
    undefined: Sequence[tuple[Where, str]] = ()
    """Cells that mean nothing, each with its reason: ``[({"part": "pos", "ablation": "mean"}, "...")]``."""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The settings it was made with; plain JSON."""
    provenance: Sequence[tuple[Where, Mapping[str, Any]]] = ()
    """Which environment (engine, device, SIMD width, threads, library versions) the runs behind the cells had:
    ``[({}, environment)]``, or one entry for each ``{"seed": 3}``. Empty when unknown, else it covers every measured
    cell. Only facts that can change bits belong here: a date would make every two runs differ."""

    def __post_init__(self) -> None:
        for field in ("name", "unit", "direction", "what_it_does_not_show"):
            text = getattr(self, field)
            require(isinstance(text, str) and text.strip() != "", field, text, "a text that says something")
        values = np.array(self.values, dtype=np.float64)
        require(not np.isinf(values).any(), "values", "infinity", "finite numbers, or NaN where there is none")
        values.setflags(write=False)
        axes = tuple(self.axes)
        require(not isinstance(self.axes, str) and len(set(axes)) == len(axes), "axes", self.axes, "names that differ")
        require(not {"value", "note"} & set(axes), "axes", axes, "other names than the table's own 'value' and 'note'")
        require(set(self.coordinates) == set(axes), "coordinates", sorted(self.coordinates), f"labels for {axes}")
        coordinates = {axis: _labels(axis, self.coordinates[axis]) for axis in axes}
        shape = tuple(len(labels) for labels in coordinates.values())
        require(values.shape == shape, "shape of values", values.shape, f"{shape}, from the labels of {axes}")
        try:
            metadata = json.loads(canonical_json(dict(self.metadata)))
            provenance = tuple((dict(where), json.loads(canonical_json(dict(e)))) for where, e in self.provenance)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"metadata and provenance of {self.name!r} must be plain JSON: {error}") from None
        undefined = tuple((dict(where), reason) for where, reason in self.undefined)
        for field, value in [("values", values), ("axes", axes), ("coordinates", coordinates), ("metadata", metadata)]:
            object.__setattr__(self, field, value)
        object.__setattr__(self, "undefined", undefined)
        object.__setattr__(self, "provenance", provenance)

        for where, reason in undefined:
            require(bool(reason), "reason", reason, f"a text that says why {where} is undefined")
            require(bool(np.isnan(values[self._cells(where)]).all()), "undefined", where, "cells that are all NaN")
        covered = self._mask([where for where, _ in provenance])
        require(not provenance or bool((covered | np.isnan(values)).all()), "provenance", [w for w, _ in provenance],
                "environments that cover every measured cell, or none")  # fmt: skip

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        mine, theirs = self._header(), other._header()
        return mine == theirs and np.array_equal(self.values, other.values, equal_nan=True)

    __hash__ = None  # type: ignore[assignment]  # holds dicts

    # ---- which cells ------------------------------------------------------------------------------------------------

    @property
    def is_undefined(self) -> np.ndarray:
        """bool, the shape of ``values``: cells that mean nothing."""
        return self._mask([where for where, _ in self.undefined])

    @property
    def is_missing(self) -> np.ndarray:
        """bool, the shape of ``values``: cells that could be measured and were not."""
        return np.isnan(self.values) & ~self.is_undefined

    def select(self, **labels: Label | Sequence[Label]) -> Result:
        """Some cells, by label: one label drops its axis, a list keeps the axis in the list's order.

        Errors: ``ConfigError`` for an axis or a label that is not there, naming the nearest.
        """
        result = self
        for axis, wanted in labels.items():
            number = result._axis(axis)
            several = isinstance(wanted, (list, tuple, np.ndarray))
            kept = _labels(axis, wanted if several else [wanted])  # type: ignore[arg-type,list-item]
            values = np.take(result.values, [result._position(axis, label) for label in kept], axis=number)
            result = result._changed(axis, values if several else values.squeeze(number), kept, dropped=not several)
        return result

    def mean(self, *axes: str) -> Result:
        """The mean over the named axes. It is missing or undefined as soon as one of the cells under it is."""
        result = self
        for axis in axes:
            number = result._axis(axis)
            kept = result.coordinates[axis]
            result = result._changed(axis, result.values.mean(axis=number), kept, dropped=True)
        return result

    def reindex(self, axis: str, labels: Sequence[Label]) -> Result:
        """The same cells laid out by ``labels`` along ``axis``; labels that it does not have become missing cells."""
        wanted, had = _labels(axis, labels), self.coordinates[self.axes[self._axis(axis)]]
        shape = tuple(len(wanted) if a == axis else len(self.coordinates[a]) for a in self.axes)
        values = np.full(shape, np.nan)
        here, there = np.moveaxis(values, self._axis(axis), 0), np.moveaxis(self.values, self._axis(axis), 0)
        for row, label in enumerate(wanted):
            if label in had:
                here[row] = there[had.index(label)]
        if not any(label in had for label in wanted):
            raise ConfigError(f"no {axis} of {self.name!r} is among {list(wanted)}")
        return self._changed(axis, values, wanted, dropped=False)

    # ---- for reading ------------------------------------------------------------------------------------------------

    def texts(self, spec: str = ".4g") -> np.ndarray:
        """The cells as they are printed, str in an object array: a number, ``"undefined"`` or ``"missing"``."""
        texts = np.array([format(v, spec) for v in self.values.ravel().tolist()], dtype=object).reshape(
            self.values.shape
        )
        return np.where(self.is_undefined, "undefined", np.where(self.is_missing, "missing", texts))

    def table(self) -> pd.DataFrame:
        """Tidy: one row for each cell, a column for each axis, ``value``, and ``note``.

        ``note`` is empty for a measured cell, else ``"missing"`` or ``"undefined: "`` and the reason.
        """
        import pandas as pd

        notes = np.where(self.is_missing, "missing", "").astype(object)
        for where, reason in self.undefined:
            notes[self._cells(where)] = f"undefined: {reason}"
        grids = np.indices(self.values.shape).reshape(len(self.axes), self.values.size)
        columns: dict[str, Any] = {
            axis: [self.coordinates[axis][i] for i in grid.tolist()]
            for axis, grid in zip(self.axes, grids, strict=True)
        }
        return pd.DataFrame({**columns, "value": self.values.ravel(), "note": notes.ravel()})

    def __str__(self) -> str:
        sizes = " x ".join(f"{len(self.coordinates[axis])} {axis}" for axis in self.axes)
        head = [f"{self.name} [{self.unit}]: {sizes or 'one number'}", self.direction]
        shown = self.table().drop(columns="note")
        shown["value"] = self.texts().ravel()
        rest = len(shown) - 40
        tail = [f"... and {rest} more"] if rest > 0 else []
        body = shown.head(40).to_string(index=False)
        return "\n".join([*head, body, *tail, f"Does not show: {self.what_it_does_not_show}"])

    # ---- files ------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """One JSON document; NaN becomes null, floats keep every bit. ``from_json`` is its inverse."""
        values = self.values.astype(object)
        values[np.isnan(self.values)] = None
        return json.dumps({"format": FORMAT, **self._header(), "values": values.tolist()}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "text") -> Result:
        """Read what ``to_json`` wrote. Errors: ``StoreError`` naming ``source`` for anything else."""
        try:
            plain = json.loads(text, parse_constant=_refuse)
            if not isinstance(plain, dict) or plain.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            plain["values"] = np.array(plain["values"], dtype=np.float64)
            return cls(**plain)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StoreError(f"{source} does not hold a Result: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the Result as one JSON file. Errors: ``StoreError``."""
        try:
            Path(path).write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a file that ``save`` wrote. Errors: ``StoreError``."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise StoreError(f"{path} does not hold a Result: it is not text") from None
        return cls.from_json(text, str(path))

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _header(self) -> dict[str, Any]:
        """Everything but the values, as plain JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "values"}
        fields["coordinates"] = {axis: list(labels) for axis, labels in self.coordinates.items()}
        return {**fields, "axes": list(self.axes), "undefined": [list(u) for u in self.undefined],
                "provenance": [list(p) for p in self.provenance]}  # fmt: skip

    def _axis(self, axis: str) -> int:
        if axis not in self.axes:
            raise ConfigError(
                f"axis {axis!r} of {self.name!r} is not one of {', '.join(self.axes)}{nearest(axis, self.axes)}"
            )
        return tuple(self.axes).index(axis)

    def _position(self, axis: str, label: Label) -> int:
        labels = self.coordinates[axis]
        if label not in labels:
            hint = nearest(str(label), map(str, labels))
            raise ConfigError(
                f"{axis} {label!r} is not in {self.name!r}{hint} ({len(labels)} labels, first {labels[0]!r})"
            )
        return tuple(labels).index(label)

    def _cells(self, where: Where) -> tuple[int | slice, ...]:
        for axis in where:
            self._axis(axis)
        return tuple(self._position(a, where[a]) if a in where else slice(None) for a in self.axes)

    def _mask(self, wheres: list[Where]) -> np.ndarray:
        mask = np.zeros(self.values.shape, dtype=bool)
        for where in wheres:
            mask[self._cells(where)] = True
        return mask

    def _changed(self, axis: str, values: np.ndarray, kept: Sequence[Label], *, dropped: bool) -> Result:
        """This Result with ``axis`` cut to ``kept``, or gone; what is known of cells goes with them."""
        coordinates = {a: kept if a == axis else labels for a, labels in self.coordinates.items()}
        if dropped:
            del coordinates[axis]
        undefined = _follow(self.undefined, axis, kept, dropped)
        provenance = _follow(self.provenance, axis, kept, dropped)
        return dataclasses.replace(
            self,
            values=values,
            axes=tuple(coordinates),
            coordinates=coordinates,
            undefined=undefined,
            provenance=provenance,
        )


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

    They must agree in name, unit, direction and every axis. ``metadata`` is kept where it is the same in all, else each
    Result's stands under ``metadata[axis][label]``. Where only some know their provenance, the whole has none.
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
    alike = all(result.metadata == first.metadata for result in results.values())
    metadata = first.metadata if alike else {axis: {str(k): r.metadata for k, r in results.items()}}
    known = all(result.provenance for result in results.values())
    return dataclasses.replace(
        first,
        values=np.stack([result.values for result in results.values()]),
        axes=(axis, *first.axes),
        coordinates={axis: list(results), **first.coordinates},
        undefined=[({axis: k, **where}, reason) for k, r in results.items() for where, reason in r.undefined],
        metadata=metadata,
        provenance=[({axis: k, **where}, e) for k, r in results.items() for where, e in r.provenance] if known else (),
    )


def _labels(axis: str, labels: Sequence[Label]) -> tuple[Label, ...]:
    require(not isinstance(labels, str), f"labels of {axis}", labels, "a list of labels")
    plain = tuple(label.item() if isinstance(label, np.generic) else label for label in labels)
    for label in plain:
        number = isinstance(label, (int, float)) and not isinstance(label, bool) and math.isfinite(label)
        require(number or isinstance(label, str), f"labels of {axis}", label, "texts and finite numbers")
    require(len(plain) > 0, f"labels of {axis}", list(plain), "at least one label")
    twice = next((label for label in plain if plain.count(label) > 1), None) if len(set(plain)) < len(plain) else None
    require(twice is None, f"labels of {axis}", twice, "labels that occur once")
    return plain


def _follow(
    known: Sequence[tuple[Where, Any]], axis: str, kept: Sequence[Label], dropped: bool
) -> list[tuple[Where, Any]]:
    """What is known of cells, for the cells that are left; without ``axis`` when it was dropped, and said once."""
    followed: list[tuple[Where, Any]] = []
    for where, what in known:
        if where.get(axis, kept[0]) in kept:
            entry = ({a: label for a, label in where.items() if a != axis or not dropped}, what)
            if entry not in followed:
                followed.append(entry)
    return followed


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")
