from __future__ import annotations

import json

import numpy as np
import pytest

from analyses.matrices import Matrices, singular_values
from analyses.weights import error_rates
from analyses.weights.error_rates import CHANGED, FEWER, _changed, _row

from .conftest import model


def test_the_change_is_of_one_matrix_and_its_rank():
    one = model()
    other = _changed(one)
    moved = [name for name, tensor in one.state().items() if not (tensor == other.state()[name]).all()]
    assert moved == ["blocks.0.mlp.W_in"] and CHANGED == "L0.mlp"
    values = singular_values(Matrices.of(other, folded=False).of_part(CHANGED)["W_in"])
    assert (values > 1e-9).sum() == min(one.W_in[0].shape) - FEWER


def test_a_row_has_its_wilson_interval():
    row = _row("q", "s", "x", [False] * 20)
    # by hand: z = 1.96, (z^2 / n) / (1 + z^2 / n)
    z = 1.959964
    assert (row["rate"], row["n"], row["low"]) == (0.0, 20, 0.0)
    assert row["high"] == pytest.approx(z**2 / 20 / (1 + z**2 / 20), abs=1e-4)


@pytest.mark.slow
def test_the_command_writes_every_rate(tmp_path):
    out = tmp_path / "rates.json"
    error_rates.main(["--out", str(out), "--trials", "1", "--shared", "1", "--plantings", "1"])
    rates = json.loads(out.read_text())["rates"]
    assert {row["question"] for row in rates} == {"same rule", "one part changed", "within a model"}
    assert all(np.isfinite(row["rate"]) and row["n"] == 1 for row in rates)
