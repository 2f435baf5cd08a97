from __future__ import annotations

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.result import Result
from mechproc.statistics.intervals import over_seeds, same_in_every_seed
from mechproc.statistics.paired import interval

SEEDS = list(range(8))
VALUES = np.random.default_rng(0).normal(size=(3, 8))


def effects(values=VALUES, parts=("embed", "L0.mlp", "all"), **changes) -> Result:
    n_seeds = np.asarray(values).shape[1]
    settings = {
        "name": "accuracy lost",
        "values": values,
        "axes": ("part", "seed"),
        "coordinates": {"part": list(parts), "seed": SEEDS[:n_seeds]},
        "unit": "fraction",
        "direction": "positive: it hurts",
        "what_it_does_not_show": "why",
        "provenance": [({"seed": s}, {"device": "cpu"}) for s in SEEDS[:n_seeds]],
    }
    return Result(**(settings | changes))


def test_mean_and_interval_of_every_row():
    over = over_seeds(effects())
    assert over.axes == ("part", "estimate") and over.coordinates["estimate"] == ("mean", "low", "high")
    for part, values in zip(over.coordinates["part"], VALUES, strict=True):
        found = interval(values)
        np.testing.assert_allclose(over.select(part=part).values, [values.mean(), found.low, found.high])
    assert over.metadata["interval"] == {"level": 0.95, "method": "sign_flip", "n_seeds": 8}
    assert over.provenance == (({}, {"device": "cpu"}),)
    student = over_seeds(effects(), level=0.9, method="t")
    assert student.select(part="all", estimate="high").values == pytest.approx(interval(VALUES[2], 0.9, "t").high)


def test_the_order_of_the_axes_does_not_matter():
    axes = {"seed": SEEDS, "part": ["embed", "L0.mlp", "all"]}
    turned = effects(VALUES.T, axes=tuple(axes), coordinates=axes, provenance=())
    np.testing.assert_array_equal(over_seeds(turned).values, over_seeds(effects()).values)


@pytest.mark.parametrize(
    ("label", "comparable"),
    [("L0.H2", False), ("L0.H2.QK", False), ("L1.mlp.N17", False), ("attn - L0.H2", False), ("L0.attn", True),
     ("L1.mlp", True), ("ln_final", True), ("L0.ln1", True), ("attn+mlp", True), (3, True)],
)  # fmt: skip
def test_which_parts_are_the_same_in_every_seed(label, comparable):
    assert same_in_every_seed(label) is comparable


def test_heads_and_neurons_by_index_have_no_mean_over_seeds():
    """Two models, equal but for the order of their neurons: the mean by index halves the effect of the best one."""
    values = np.array([[0.04, 0.0], [0.0, 0.04], [0.04, 0.04]])
    neurons = effects(values, ("L0.mlp.N0", "L0.mlp.N1", "L0.mlp"))
    over = over_seeds(neurons)
    assert over.is_undefined[:2].all()
    assert over.select(part="L0.mlp", estimate="mean").values == pytest.approx(0.04)
    assert over_seeds(neurons, matched=True).select(part="L0.mlp.N0", estimate="mean").values == pytest.approx(0.02)
    heads = Result("a", np.ones((2, 2)), ("head", "seed"), {"head": [0, 1], "seed": [0, 1]}, "fraction", "d", "w")
    assert over_seeds(heads).is_undefined.all()


def test_too_few_seeds_have_a_mean_and_no_interval():
    over = over_seeds(effects(VALUES[:, :3]))
    assert np.isfinite(over.select(estimate="mean").values).all()
    assert over.select(estimate=["low", "high"]).is_undefined.all()
    assert "needed" in over.undefined[0][1]
    one = over_seeds(effects(VALUES[:, :1]), method="t")
    assert one.select(estimate="low").is_undefined.all() and one.select(estimate="mean").values.tolist() == (
        VALUES[:, 0].tolist()
    )


def test_missing_and_undefined_cells_stay_what_they_are():
    values = VALUES.copy()
    values[0, 2] = np.nan
    values[1] = np.nan
    over = over_seeds(effects(values, undefined=[({"part": "L0.mlp"}, "no reason at all")]))
    assert over.select(part="embed").is_missing.all()
    assert over.select(part="L0.mlp").is_undefined.all() and over.undefined[0][1] == "no reason at all"


def test_an_axis_that_is_not_there():
    with pytest.raises(ConfigError, match="axis = 'sead'"):
        over_seeds(effects(), "sead")
