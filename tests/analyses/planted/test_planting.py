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

BASE = [kind for kind, family in families().items() if not family.trap]
TRAPS = [kind for kind, family in families().items() if family.trap]


def family_of(kind, **settings):
    cls = families()[kind]
    width = max(settings.pop("d_model", 16), cls.min_width)
    return cls(**{"d_model": width, "n_items": 128, **settings})


@pytest.mark.parametrize("kind", list(families()))
def test_a_planting_is_accepted_and_names_every_part(kind):
    planting = plant(family_of(kind), 0)
    assert check(planting) == []
    assert planting.draws <= 3
    for contrast, roles in planting.roles_for.items():
        assert set(components(planting.cfg)) <= set(roles), contrast
    assert set(planting.roles.values()) - ALARMS


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
        for items in (contrast.clean, contrast.corrupt):
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
    places = {plant(family_of("offset"), seed).parts(Role.CARRIES)[0] for seed in range(12)}
    assert len(places) >= 5


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
