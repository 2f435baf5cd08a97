"""Cells of several calibrations in one Result: what is long to measure is measured in pieces.

Each cell keeps the commit whose code measured it. All were measured by one rule on as many plantings with the same
seeds and settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyses.planted.applies import ASKED
from analyses.planted.calibrate import QUANTITIES, Cell, cells_of
from analyses.planted.methods import METHODS
from mechproc.errors import require
from mechproc.result import Result, Where

SAME = ("rule", "n_plantings", "first_seed", "settings")
"""What calibrations must have in common."""
BY_CELL = ("cells", "expected", "commits")
"""Metadata that each cell has of its own."""


def every_cell() -> list[Cell]:
    """All that methods are asked, family by family."""
    return [cell for kind in ASKED for cell in cells_of(kind, METHODS.values())]


def missing(result: Result) -> list[Cell]:
    """What was asked and is not in a calibration."""
    return [cell for cell in every_cell() if cell.label not in result.coordinates["cell"]]


def joined(results: Sequence[Result]) -> Result:
    """The cells of all calibrations, in the order of ``every_cell``; of a cell in several, the last.

    Errors: ``ConfigError`` for none, for what is no calibration, and where rule, plantings or settings differ.
    """
    require(len(results) > 0, "calibrations", len(results), "at least one")
    for result in results:
        allowed = "Results of mechproc calibrate"
        require(result.axes == ("cell", "quantity") and "cells" in result.metadata, "join", result.name, allowed)
        quantities = list(result.coordinates["quantity"])
        require(quantities == list(QUANTITIES), "quantities of a joined calibration", quantities, str(list(QUANTITIES)))
        for field in SAME:
            first = results[0].metadata[field]
            require(result.metadata[field] == first, f"{field} of a joined calibration", result.metadata[field], first)
    of_label = {label: result for result in results for label in result.coordinates["cell"]}
    labels = [cell.label for cell in every_cell() if cell.label in of_label]
    values = np.stack([of_label[label].select(cell=label).values for label in labels])
    undefined: list[tuple[Where, str]] = [
        (where, why) for label in labels for where, why in of_label[label].undefined if where["cell"] == label
    ]
    metadata: dict[str, Any] = {field: results[0].metadata[field] for field in SAME}
    for field in BY_CELL:
        metadata[field] = {label: of_label[label].metadata[field][label] for label in labels}
    metadata["acceptance"] = {kind: share for r in results for kind, share in r.metadata["acceptance"].items()}
    shared = {field: getattr(results[-1], field) for field in ("name", "unit", "direction", "what_it_does_not_show")}
    return Result(
        values=values,
        axes=("cell", "quantity"),
        coordinates={"cell": labels, "quantity": QUANTITIES},
        undefined=undefined,
        metadata=metadata,
        **shared,
    )
