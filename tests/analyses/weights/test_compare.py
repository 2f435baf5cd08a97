from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.matrices import Matrices, layer_parts
from analyses.planted.symmetries import disguised
from analyses.weights import between, compare, run
from analyses.weights.compare import QUANTITIES
from analyses.weights.features import FEATURES, distance
from mechproc.errors import ConfigError
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import State
from mechproc.procedures import get
from mechproc.statistics.paired import holm

from .conftest import CFG, exchanged_heads, model, random_state

PARTS = layer_parts(CFG)


def flat_mlp(seed: int) -> State:
    """A random model whose first MLP reads two directions alone."""
    state = random_state(seed)
    u, s, vt = torch.linalg.svd(state["blocks.0.mlp.W_in"], full_matrices=False)
    state["blocks.0.mlp.W_in"] = u[:, :2] @ torch.diag(s[:2]) @ vt[:2]
    return state


def two_rules(n: int = 8, make=flat_mlp) -> dict:
    return {"plain": {s: model(seed=s) for s in range(n)}, "other": {s: model(make(100 + s)) for s in range(n)}}


def cells(result, part) -> dict[str, float]:
    return dict(zip(QUANTITIES, result.select(part=part).values.tolist(), strict=True))


class TestFeatures:
    @pytest.mark.parametrize("measure", FEATURES)
    def test_a_disguise_is_no_distance(self, measure):
        state = random_state()
        hidden = exchanged_heads(disguised(state, CFG, np.random.default_rng(0)), CFG, [[2, 0, 1], [1, 2, 0]])
        one, other, third = (Matrices.of(m) for m in (model(state), model(hidden), model(seed=1)))
        for part in PARTS[:-1]:
            mine, hidden_units, else_ = (FEATURES[measure](m, part) for m in (one, other, third))
            assert mine is not None and hidden_units is not None and else_ is not None
            assert distance(mine, hidden_units) < 1e-9
            assert distance(mine, else_) > 0.01

    def test_scale_is_in_the_norm_alone(self):
        state = random_state()
        loud = dict(state)
        loud["blocks.1.attn.W_O"] = 3 * state["blocks.1.attn.W_O"]
        one, other = Matrices.of(model(state)), Matrices.of(model(loud))
        found = {}
        for name in ("spectrum", "norm"):
            pair = [FEATURES[name](m, "L1.attn") for m in (one, other)]
            assert pair[0] is not None and pair[1] is not None
            found[name] = distance(pair[0], pair[1])
        # of the two log norms of each head one differs by log 3
        assert found == {"spectrum": pytest.approx(0, abs=1e-9), "norm": pytest.approx(np.log(3) / np.sqrt(2))}


