from __future__ import annotations

import numpy as np
import pytest

from analyses.planted.symmetries import disguised
from analyses.weights import cka
from analyses.weights.activations import linear_cka
from mechproc.errors import ConfigError
from mechproc.procedures import get

from .conftest import CFG, model, random_state
from .test_matching import TestBarrier

ITEMS = TestBarrier.ITEMS


def test_as_from_kernels():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 6))
    x, y = x - x.mean(0), y - y.mean(0)
    k, m = x @ x.T, y @ y.T  # the kernels of linear HSIC (Kornblith et al. 2019, equation 4), already centred
    assert linear_cka(x, y) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_one_for_what_is_turned_and_scaled_and_zero_for_what_is_unrelated():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 5))
    x -= x.mean(0)
    q, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert linear_cka(x, 3 * x @ q) == pytest.approx(1)
    y = rng.normal(size=(2000, 5))
    assert linear_cka(x, y - y.mean(0)) < 0.02
    assert linear_cka(x, np.zeros_like(x)) == 0


def test_models_in_disguise_are_alike_where_the_residual_stream_is_turned():
    state = random_state()
    other = disguised(state, CFG, np.random.default_rng(0))
    found = cka(model(state), model(other), ITEMS.items(30), ["L0.H1", "L0.mlp", "embed"])
    assert found.values[1:] == pytest.approx(1)
    found = cka(model(seed=0), model(seed=1), ITEMS.items(30))
    assert list(found.coordinates["part"]) == ["embed + pos + unembed", "L0.attn", "L0.mlp", "L1.attn", "L1.mlp"]
    assert (found.values < 0.999).all() and (found.values > 0).all()


def test_errors():
    with pytest.raises(ConfigError, match="positions"):
        cka(model(), model(seed=1), get("identity").from_dict({"kind": "identity"}).items(3))
    with pytest.raises(ConfigError, match="differ"):
        cka(model(), model(cfg=CFG.replace(d_vocab=12)), ITEMS.items(3))
    state = random_state()
    state["blocks.1.mlp.W_in"][0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"activations of L1.mlp of seed 1"):
        cka(model(), model(state), ITEMS.items(3))
