"""The Result: a dense array with named, labelled axes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechproc.config import canonical_json, digest, nearest
from mechproc.errors import ConfigError, StoreError, require
from mechproc.files import atomic_write
from mechproc.reading import parse_json, read_bytes
from mechproc.result import display
from mechproc.result.labels import Label, Where, checked_labels, facts_after, in_words, metadata_of

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "mechproc.result.2"
"""Marks a file as a Result, with the version of its layout: from 2 on a ``checksum`` of the rest stands in it."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A dense array with named, labelled axes. Checked when it is made, read-only afterwards.

    A cell is *measured* (a finite number), *undefined* (it means nothing; ``undefined`` gives the reason) or *missing*
    (it could be measured and was not). The last two are NaN in ``values``. Two Results are equal when all their fields
    are equal. Intervals over seeds: ``mechproc.statistics.intervals.over_seeds(result)``.
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
    """The settings it was made with; plain JSON. ``metadata["warnings"]`` is a list of sentences that a reader needs
    before the values; tables and figures print them first."""
    provenance: Sequence[tuple[Where, Mapping[str, Any]]] = ()
    """Which environment (engine, device, SIMD width, threads, library versions) the runs behind the cells had:
    ``[({}, environment)]``, or one entry for each ``{"seed": 3}``. Empty when unknown, else it covers every measured
    cell. Only facts that can change bits belong here: a date would make every two runs differ."""
    selected: Mapping[str, Label] = dataclasses.field(default_factory=dict)
    """The labels of the axes that ``select`` dropped, such as ``{"ablation": "zero"}``."""

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
        coordinates = {axis: checked_labels(axis, self.coordinates[axis]) for axis in axes}
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
        object.__setattr__(self, "selected", {a: checked_labels(a, [label])[0] for a, label in self.selected.items()})

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
            kept = checked_labels(axis, wanted if several else [wanted])  # type: ignore[arg-type,list-item]
            values = np.take(result.values, [result._position(axis, label) for label in kept], axis=number)
            all_labels = result.coordinates[axis]
            result = result._changed(axis, values if several else values.squeeze(number), kept, dropped=not several)
            if not several:
                metadata = metadata_of(result.metadata, axis, kept[0], all_labels)
                selected = {**result.selected, axis: kept[0]}
                result = dataclasses.replace(result, metadata=metadata, selected=selected)
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
        wanted, had = checked_labels(axis, labels), self.coordinates[self.axes[self._axis(axis)]]
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

    @property
    def title(self) -> str:
        """The name, and which labels were selected: ``"accuracy lost (ablation zero)"``."""
        return f"{self.name} ({in_words(self.selected)})" if self.selected else self.name

    @property
    def warnings(self) -> list[str]:
        """The sentences of ``metadata["warnings"]``."""
        warnings = self.metadata.get("warnings", [])
        return [warnings] if isinstance(warnings, str) else [str(sentence) for sentence in warnings]

    def texts(self, spec: str = ".4g") -> np.ndarray:
        """The cells as they are printed, str in an object array: a number, ``"undefined"`` or ``"missing"``."""
        texts = np.array([format(v, spec) for v in self.values.ravel().tolist()], dtype=object)
        texts = texts.reshape(self.values.shape)
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

    def __repr__(self) -> str:
        return f"<Result: {display.heading(self)}>"

    def __str__(self) -> str:
        return display.as_text(self)

    def _repr_html_(self) -> str:
        return display.as_html(self)

    # ---- files ------------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """One JSON document, with its checksum; NaN becomes null, floats keep every bit. ``from_json`` reads it."""
        values = self.values.astype(object)
        values[np.isnan(self.values)] = None
        plain = json.loads(json.dumps({"format": FORMAT, **self._header(), "values": values.tolist()}, allow_nan=False))
        return json.dumps(plain | {"checksum": digest(plain)})

    @classmethod
    def from_json(cls, text: str, source: str = "text") -> Result:
        """Read what ``to_json`` wrote. Errors: ``StoreError`` naming ``source`` for anything else."""
        try:
            plain = parse_json(text)
            if not isinstance(plain, dict) or plain.get("format") not in (FORMAT, "mechproc.result.1"):
                raise ValueError(f"its format is not {FORMAT!r}")
            written = plain.pop("checksum", None)
            if (written is not None or plain["format"] == FORMAT) and written != digest(plain):
                raise ValueError("it was changed or damaged, as it does not have its checksum")
            del plain["format"]
            plain["values"] = np.array(plain["values"], dtype=np.float64)
            return cls(**plain)
        except (ValueError, TypeError, KeyError, AttributeError, MemoryError, OverflowError) as error:
            raise StoreError(f"{source} does not hold a Result: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the Result as one JSON file, atomically. Errors: ``StoreError``."""
        atomic_write(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a file that ``save`` wrote. Errors: ``StoreError``."""
        try:
            text = read_bytes(path).decode("utf-8")
        except UnicodeDecodeError:
            raise StoreError(f"{path} does not hold a Result: it is not text") from None
        return cls.from_json(text, str(path))

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _header(self) -> dict[str, Any]:
        """Everything but the values, as plain JSON values."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "values"}
        fields["coordinates"] = {axis: list(labels) for axis, labels in self.coordinates.items()}
        fields["selected"] = dict(self.selected)
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
        """This Result with ``axis`` cut to ``kept``, or dropped; the facts about cells are cut in the same way."""
        coordinates = {a: kept if a == axis else labels for a, labels in self.coordinates.items()}
        if dropped:
            del coordinates[axis]
        undefined = facts_after(self.undefined, axis, kept, dropped)
        provenance = facts_after(self.provenance, axis, kept, dropped)
        return dataclasses.replace(
            self,
            values=values,
            axes=tuple(coordinates),
            coordinates=coordinates,
            undefined=undefined,
            provenance=provenance,
        )
