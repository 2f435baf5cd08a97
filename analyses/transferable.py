"""The weights of the search's donors as numbers, so that they can be held against what their parts carried over.

``mechproc.studies.transferable`` searches, ``mechproc.studies.transferable_reading`` reads its records; what needs the
donors' weights is measured here, once, and kept as a small file beside the records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from analyses import donor_statistics
from mechproc.model.hooked import HookedTransformer
from mechproc.progress import progress
from mechproc.result import Result, Where
from mechproc.runs.config import RunAtStep
from mechproc.runs.store import Store
from mechproc.studies.transferable import DONOR_STEPS, SEEDS, cells


def donors(seeds: Sequence[int] = SEEDS) -> list[RunAtStep]:
    """Every donor of the search at every step that is probed."""
    return [RunAtStep(cell.donor(seed), step) for seed in seeds for cell in cells() for step in DONOR_STEPS]


def run(store: Store, known: Result | None = None, seeds: Sequence[int] = SEEDS) -> Result | None:
    """The statistics of ``analyses.donor_statistics`` for each donor of the search: axes ``donor`` and ``statistic``.

    Donors are labelled by their identity. ``known``: an earlier Result, whose donors are kept and not measured again.
    Donors whose weights are not in ``store`` are left out; None where nothing is known and none has weights.
    """
    rows: dict[str, np.ndarray] = {}
    undefined: list[tuple[Where, str]] = []
    if known is not None:
        rows = {str(donor): values for donor, values in zip(known.coordinates["donor"], known.values, strict=True)}
        undefined += known.undefined
    here = [donor for donor in donors(seeds) if donor.identity not in rows and store.has_weights(donor.run)]
    measured: Result | None = None
    for donor in progress(here, "donors", unit="donor"):
        measured = donor_statistics.run([HookedTransformer(*donor.weights(store))])
        rows[donor.identity] = measured.values[0]
        undefined += [({"donor": donor.identity, **where}, reason) for where, reason in measured.undefined]
    if measured is None:
        return known
    return dataclasses.replace(
        measured,
        name="statistics of the donors",
        values=np.stack([*rows.values()]),
        axes=("donor", "statistic"),
        coordinates={"donor": list(rows), "statistic": measured.coordinates["statistic"]},
        undefined=undefined,
    )
