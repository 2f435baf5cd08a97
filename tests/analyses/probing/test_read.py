"""Where latents are readable: in planted models, and what is refused."""

import numpy as np
import pytest
import torch

from analyses import probing
from analyses.planted.design import ANY
from analyses.planted.family import families
from analyses.planted.methods import METHODS
from analyses.planted.planting import plant
from analyses.planted.roles import Role
from analyses.probing import causal
from analyses.probing.causal import _few_positions
from analyses.probing.rows import _rows, questions, split_items
from analyses.probing.sites import all_sites, sites_of
from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures import get
from mechproc.procedures.items import UNDEFINED

RULE = get("stack").small_version()
CFG = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=RULE.n_ctx, d_vocab=RULE.d_vocab)
FEW = ["L0.resid_pre", "L0.H1", "L0.mlp"]


@pytest.fixture(scope="module")
def decoy():
    return plant(families()["decoy"](n_items=64), 0)


@pytest.fixture(scope="module")
def small():
    models = {4: HookedTransformer(CFG, seed=0), 7: HookedTransformer(CFG, seed=1)}
    return probing.run(models, RULE, ["depth", "top", "written"], FEW, n_items=60)


def test_a_probe_reads_the_answer_where_it_was_put_whether_it_is_used_or_not(decoy):
    (main,), (aside,) = decoy.parts(Role.CARRIES), decoy.parts(Role.DECOY)
    inert = next(p for p in decoy.roles if decoy.roles[p] in (Role.INERT_EXACT, Role.INERT_NORM) and "H" in p)
    found = probing.run([decoy.model], decoy.procedure, ["answer"], [main, aside, inert], n_items=400)
    accuracy = found.select(latent="answer", quantity="accuracy", seed=0)
    majority = float(found.select(latent="answer", quantity="majority", seed=0, site=main).values)
    assert accuracy.select(site=main).values > 0.95 and accuracy.select(site=aside).values > 0.95
    assert accuracy.select(site=inert).values < majority + 0.25
    assert float(found.select(latent="answer", quantity="description length", seed=0, site=main).values) < 0.5
    assert found.metadata["intact_accuracy"] == {"0": 1.0} and found.warnings == []


def test_what_a_probe_reads_is_used_at_the_head_that_carries_and_not_at_the_decoy(decoy):
    (main,), (aside,) = decoy.parts(Role.CARRIES), decoy.parts(Role.DECOY)
    found = probing.causal_effect([decoy.model], decoy.procedure, ["answer"], [main, aside], n_items=200, rank=3)
    of = {q: found.select(latent="answer", seed=0, quantity=q).values for q in ("removed", "patched", "site patched")}
    assert of["removed"][0] > 1 and of["patched"][0] > 1
    assert abs(of["removed"][1]) < 0.05 and abs(of["patched"][1]) < 0.05 and abs(of["site patched"][1]) < 0.05


def test_all_directions_together_are_the_whole_activation(decoy):
    (main,) = decoy.parts(Role.CARRIES)
    found = probing.causal_effect(
        [decoy.model], decoy.procedure, ["answer"], [main], n_items=100, rank=decoy.cfg.d_head, n_controls=1
    ).select(latent="answer", seed=0, site=main)
    assert found.select(quantity="patched").values == pytest.approx(found.select(quantity="site patched").values)


def test_pairs_that_hold_the_answer_change_nothing_where_only_the_answer_is_read(decoy):
    (main,) = decoy.parts(Role.CARRIES)
    found = probing.causal_effect([decoy.model], decoy.procedure, ["answer"], [main], pair="answer", n_items=100)
    assert found.metadata["pair"] == "answer" and found.select(quantity="patched").values > 1


def test_where_few_positions_change_the_others_are_not_computed_and_effects_are_the_same(decoy, monkeypatch):
    asked = [decoy.model], decoy.procedure, ["answer"]
    few = probing.causal_effect(*asked, n_items=64)
    places = []
    monkeypatch.setattr(causal, "_few_positions", lambda chosen: places.append(_few_positions(chosen)))
    whole = probing.causal_effect(*asked, n_items=64)
    assert {p.shape for p in places} == {(64, 1)}
    np.testing.assert_allclose(few.values, whole.values, rtol=0, atol=1e-9)
    assert np.abs(few.values).max() > 1


