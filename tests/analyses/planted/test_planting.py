"""Every family is accepted from several seeds, and its roles hold under direct interchange."""

import numpy as np
import pytest

from analyses.planted.accept import Trial
from analyses.planted.design import ANY
from analyses.planted.family import families
from analyses.planted.planting import PlantingError, check, plant
from analyses.planted.roles import ALARMS, Role
from mechproc.errors import ConfigError
from mechproc.model.parts import components

SHORT = {"siit": {"noise": 0.05, "steps": 60}}
"""Settings under which a family takes a second or two."""
BASE = [kind for kind, family in families().items() if not family.trap]


def family_of(kind, **settings):
    cls = families()[kind]
    width = max(settings.pop("d_model", 16), cls.min_width)
    return cls(**{"d_model": width, "n_items": 128, **SHORT.get(kind, {}), **settings})


@pytest.mark.parametrize("kind", list(families()))
def test_a_planting_is_accepted_and_names_every_part(kind):
    planting = plant(family_of(kind), 0)
    assert check(planting) == []
    assert planting.draws <= 3
    for contrast, roles in planting.roles_for.items():
        assert set(components(planting.cfg)) <= set(roles), contrast
    assert set(planting.roles.values()) - ALARMS


def test_interchange_training_makes_every_weight_dense():
    planting = plant(family_of("siit"), 0)
    for name, tensor in planting.state.items():
        assert float((tensor.abs() < 1e-6).double().mean()) < 0.01, name
    assert set(planting.roles.values()) == {Role.CARRIES, Role.INERT_TRAINED}


@pytest.mark.slow
def test_interchange_training_removes_the_usual_noise():
    assert plant(families()["siit"](), 1).draws <= 3


@pytest.mark.slow
@pytest.mark.parametrize("d_model", [16, 32])
def test_the_haystack_of_the_papers_size(d_model):
    planting = plant(families()["haystack"](d_model=d_model, size="paper"), 0)
    assert planting.cfg.n_ctx == 62 and planting.draws <= 3


def test_a_donor_has_one_head_with_structure():
    planting = plant(family_of("transfer"), 0)
    assert [role for role in planting.roles.values() if role is Role.CARRIES] == [Role.CARRIES]
    assert planting.roles[next(iter(planting.variables))] is Role.CARRIES
    trial = Trial(planting.model, planting.items, ["L0.mlp"])
    assert trial.intact < 0.5


@pytest.mark.parametrize("kind", ["offset", "modsum", "backup"])
def test_a_seed_decides_every_weight_and_item(kind):
    first, again, other = (plant(family_of(kind), seed) for seed in (3, 3, 4))
    assert all(np.array_equal(first.state[name], again.state[name]) for name in first.state)
    assert np.array_equal(first.items.tokens, again.items.tokens)
    assert not np.array_equal(first.state["blocks.0.attn.W_Q"], other.state["blocks.0.attn.W_Q"])


@pytest.mark.parametrize("kind", BASE)
def test_pairs_of_a_contrast_are_solved_and_differ(kind):
    planting = plant(family_of(kind), 1)
    for name in planting.roles_for:
        contrast = planting.contrast(name)
        for items in (contrast.clean, contrast.corrupt) if kind != "transfer" else ():  # a donor solves nothing
            assert Trial(planting.model, items, ["L0.mlp"]).intact >= 0.97, name
        if name != ANY:
            assert (contrast.clean.tokens != contrast.corrupt.tokens).any(axis=1).all()
            clean, corrupt = (items.targets[items.scored] for items in (contrast.clean, contrast.corrupt))
            assert (clean != corrupt).all()
            again = planting.contrast(name)
            assert np.array_equal(again.corrupt.tokens, contrast.corrupt.tokens)


@pytest.mark.parametrize("distractors", ["ones", "junk"])
def test_all_distractors_are_of_the_kind_asked_for(distractors):
    planting = plant(family_of("offset", distractors=distractors), 0)
    found = {role for role in planting.roles.values() if role in ALARMS}
    assert found == {{"ones": Role.INERT_EXACT, "junk": Role.INERT_NORM}[distractors]}


def test_places_are_random():
    designs = [family_of("modsum").design(np.random.default_rng(seed)) for seed in range(200)]
    places = {tuple(design.plans) for design in designs}
    assert len(places) == 4 * 2 + 4  # a head of layer 0 with either MLP, one of layer 1 with its own


def test_a_failing_criterion_is_named_after_the_last_draw(monkeypatch):
    monkeypatch.setattr("analyses.planted.planting.MAX_DRAWS", 2)
    monkeypatch.setattr("analyses.planted.accept.INTACT", 1.1)
    with pytest.raises(PlantingError, match=r"offset.*2 draws.*accuracy 1\.000"):
        plant(family_of("offset"), 0)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="d_model = 8"):
        families()["offset"](d_model=8)
    with pytest.raises(ConfigError, match="distractors"):
        families()["circuit alone"](distractors="ones")
    with pytest.raises(ConfigError, match="contrast = 'nope'"):
        plant(family_of("offset"), 0).contrast("nope")
