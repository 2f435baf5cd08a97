"""The map of latents by sites."""

import numpy as np
import pytest

from analyses.figures import probe_map
from mechproc.errors import ConfigError
from mechproc.result import Result

AXES = {
    "latent": ["depth", "top"],
    "site": ["L0.resid_pre", "L0.H0", "L0.H1", "L0.attn"],
    "quantity": ["accuracy", "control", "r2"],
    "seed": [0, 1],
}


def probed() -> Result:
    values = np.zeros((2, 4, 3, 2))
    values[0, :, 0] = [[0.25, 0.35], [0.9, 0.1], [0.2, 0.8], [0.95, 0.85]]
    values[:, :, 1] = 0.1
    values[1, :, 2] = np.nan
    undefined = [({"latent": "top", "quantity": "r2"}, "its values have no order")]
    meta = {"quantities": {"accuracy": "of the probe"}}
    return Result("probes", values, tuple(AXES), AXES, "fraction", "higher: more", "use", undefined, meta)


def test_heads_are_matched_by_their_maximum_and_never_averaged_by_index():
    figure = probe_map(probed(), "accuracy")
    (heat,) = figure.data
    assert figure.layout.xaxis.ticktext == ("L0.resid_pre", "L0 best head", "L0.attn")
    assert np.array(heat.z)[0] == pytest.approx([0.3, 0.85, 0.9])
    assert "seeds 0.800 to 0.900" in heat.text[0][1]
    caption = figure.layout.meta["caption"]
    assert "mean over 2 seeds" in caption and "highest in each seed" in caption and "of the probe" in caption


def test_a_baseline_is_subtracted_and_undefined_cells_are_labelled():
    assert np.array(probe_map(probed(), "accuracy", "control").data[0].z)[0] == pytest.approx([0.2, 0.75, 0.8])
    figure = probe_map(probed(), "r2")
    texts = [text for row in figure.data[0].customdata for text in row]
    assert texts.count("undefined") == 3
    assert "its values have no order" in figure.layout.meta["caption"]


def test_an_unknown_quantity():
    with pytest.raises(ConfigError, match="acuracy"):
        probe_map(probed(), "acuracy")
