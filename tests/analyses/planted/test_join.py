"""Calibrations that were measured in pieces are one, and what was not measured is named."""

import numpy as np
import pytest

from analyses.planted import calibrate
from analyses.planted.join import every_cell, joined, missing
from analyses.planted.page import markdown
from analyses.planted.roles import Role
from mechproc.errors import ConfigError


def measured(methods, kinds, first_seed=0):
    def flagged_decoys(method, planting):
        return {part: 1.0 if role in (Role.CARRIES, Role.DECOY) else 0.0 for part, role in planting.items()}

    roles = {"L0.H0": Role.CARRIES, "L0.H1": Role.DECOY, "L1.H0": Role.INERT_EXACT}
    rows = {}
    for cell in every_cell():
        if cell.method in methods and cell.family in kinds:
            one = calibrate.Measured(roles, flagged_decoys(cell.method, roles))
            rows[cell] = calibrate.rates(calibrate.METHODS[cell.method], 0.05, [one])
    return calibrate._result(rows, 1, 1, first_seed, {}, dict.fromkeys(kinds, 2))


def test_cells_are_put_together_in_one_order_and_the_last_of_two_counts():
    late, early = measured(["mean ablation"], ["decoy"]), measured(["zero ablation", "mean ablation"], ["offset"])
    both = joined([late, early])
    labels = list(both.coordinates["cell"])
    assert labels == [cell.label for cell in every_cell() if cell.label in labels] and len(labels) == 3
    assert set(both.metadata["commits"]) == set(both.metadata["cells"]) == set(labels)
    for label in labels:
        source = late if "decoy" in label else early
        np.testing.assert_array_equal(both.select(cell=label).values, source.select(cell=label).values)
    assert both.metadata["acceptance"] == {"decoy": 1.0, "offset": 1.0} and not both.is_missing.any()
    again = measured(["mean ablation"], ["decoy"])
    again.metadata["commits"] = {label: "later" for label in again.coordinates["cell"]}
    assert joined([both, again]).metadata["commits"]["mean ablation / decoy / any item"] == "later"


def test_what_was_not_measured_is_named_and_parts_of_their_own_stand_apart():
    result = measured(["zero ablation"], ["decoy"])
    assert len(missing(result)) == len(every_cell()) - 1
    text = markdown(result)
    assert "| decoy | decoy | any item | 100 (silent) |" in text
    assert "Not measured on this many plantings yet:" in text and "- single-part transfer: transfer" in text
    assert "- zero ablation: offset, lookup" in text and "1 at `" in text


def test_calibrations_that_differ_are_not_joined():
    with pytest.raises(ConfigError, match="first_seed of a joined calibration"):
        joined([measured(["zero ablation"], ["decoy"]), measured(["zero ablation"], ["offset"], first_seed=5)])
    with pytest.raises(ConfigError, match="calibrations"):
        joined([])
    one = measured(["zero ablation"], ["decoy"])
    with pytest.raises(ConfigError, match="join"):
        joined([one.select(quantity="hit")])
