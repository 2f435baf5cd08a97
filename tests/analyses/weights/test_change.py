from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.weights import change
from analyses.weights.change import QUANTITIES, change_parts
from mechproc.errors import ConfigError, PartError
from mechproc.model.parts import select

from .conftest import CFG, model, random_state


def cells(result, part) -> dict[str, float]:
    return dict(zip(QUANTITIES, result.select(part=part, seed=0).values.tolist(), strict=True))


def test_nothing_changed():
    found = cells(change([model()], [model()], ["L0.H1"]), "L0.H1")
    assert found["change"] == found["relative change"] == 0
    assert found["cosine"] == pytest.approx(1)
    assert np.isnan(found["effective rank of the change"])


def test_doubling_keeps_the_direction():
    state = random_state()
    after = {name: 2 * tensor for name, tensor in state.items()}
    found = cells(change([model(after)], [model(state)], ["L1.mlp"]), "L1.mlp")
    assert found["relative change"] == pytest.approx(1) and found["cosine"] == pytest.approx(1)
    assert found["norm after"] == pytest.approx(2 * found["norm before"])
    assert found["effective rank of the change"] == pytest.approx(found["effective rank before"])


def test_a_change_of_rank_one_in_one_head():
    before, after = random_state(), random_state()
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=CFG.d_model), rng.normal(size=CFG.d_head or 1)
    after["blocks.0.attn.W_V"][1] += torch.from_numpy(0.3 * np.outer(u, v))
    result = change([model(after)], [model(before)])
    for part in result.coordinates["part"]:
        found = cells(result, part)
        if part in ("L0.H1", "L0.H1.OV"):
            assert found["change"] == pytest.approx(0.3 * np.linalg.norm(u) * np.linalg.norm(v))
            assert found["effective rank of the change"] == pytest.approx(1, abs=1e-6)
        else:
            assert found["change"] == 0, part
    assert list(result.coordinates["part"]) == change_parts(CFG)
    assert not result.is_missing.any()


def test_norms_are_those_of_the_parts_numbers():
    state = random_state()
    numbers = [t.flatten().numpy() for t in select("L0.mlp", CFG).read(state).values()]
    found = cells(change([model(state)], [model(state)], ["L0.mlp"]), "L0.mlp")
    assert found["norm before"] == pytest.approx(np.linalg.norm(np.concatenate(numbers)))


def test_key_biases_are_left_out():
    before, after = random_state(), random_state()
    after["blocks.0.attn.b_K"] += 5.0
    assert cells(change([model(after)], [model(before)], ["L0.H0"]), "L0.H0")["change"] == 0
    after["blocks.0.attn.b_Q"] += 5.0
    assert cells(change([model(after)], [model(before)], ["L0.H0"]), "L0.H0")["change"] > 5


def test_parts_of_any_size():
    found = change([model(seed=1)], [model(seed=0)], ["all", "attn - L0.H2", "L1.mlp.N3", "L0.ln1"])
    assert cells(found, "L1.mlp.N3")["effective rank of the change"] <= 2
    assert np.isnan(cells(found, "L0.ln1")["effective rank of the change"])
    assert not found.is_missing.any()


def test_errors():
    with pytest.raises(ConfigError, match="starts"):
        change({0: model(), 1: model()}, {0: model()})
    with pytest.raises(ConfigError, match="n_ctx of the starts = 8 is not allowed"):
        change([model()], [model(cfg=CFG.replace(n_ctx=8))])
    with pytest.raises(PartError, match="not a part"):
        change([model()], [model()], ["L0.head"])
    state = random_state()
    state["blocks.0.mlp.W_in"][0, 0] = float("nan")
    sound, broken = [model(), model()], [model(), model(state)]
    for models, starts in ((broken, sound), (sound, broken)):
        with pytest.raises(ConfigError, match=r"W_in of seed 1 = .*finite weights"):
            change(models, starts)
