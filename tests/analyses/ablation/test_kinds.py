"""LayerNorms and embeddings as parts, and the rows that words stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from analyses import ablation
from analyses.ablation.kinds import OF_THE_KIND, rows_of, sites_under
from analyses.interventions import stand_ins
from analyses.interventions.items import inputs, layouts, own_items
from analyses.planted.family import families
from analyses.planted.planting import plant
from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.lengths import Fixed

from ..conftest import alternating, planted
from ..interventions.grid import TASK, items, model

ONE_LENGTH = TASK.replace(lengths=Fixed(3))
NORMS = ["L0.ln1", "L0.ln2", "L1.ln1", "L1.ln2", "ln_final"]


def loss(logits, block) -> float:
    scored = torch.from_numpy(block.scored[:, : logits.shape[1]])
    targets = torch.from_numpy(block.targets[:, : logits.shape[1]])
    return float(F.cross_entropy(logits[scored].double(), targets[scored]))


def gained(ours, edits, block) -> float:
    """What the loss gains when weights are replaced, by the training forward: no hooks and no stand-ins."""
    cfg, state = ModelConfig.from_dict(ours.cfg.to_dict()), ours.state()
    tokens = torch.from_numpy(block.tokens)
    return loss(forward({**state, **edits}, cfg, tokens), block) - loss(forward(state, cfg, tokens), block)


class TestIdentityAffine:
    @pytest.mark.parametrize(
        ("part", "names"),
        [
            ("L0.ln1", ["blocks.0.ln1"]),
            ("ln_final", ["ln_final"]),
            ("L1.ln1 + L1.ln2", ["blocks.1.ln1", "blocks.1.ln2"]),
        ],
    )
    def test_it_is_a_weight_of_1_and_a_bias_of_0(self, part, names):
        ours, block = model("usual"), TASK.items(30)
        edits = {f"{name}.{leaf}": torch.full((8,), float(leaf == "w")).double() for name in names for leaf in "wb"}
        lost = ablation.run([ours], block, [part], "identity_affine", "loss")
        assert abs(lost.values[0, 0]) > 1e-3
        assert lost.values[0, 0] == pytest.approx(gained(ours, edits, block), abs=1e-10)

    def test_nothing_is_lost_where_they_are_so_already(self):
        ours = HookedTransformer(ModelConfig.from_dict(model("usual").cfg.to_dict()), seed=1)
        lost = ablation.run([ours], TASK, None, "identity_affine", "loss", n_items=20)
        assert lost.coordinates["part"] == (*NORMS,) and (lost.values == 0).all()

    def test_positions_are_refused(self):
        with pytest.raises(ConfigError, match="None for identity_affine"):
            ablation.run([model("usual")], TASK, None, "identity_affine", positions=[1], n_items=20)


class TestFrozenScale:
    def expected(self, ours, parts, block, reference) -> float:
        """By hooks on the hooked model, the mean taken by hand over the one layout of these items."""
        hooks = [f"blocks.{p[1]}.{p[3:]}.hook_scale" if p[0] == "L" else f"{p}.hook_scale" for p in parts]
        x, theirs = inputs(block, ours.cfg), inputs(reference, ours.cfg)
        with torch.inference_mode():
            _, cache = ours.run_with_cache(theirs)
            means = {hook: cache[hook].mean(0, keepdim=True) for hook in hooks}
            replace = [(hook, lambda scale, hook: means[hook.name].expand_as(scale)) for hook in hooks]
            return loss(ours.run_with_hooks(x, fwd_hooks=replace), block) - loss(ours(x), block)

    @pytest.mark.parametrize("parts", [["L1.ln1"], ["L0.ln2"], ["ln_final"], NORMS])
    def test_it_divides_by_the_mean_of_the_layout(self, parts):
        ours, block, reference = model("usual"), ONE_LENGTH.items(30), ONE_LENGTH.items(50, split="validation")
        assert len(set(layouts(block))) == 1
        name = " + ".join(parts)
        lost = ablation.run([ours], block, [name], "frozen_scale", "loss", reference=reference)
        assert abs(lost.values[0, 0]) > 1e-4
        assert lost.values[0, 0] == pytest.approx(self.expected(ours, parts, block, reference), abs=1e-10)

    def test_layouts_have_means_of_their_own(self, monkeypatch):
        monkeypatch.setattr(stand_ins, "REFERENCE_ITEMS", 200)
        lost = ablation.run([model("usual")], TASK, None, "frozen_scale", "loss", n_items=40)
        assert lost.coordinates["part"] == (*NORMS,) and lost.metadata["n_reference_items"] == 200
        block = TASK.items(40)
        alone = block.take(np.flatnonzero([layout == layouts(block)[0] for layout in layouts(block)]))
        reference = TASK.items(200, split="validation")
        same = reference.take(np.flatnonzero([layout == layouts(block)[0] for layout in layouts(reference)]))
        of_one = [
            ablation.run([model("usual")], alone, None, "frozen_scale", "loss", reference=given).values
            for given in (reference, same)
        ]
        np.testing.assert_allclose(of_one[0], of_one[1], atol=1e-12)

    def test_positions(self):
        block, reference = ONE_LENGTH.items(30), ONE_LENGTH.items(50, split="validation")
        scored = np.flatnonzero(block.scored.any(0))
        other = [p for p in range(scored.min()) if p not in scored][:2]
        at = {
            places: ablation.run(
                [model("usual")], block, ["ln_final"], "frozen_scale", "loss", reference=reference, positions=chosen
            ).values[0, 0]
            for places, chosen in {"all": None, "scored": scored, "other": other}.items()
        }
        assert at["scored"] == pytest.approx(at["all"], abs=1e-12) and at["other"] == pytest.approx(0.0, abs=1e-12)

    def test_a_planted_model_with_codes_of_one_norm_loses_nothing(self):
        planting = plant(families()["offset"](n_items=64, distractors="ones"), 0)
        reference = planting.procedure.items(256, seed=0, split="validation")
        lost = ablation.run([planting.model], planting.items, None, "frozen_scale", "loss", reference=reference)
        assert np.abs(lost.values).max() < 0.05

    def test_a_reference_is_needed(self):
        with pytest.raises(ConfigError, match="reference is missing"):
            ablation.run([model("usual")], TASK.items(20), ["ln"], "frozen_scale")


class TestMeanRow:
    def test_it_is_the_mean_of_the_rows_in_use(self):
        ours, block, reference = model("usual"), TASK.items(30), TASK.items(20, split="validation")
        last = [int(np.flatnonzero(row).max()) for row in reference.scored]
        tokens = sorted({int(t) for row, end in zip(reference.tokens, last, strict=True) for t in row[: end + 1]})
        w_e, w_pos = ours.state()["embed.W_E"], ours.state()["pos_embed.W_pos"]
        assert len(tokens) < len(w_e)
        edits = {
            "embed": {"embed.W_E": w_e[tokens].mean(0).expand_as(w_e)},
            "pos": {"pos_embed.W_pos": w_pos[: max(last) + 1].mean(0).expand_as(w_pos)},
        }
        lost = ablation.run([ours], block, None, "mean_row", "loss", reference=reference)
        assert lost.coordinates["part"] == ("embed", "pos")
        for row, part in enumerate(("embed", "pos")):
            assert abs(lost.values[row, 0]) > 1e-3
            assert lost.values[row, 0] == pytest.approx(gained(ours, edits[part], block), abs=1e-10)
        assert lost.metadata["n_tokens_in_use"] == len(tokens)
        assert lost.metadata["n_positions_in_use"] == max(last) + 1

    def test_items_of_ones_own_are_their_own_reference(self):
        lost = ablation.run([planted()], alternating((1, 2, 4), (3, 2, 4)), ["embed"], "mean_row", "loss")
        assert lost.metadata["n_tokens_in_use"] == 3 and lost.metadata["n_positions_in_use"] == 3
        assert lost.values[0, 0] > 0

    def test_a_reference_that_the_model_cannot_read(self):
        with pytest.raises(ConfigError, match="reference = 'tokens 1 to 999'"):
            ablation.run([model("usual")], TASK, None, "mean_row", reference=own_items([[1, 999]]), n_items=20)

    def test_a_model_that_reads_vectors_has_positions_alone(self):
        lost = ablation.run([model("vectors")], items("vectors"), None, "mean_row", "loss")
        assert lost.coordinates["part"] == ("pos",) and abs(lost.values[0, 0]) > 1e-4
        with pytest.raises(PartError, match="mean_row at 'embed' is undefined: the model reads vectors"):
            ablation.run([model("vectors")], items("vectors"), ["embed"], "mean_row")


class TestWhereDefined:
    cfg = ModelConfig.from_dict(model("usual").cfg.to_dict())

    @pytest.mark.parametrize(
        ("part", "kind", "reason"),
        [
            ("L0.H1", "identity_affine", "identity_affine at 'L0.H1' is undefined: only LayerNorms"),
            ("L0", "frozen_scale", "frozen_scale at 'L0.attn' is undefined: only LayerNorms"),
            ("L0.ln1", "mean_row", "mean_row at 'L0.ln1' is undefined: only 'embed' and 'pos'"),
            ("L0.ln1", "zero", "would ablate everything"),
            ("ln_final", "counterfactual", "resample at 'ln_final' is undefined"),
        ],
    )
    def test_the_reason_is_given(self, part, kind, reason):
        with pytest.raises(PartError, match=reason):
            sites_under(part, self.cfg, kind)

    def test_models_without_weights_in_their_layernorms(self):
        for kind in ("LNPre", "no LayerNorm"):
            with pytest.raises(PartError, match="no LayerNorms with weights"):
                ablation.run([model(kind)], TASK, None, "identity_affine", n_items=20)

    def test_compare_has_the_layernorms_as_rows(self):
        kinds = ("zero", "identity_affine", "mean_row")
        found = ablation.compare([model("usual")], TASK, ablations=kinds, metric="loss", n_items=20)
        norms = found.select(part=NORMS)
        assert np.isfinite(norms.select(ablation="identity_affine").values).all()
        assert norms.select(ablation="zero").is_undefined.all()
        assert np.isfinite(found.select(ablation="mean_row", part=["embed", "pos"]).values).all()
        assert found.select(ablation="mean_row", part="L0.H1").is_undefined.all()

    def test_words_stand_for_rows(self):
        together = ["L0.attn", "L0.mlp", "L0.attn + L0.mlp", "L1.attn", "L1.mlp", "L1.attn + L1.mlp"]
        assert rows_of(["layers", "L0.H0"], self.cfg, "mean") == [*together, "L0.H0"]
        assert rows_of(["layernorms"], self.cfg, "frozen_scale") == NORMS
        assert rows_of(["embeddings"], self.cfg, "zero") == ["embed", "pos"]
        without = ModelConfig.from_dict(model("attention only").cfg.to_dict())
        assert rows_of(["layers"], without, "mean") == ["L0.attn", "L1.attn"]
        assert rows_of(None, without, "mean") == rows_of(["components"], without, "mean")
        with pytest.raises(ConfigError, match="each once"):
            rows_of(["layers", "L0.mlp"], self.cfg, "mean")
        lost = ablation.run([model("usual")], TASK, ["layers"], metric="loss", n_items=20)
        whole = ablation.run([model("usual")], TASK, ["L1.attn + L1.mlp"], metric="loss", n_items=20)
        assert lost.coordinates["part"] == (*together,) and lost.values[5] == pytest.approx(whole.values[0])

    def test_every_kind_is_described(self):
        table = ablation.kinds.__doc__ or ""
        assert all(f"``{kind}``" in table for kind in OF_THE_KIND)
