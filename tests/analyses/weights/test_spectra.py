from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.matrices import Matrices, layer_parts, matrix_parts, product, singular_values
from analyses.planted.symmetries import disguised
from analyses.weights import circuit, spectrum
from analyses.weights.spectra import MEASURES, ranks
from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.convert import folding
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.procedures import get

from ..conftest import D_VOCAB, LOGIT, planted
from .conftest import CFG, model, random_state


def cell(result, part, matrix, quantity, seed=0) -> float:
    return float(result.select(part=part, matrix=matrix, quantity=quantity, seed=seed).values)


class TestRanks:
    def test_equal_singular_values_have_full_rank_by_every_measure(self):
        assert ranks(np.array([2.0, 2.0, 2.0])) == pytest.approx((3, 3, 3))

    def test_rank_one(self):
        assert ranks(np.array([5.0, 0.0, 0.0])) == pytest.approx((1, 1, 1))

    def test_by_hand(self):
        # 4 and 2: squares 16 and 4; shares 2/3 and 1/3
        stable, effective, participation = ranks(np.array([4.0, 2.0]))
        assert stable == pytest.approx(20 / 16)
        assert effective == pytest.approx(np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))))
        assert participation == pytest.approx(20**2 / (256 + 16))

    def test_zeros_have_none(self):
        assert np.isnan(ranks(np.zeros(3))).all()


class TestSpectrum:
    def test_rank_one_head(self):
        state = random_state()
        w = state["blocks.1.attn.W_V"][2]
        state["blocks.1.attn.W_V"][2] = w[:, :1] @ w[:1]
        found = spectrum([model(state)], ["L1.H2", "L1.H1"])
        assert cell(found, "L1.H2", "OV", "stable rank") == pytest.approx(1)
        assert cell(found, "L1.H2", "OV", "effective rank") == pytest.approx(1)
        assert cell(found, "L1.H2", "OV", "singular value 2") == pytest.approx(0, abs=1e-12)
        assert cell(found, "L1.H1", "OV", "stable rank") > 1.1

    def test_values_are_those_of_the_product(self):
        one = model()
        matrices = Matrices.of(one)
        for factors in matrices.of_part("L0.H1").values():
            full = np.linalg.svd(product(factors), compute_uv=False)
            assert singular_values(factors) == pytest.approx(full[: CFG.d_head])
        found = spectrum([one], ["L0.H1"], folded=False)
        qk = one.QK[0, 1].AB.detach().numpy()
        assert cell(found, "L0.H1", "QK", "norm") == pytest.approx(np.linalg.norm(qk))
        assert cell(found, "L0.H1", "QK", "singular value 1") == pytest.approx(np.linalg.norm(qk, 2))

    def test_a_disguise_changes_nothing_once_folded(self):
        state = random_state()
        other = model(disguised(state, CFG, np.random.default_rng(1)))
        both = [spectrum([m]) for m in (model(state), other)]
        assert both[0].values == pytest.approx(both[1].values, nan_ok=True)
        raw = [spectrum([m], folded=False).select(part="L0.H0", matrix="QK") for m in (model(state), other)]
        assert raw[0].values != pytest.approx(raw[1].values, nan_ok=True)
        assert "not folded" in raw[0].metadata["layernorms"] and "not" not in both[0].metadata["layernorms"]

    def test_rows_are_those_of_an_ablation_map(self):
        found = spectrum([model()])
        assert list(found.coordinates["part"]) == matrix_parts(CFG) == ["embed", "pos", "L0.H0", "L0.H1", "L0.H2",
            "L0.mlp", "L1.H0", "L1.H1", "L1.H2", "L1.mlp", "unembed"]  # fmt: skip
        assert not found.is_missing.any()
        assert layer_parts(CFG) == ["embed + pos + unembed", "L0.attn", "L0.mlp", "L1.attn", "L1.mlp", "ln"]

    def test_copying(self):
        found = spectrum([planted()], ["L0.H0"], folded=False)
        # the head writes the token it reads into its own logit: every eigenvalue is LOGIT
        assert cell(found, "L0.H0", "OV", "copying") == pytest.approx(1)
        assert cell(found, "L0.H0", "OV", "singular value 1") == pytest.approx(LOGIT)
        state = planted().state()
        state["blocks.0.attn.W_O"] *= -1
        negative = spectrum([HookedTransformer(planted().cfg, state)], ["L0.H0"], folded=False)
        assert cell(negative, "L0.H0", "OV", "copying") == pytest.approx(-1)

    def test_a_head_of_zeros_has_a_norm_and_no_rank(self):
        state = random_state()
        state["blocks.0.attn.W_O"][1] = 0.0
        found = spectrum([model(state)], ["L0.H1", "L0.H0"])
        assert cell(found, "L0.H1", "OV", "norm") == 0
        assert all(np.isnan(cell(found, "L0.H1", "OV", quantity)) for quantity in MEASURES[1:])
        assert not found.is_missing.any()

    def test_errors(self):
        with pytest.raises(PartError, match="no matrix of its own"):
            spectrum([model()], ["L0.attn"])
        with pytest.raises(PartError, match="its heads are H0 to H2"):
            spectrum([model()], ["L0.H7"])
        with pytest.raises(ConfigError, match="parts"):
            spectrum([model()], [])
        state = random_state()
        state["pos_embed.W_pos"][0, 0] = torch.nan
        with pytest.raises(ConfigError, match=r"pos_embed.W_pos of seed 1 = .*finite weights"):
            spectrum([model(), model(state)])


