from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from analyses.figures import spectra, weight_comparison
from analyses.weights import between, compare, spectrum
from mechproc.errors import ConfigError

from .conftest import model
from .test_compare import PARTS, two_rules


def test_comparison_has_a_row_for_each_part_and_a_column_for_each_pair():
    models = two_rules(3)
    distances, compared = between(models, starts="different"), compare(models, starts="different")
    figure = weight_comparison(distances, compared)
    (heat,) = figure.data
    assert np.shape(heat.z) == (5, 6)  # untrained LayerNorms and random ones have gains of 1, no spread between seeds
    assert [t.split(":")[0] for t in figure.layout.yaxis.ticktext] == PARTS[:-1]
    assert list(figure.layout.xaxis.ticktext)[:3] == ["plain", "other", "untrained"]
    row = PARTS.index("L0.mlp")
    expected = distances.select(part="L0.mlp", first="plain", second="other").values
    expected = expected / compared.select(part="L0.mlp", quantity="within a rule").values
    column = list(figure.layout.xaxis.ticktext).index("plain and other")
    assert heat.text[row][column] == f"{float(expected):.2f}"
    assert 2 ** heat.z[row][column] == pytest.approx(float(expected))
    caption = figure.layout.meta["caption"]
    assert "3 of plain, 3 of other" in caption and "Does not show" in caption
    with pytest.raises(ConfigError, match="measure of compared"):
        weight_comparison(distances, compare(models, "norm", starts="different"))


def test_spectra_draw_every_part_of_every_seed():
    found = spectrum({3: model(), 5: model(seed=1)})
    figure = spectra(found, ["QK", "W_in"])
    assert len(figure.data) == 2 * (6 + 2)
    assert {trace.name for trace in figure.data} == {"layer 0", "layer 1"}
    line = next(t for t in figure.data if t.text[0] == "L1.mlp W_in, seed 5")
    values = found.select(part="L1.mlp", matrix="W_in", seed=5).values
    shown = [v for q, v in zip(found.coordinates["quantity"], values, strict=True) if str(q).startswith("singular")]
    assert np.array(line.y)[:8] == pytest.approx(np.array(shown)[:8])
    assert "2 seeds" in figure.layout.meta["caption"] and "folded" in figure.layout.meta["caption"]
    with pytest.raises(ConfigError, match="matrices"):
        spectra(found, ["W_X"])
    alone = dataclasses.replace(found, metadata={})
    assert len(spectra(alone).data) > 16