def test_positions_are_few_or_all():
    chosen = np.array([[0, 1, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)
    found = _few_positions(chosen)
    assert found[0].tolist() == [1, 6] and found[1, 0] == 5 and found.shape == (3, 2)
    assert _few_positions(np.zeros((2, 8), dtype=bool)).shape == (2, 1)
    assert _few_positions(chosen[:, :7]) is None


def test_methods_of_calibration_say_so(decoy):
    (main,), (aside,) = decoy.parts(Role.CARRIES), decoy.parts(Role.DECOY)
    read = METHODS["linear probe"].measure(decoy, ANY)
    used = METHODS["probe direction patched"].measure(decoy, ANY)
    assert set(read) == set(used) == set(decoy.roles)
    assert min(read[main], read[aside]) > 1 and used[main] > 0.5 and abs(used[aside]) < 0.05


def test_axes_baselines_and_undefined_cells(small):
    assert small.axes == ("latent", "site", "quantity", "seed")
    assert small.coordinates["seed"] == (4, 7) and small.coordinates["quantity"] == tuple(probing.QUANTITIES)
    assert not small.is_missing.any()
    top = small.select(latent="top", quantity="r2")
    assert top.is_undefined.all() and not small.select(latent="depth", quantity="r2").is_undefined.any()
    difference = small.select(quantity="accuracy").values - small.select(quantity="control").values
    np.testing.assert_allclose(small.select(quantity="selectivity").values, difference)
    assert "not above the best baseline" in small.warnings[0]  # fresh models
    untrained = small.select(quantity="untrained").values
    assert (untrained[..., 0] == untrained[..., 1]).all()


def test_sequences_of_training_are_not_in_test_and_rows_have_their_labels():
    train, test = split_items(RULE, 80, 3)
    rows = {tuple(r) for r in train.tokens.tolist()}
    assert not any(tuple(r) in rows for r in test.tokens.tolist())
    (question,) = questions(RULE, ["depth"], train, test, CFG, "defined", 3)
    for items, found in ((train, question.train), (test, question.test)):
        assert (items.latents["depth"][found.item, found.position] == found.label).all()
        assert (found.label != UNDEFINED).all()
    tokens = np.concatenate([train.tokens[question.train.item, question.train.position],
                             test.tokens[question.test.item, question.test.position]])  # fmt: skip
    control = np.concatenate([question.control_train.label, question.control_test.label])
    for token in np.unique(tokens):
        assert len(set(control[tokens == token])) == 1


def test_rows_of_an_item_stand_together_and_are_no_more_than_asked_for():
    train, _ = split_items(RULE, 80, 0)
    rows = _rows(train, "depth", "defined", RULE.n_ctx, 100, np.random.default_rng(0))
    assert len(rows) == 100
    starts = np.flatnonzero(np.diff(rows.item)) + 1
    assert len(starts) + 1 == len(np.unique(rows.item)) and (np.diff(rows.item) < 0).any()


def test_positions():
    train, test = split_items(RULE, 200, 0)
    (scored,) = questions(RULE, ["written"], train, test, CFG, "scored", 0)
    assert train.scored[scored.train.item, scored.train.position].all()
    (first,) = questions(RULE, ["depth"], train, test, CFG, [1, 2], 0)
    assert set(first.train.position) == {1, 2}
    (never,) = questions(RULE, ["depth"], train, test, CFG, "scored", 0)
    assert "too few" in never.why_not
    (constant,) = questions(RULE, ["depth"], train, test, CFG, [0], 0)
    assert "the same value" in constant.why_not


def test_sites():
    names = all_sites(CFG)
    assert names == ["L0.resid_pre", "L0.H0", "L0.H1", "L0.attn", "L0.resid_mid", "L0.mlp", "L0.resid_post"]
    found = sites_of(None, CFG)
    assert list(found) == names
    assert found["L0.H1"].address == "blocks.0.attn.hook_z[:, :, 1]"
    assert found["L0.resid_post"].address == "blocks.0.hook_resid_post"


@pytest.mark.parametrize("name", ["L1.resid_pre", "L0.H2", "body", "L0.H1.QK", "L0.mlp.N3", "nothing"])
def test_sites_that_cannot_be_probed(name):
    with pytest.raises(PartError, match="site '"):
        sites_of([name], CFG)


@pytest.mark.parametrize("analysis", [probing.run, probing.causal_effect])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"latents": ["dpeth"]}, ConfigError, "latent 'dpeth' of stack is not one of .*depth.*did you mean 'depth'"),
        ({"latents": []}, ConfigError, "latents"),
        ({"sites": ["L0.H1", "L0.H1"]}, ConfigError, "sites"),
        ({"sites": ["L3.mlp"]}, PartError, "site 'L3.mlp'"),
        ({"positions": "somewhere"}, ConfigError, "positions = 'somewhere'"),
        ({"positions": [99]}, ConfigError, "positions"),
        ({"n_items": 1}, ConfigError, "n_items = 1"),
        ({"rule": RULE.items(5)}, ConfigError, "rule = 'Items'"),
    ],
)
def test_arguments_are_checked(analysis, arguments, error, message):
    with pytest.raises(error, match=message):
        analysis([HookedTransformer(CFG)], **{"rule": RULE, "n_items": 20, **arguments})


def test_broken_models_are_refused_by_seed():
    broken, hooked = HookedTransformer(CFG), HookedTransformer(CFG)
    broken.embed.W_E.data[1] = torch.nan
    hooked.add_hook("hook_embed", lambda activation, hook: 0 * activation)
    with pytest.raises(ConfigError, match="logits of seed 4"):
        probing.run({4: broken}, RULE, ["depth"], FEW, n_items=20)
    with pytest.raises(PartError, match="hook_embed"):
        probing.run({4: hooked}, RULE, ["depth"], FEW, n_items=20)


def test_a_model_that_reads_vectors():
    rule = get("eca-vectors").small_version()
    cfg = ModelConfig(
        n_layers=1, n_heads=2, d_model=8, n_ctx=rule.n_ctx, d_vocab=rule.n_cells, input="vectors", d_input=rule.n_cells
    )
    found = probing.run([HookedTransformer(cfg)], rule, ["alive"], ["L0.resid_pre"], n_items=60)
    assert float(found.select(quantity="r2", latent="alive", site="L0.resid_pre", seed=0).values) > 0.3
    effect = probing.causal_effect([HookedTransformer(cfg)], rule, ["alive"], ["L0.resid_pre"], n_items=60)
    assert np.isfinite(effect.values).all()