class TestCircuit:
    def test_the_planted_head_copies_tokens_and_looks_one_back(self):
        ov = circuit(planted(), "L0.H0.OV", folded=False)
        assert ov.values == pytest.approx(LOGIT * np.eye(D_VOCAB))
        assert ov.axes == ("source", "output")
        qk = circuit(planted(), "L0.H0.QK", basis="positions")
        assert (qk.values[1:].argmax(axis=1) == np.arange(len(qk.values) - 1)).all()
        assert circuit(planted(), "L0.H0.QK", basis="tokens").values == pytest.approx(0)

    def test_tokens_have_the_names_of_the_rule(self):
        rule = get("sort")(n_symbols=3)
        cfg = ModelConfig(n_layers=1, n_heads=1, d_model=8, n_ctx=8, d_vocab=rule.d_vocab)
        one = HookedTransformer(cfg, init_state(cfg, 0))
        found = circuit(one, "L0.H0.OV", procedure=rule)
        assert found.coordinates["source"] == found.coordinates["output"] == rule.token_names and found.unit == "logits"
        assert circuit(one, "L0.H0.QK", procedure=rule, basis="positions").coordinates["key"] == (*range(8),)
        assert circuit(one, "L0.H0.QK", procedure=get("sort")()).coordinates["key"] == (*range(rule.d_vocab),)

    def test_as_transformer_lens_has_it(self):
        one = model()
        ov = circuit(one, "L1.H2.OV", basis="residual", folded=False).values
        assert ov == pytest.approx(one.OV[1, 2].AB.detach().numpy())
        tokens = circuit(one, "L1.H2.QK", basis="tokens", folded=False).values
        expected = one.W_E @ one.QK[1, 2].AB @ one.W_E.T / np.sqrt(CFG.d_head or 1)
        assert tokens == pytest.approx(expected.detach().numpy())

    def test_the_same_in_every_disguise(self):
        state = random_state()
        for part, basis in [("L0.H1.OV", "tokens"), ("L1.H0.QK", "positions"), ("L1.H2.OV", "positions")]:
            both = [
                circuit(model(s), part, basis=basis).values
                for s in (state, disguised(state, CFG, np.random.default_rng(2)))
            ]
            assert both[0] == pytest.approx(both[1])

    def test_folded_as_folding_has_it(self):
        state = disguised(random_state(), CFG, np.random.default_rng(0))
        cfg, folded = folding.fold_ln(CFG, state)
        other = HookedTransformer(*folding.center_writing_weights(cfg, folded))
        expected = circuit(other, "L0.H0.OV", folded=False).values
        assert circuit(model(state), "L0.H0.OV").values == pytest.approx(expected)

    def test_errors(self):
        with pytest.raises(PartError, match="name its QK or OV"):
            circuit(model(), "L0.H0")
        with pytest.raises(ConfigError, match="basis"):
            circuit(model(), "L0.H0.OV", basis="words")  # type: ignore[arg-type]