class TestCompare:
    def test_rules_that_differ_in_one_part(self):
        found = compare(two_rules(), starts="different")
        words = found.metadata["words"]
        assert words.pop("L0.mlp") == "different"
        assert set(words.values()) == {"undecided"}
        row = cells(found, "L0.mlp")
        assert row["called different"] == 1 and row["adjusted p"] <= 0.05
        assert row["excess"] == pytest.approx(row["between rules"] - row["within a rule"])
        assert row["own rule nearest"] == 1
        p, adjusted = (found.select(quantity=q).values for q in ("p", "adjusted p"))
        assert adjusted == pytest.approx(holm(p)) and (adjusted[p < 1] > p[p < 1]).any()
        assert cells(found, "L1.mlp")["called different"] == 0
        (sentence,) = [s for s in found.metadata["sentences"] if "L0.mlp" in s]
        assert sentence.startswith("The rules leave different structure at L0.mlp")

    def test_too_few_seeds_get_no_word(self):
        found = compare(two_rules(7), starts="different")
        assert found.metadata["words"]["L0.mlp"] == "too few seeds (7 of 8)"
        assert np.isnan(found.select(quantity="called different").values).all()
        assert cells(found, "L0.mlp")["p"] < 0.01 and not found.is_missing.any()

    def test_models_of_one_seed_share_a_start_unless_said_otherwise(self):
        shared, different = (compare(two_rules(4), starts=s) for s in ("shared", "different"))
        assert shared.metadata["permutations"]["n"] == 2**4
        assert different.metadata["permutations"]["n"] == 70
        assert np.isnan(different.select(quantity="same start").values).all()
        assert np.isfinite(shared.select(quantity="same start").values).all()

    def test_pairs_that_share_a_start_stand_by_themselves(self):
        models = {"a": [model(seed=s) for s in range(4)], "b": [model(seed=s) for s in range(4)]}
        found = compare(models, "norm")
        for part in PARTS[:-1]:
            row = cells(found, part)
            assert row["same start"] == 0
            assert row["between rules"] == pytest.approx(row["within a rule"])
            assert row["p"] == 1

    def test_starts_are_seen_in_the_weights(self):
        models = two_rules(4)
        starts = {
            "plain": {s: model(seed=50 + s) for s in range(4)},
            "other": {s: model(seed=49 + s) for s in range(4)},
        }
        found = compare(models, starts=starts)  # three of the four are shared, with other seeds
        assert found.metadata["permutations"]["n"] == 2**3 * 2
        assert found.metadata["starts"] == "seen in the weights at step 0"
        starts["plain"][1] = starts["plain"][0]
        with pytest.raises(ConfigError, match="two of them share a start"):
            compare(models, starts=starts)

    def test_a_difference_of_shape_is_no_difference_of_rules(self):
        other = CFG.replace(d_vocab=30)
        models = {"plain": two_rules()["plain"], "wide": [model(seed=100 + s, cfg=other) for s in range(8)]}
        found = compare(models, starts="different")
        assert found.metadata["words"][PARTS[0]] == "different before training"
        assert np.isnan(cells(found, PARTS[0])["called different"])
        assert cells(found, PARTS[0])["untrained p"] <= 0.05

    def test_matched_weights(self):
        state = random_state()
        hidden = [disguised(state, CFG, np.random.default_rng(s)) for s in range(3)]
        changed = dict(state)
        changed["blocks.1.mlp.W_in"] = random_state(9)["blocks.1.mlp.W_in"]
        others = [disguised(changed, CFG, np.random.default_rng(10 + s)) for s in range(3)]
        found = compare({"a": [*map(model, hidden)], "b": [*map(model, others)]}, "matched", starts="different")
        assert cells(found, "L1.mlp")["between rules"] > 0.1
        for part in PARTS[:-1]:
            row = cells(found, part)
            assert row["within a rule"] < 1e-9
            assert part == "L1.mlp" or row["between rules"] < 0.02
        assert np.isnan(cells(found, "ln")["excess"]) and not found.is_missing.any()

    def test_activations(self):
        rule = get("identity").from_dict(
            {"kind": "identity", "n_symbols": 7, "lengths": {"kind": "fixed", "length": 3}}
        )
        found = compare(two_rules(3), "activations", items=rule.items(20))
        assert np.isnan(cells(found, "ln")["p"]) and np.isfinite(cells(found, "L1.attn")["between rules"])
        assert found.metadata["n_items"] == 20

    def test_distances_between_rules(self):
        found = between(two_rules(3), starts="different")
        assert list(found.coordinates["first"]) == ["plain", "other", "untrained"]
        assert found.values == pytest.approx(found.values.transpose(0, 2, 1))
        table = compare(two_rules(3), starts="different")
        cell = found.select(part="L0.mlp", first="plain", second="other").values
        assert cell == pytest.approx(cells(table, "L0.mlp")["between rules"])

    @pytest.mark.parametrize(
        "models, settings, message",
        [
            ({"a": [0]}, {}, "at least two rules"),
            ({"a": "M", "untrained": "M"}, {}, "names of rules"),
            ({"a": "M", "b": "m"}, {}, "at least two seeds"),
            ({"a": "M", "b": "M"}, {"measure": "size"}, "measure"),
            ({"a": "M", "b": "M"}, {"measure": "activations"}, "items"),
            ({"a": "M", "b": "M"}, {"alpha": 0.0}, "alpha"),
            ({"a": "M", "b": "M"}, {"starts": "none"}, "starts"),
            ({"a": "M", "b": "M"}, {"starts": {"a": "M"}}, "starts"),
        ],
    )
    def test_bad_input_is_named(self, models, settings, message):
        made = {"M": [model(), model(seed=1)], "m": [model()]}
        models = {rule: made.get(group, group) if isinstance(group, str) else group for rule, group in models.items()}
        with pytest.raises(ConfigError, match=message):
            compare(models, **settings)

    def test_widths_must_agree(self):
        narrow = CFG.replace(d_mlp=5)
        with pytest.raises(ConfigError, match="d_mlp of b"):
            compare({"a": [model(), model(seed=1)], "b": [model(cfg=narrow), model(cfg=narrow, seed=1)]})

    def test_models_without_layernorms_have_five_rows(self):
        cfg = CFG.replace(normalization_type=None)
        groups = {
            r: [HookedTransformer(cfg, random_state(10 * i + s, cfg)) for s in range(2)] for i, r in enumerate("ab")
        }
        assert list(compare(groups, starts="different").coordinates["part"]) == PARTS[:-1]


class TestRun:
    def test_each_analysis_by_name(self):
        models = [model(), model(seed=1)]
        names = {what: run(models, what=what).name for what in ("spectrum", "composition", "angles")}
        assert names == {"spectrum": "spectrum", "composition": "composition", "angles": "principal angles"}
        assert run(models, ["L0.mlp"], "change", starts=models).name == "change against the start"
        assert run(models[0]).name == "spectrum"
        assert "differences" in run({"a": models, "b": models}).name

    def test_errors(self):
        with pytest.raises(ConfigError, match="what"):
            run([model()], what="compare")
        with pytest.raises(ConfigError, match="starts"):
            run([model()], what="change")
        with pytest.raises(ConfigError, match="parts"):
            run([model()], ["L0.H0"], "angles")
