from __future__ import annotations

import numpy as np
import pytest
import torch
from transformer_lens import FactoredMatrix
from transformer_lens.utilities.matrix import composition_scores

from analyses.matrices import Matrices
from analyses.planted.symmetries import disguised
from analyses.weights import angles, composition
from analyses.weights.composition import after
from mechproc.errors import ConfigError

from .conftest import CFG, model, random_state


def cell(result, writer, reader, name, quantity) -> float:
    return float(result.select(writer=writer, reader=reader, input=name, quantity=quantity, seed=0).values)


def aligned_state():
    """L1.H0 reads with its queries what L0.H0 writes, and nothing of it with its keys; both in orthonormal axes."""
    state = random_state()
    basis = torch.eye(CFG.d_model, dtype=torch.float64)
    state["blocks.0.attn.W_V"][0] = basis[:, 6:9]
    state["blocks.0.attn.W_O"][0] = basis[:3]
    state["blocks.1.attn.W_Q"][0] = basis[:, :3]
    state["blocks.1.attn.W_K"][0] = basis[:, 3:6]
    return state


@pytest.mark.parametrize("name", ["Q", "K", "V"])
def test_as_transformer_lens_has_it(name):
    one = model()
    found = composition([one], folded=False)
    right = {"Q": one.QK, "K": one.QK.T, "V": one.OV}[name]
    assert isinstance(right, FactoredMatrix)
    expected = composition_scores(one.OV[0], right[1]).detach().numpy()
    ours = [[cell(found, f"L0.H{a}", f"L1.H{b}", name, "score") for b in range(3)] for a in range(3)]
    assert ours == pytest.approx(expected)


def test_all_and_nothing():
    found = composition([model(aligned_state())], folded=False)
    # |A B| of two projections onto the same three axes is sqrt(3); divided by sqrt(3) sqrt(3)
    assert cell(found, "L0.H0", "L1.H0", "Q", "score") == pytest.approx(3**-0.5)
    assert cell(found, "L0.H0", "L1.H0", "Q", "percentile") == 1
    assert cell(found, "L0.H0", "L1.H0", "K", "score") == pytest.approx(0)
    assert cell(found, "L0.H0", "L1.H0", "K", "percentile") == 0


def test_the_baseline_is_that_of_random_rotations():
    found = composition([model()], n_random=500)
    scores = found.select(quantity="percentile", seed=0).values
    assert np.nanmean(scores) == pytest.approx(0.5, abs=0.06)  # random models
    assert cell(found, "L0.H0", "L1.H1", "V", "baseline") == pytest.approx((CFG.d_model - 1) ** -0.5)
    squares = np.nanmean(found.select(quantity="score", seed=0).values ** 2)
    assert squares == pytest.approx(1 / (CFG.d_model - 1), rel=0.05)


def test_a_disguise_changes_nothing():
    state = random_state()
    both = [composition([model(s)], n_random=20) for s in (state, disguised(state, CFG, np.random.default_rng(4)))]
    score = [each.select(quantity="score").values for each in both]
    assert score[0] == pytest.approx(score[1], nan_ok=True)


def test_only_later_parts_read():
    found = composition([model()], n_random=1)
    assert not found.is_missing.any()
    defined = {(w, r) for w in found.coordinates["writer"] for r in found.coordinates["reader"]
               if np.isfinite(found.select(writer=w, reader=r).values).any()}  # fmt: skip
    assert ("L0.H0", "L0.mlp") in defined and ("L0.mlp", "L1.H2") in defined and ("L1.mlp", "unembed") in defined
    assert not defined & {("L0.mlp", "L0.H0"), ("L1.H0", "L1.H1"), ("L1.mlp", "L0.mlp"), ("L1.H0", "L0.mlp")}
    assert after("embed", "L0.H0", Matrices.of(model()))


def test_a_part_of_zeros_has_no_score():
    state = random_state()
    state["blocks.0.mlp.W_out"][:] = 0.0
    found = composition([model(state)], n_random=1)
    assert np.isnan(cell(found, "L0.mlp", "L1.H0", "Q", "score")) and not found.is_missing.any()


class TestAngles:
    def test_all_and_nothing(self):
        found = angles([model(aligned_state())], folded=False)
        assert cell(found, "L0.H0", "L1.H0", "Q", "overlap") == pytest.approx(1)
        assert cell(found, "L0.H0", "L1.H0", "Q", "smallest angle") == pytest.approx(0, abs=1e-5)
        assert cell(found, "L0.H0", "L1.H0", "K", "overlap") == pytest.approx(0, abs=1e-12)
        assert cell(found, "L0.H0", "L1.H0", "K", "smallest angle") == pytest.approx(90)

    def test_a_known_angle(self):
        state = aligned_state()
        turned = torch.eye(CFG.d_model, dtype=torch.float64)
        c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
        for i in range(3):  # each axis that is read is turned by 30 degrees out of what is written
            turned[i, i], turned[9 + i, i] = c, s
        state["blocks.1.attn.W_Q"][0] = turned[:, :3]
        found = angles([model(state)], folded=False)
        assert cell(found, "L0.H0", "L1.H0", "Q", "smallest angle") == pytest.approx(30)
        assert cell(found, "L0.H0", "L1.H0", "Q", "overlap") == pytest.approx(c**2)

    def test_baseline(self):
        found = angles({seed: model(seed=seed) for seed in range(4)})
        heads = found.select(writer=["L0.H0", "L0.H1", "L0.H2"], reader=["L1.H0", "L1.H1", "L1.H2"])
        overlap, baseline = (heads.select(quantity=q).values for q in ("overlap", "baseline"))
        assert np.nanmean(overlap) == pytest.approx(np.nanmean(baseline), abs=0.03)  # random models
        assert np.nanmean(baseline) == pytest.approx(CFG.d_head / (CFG.d_model - 1))

    def test_what_spans_the_residual_stream_is_undefined(self):
        cfg = CFG.replace(d_vocab=40)
        found = angles([model(cfg=cfg)])
        assert np.isnan(found.select(writer="embed").values).all() and not found.is_missing.any()


def test_errors():
    with pytest.raises(ConfigError, match="n_random"):
        composition([model()], n_random=0)
