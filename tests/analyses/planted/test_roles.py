"""Roles hold: each part under each kind of intervention, by direct interchange, slowly."""

import pytest

from analyses.planted.accept import Trial
from analyses.planted.design import ANY
from analyses.planted.family import families
from analyses.planted.interchange import loss, record, replaced
from analyses.planted.planting import plant
from analyses.planted.roles import ALARMS, EXPECTED, Role, is_hit

KINDS = [kind for kind in families() if kind != "transfer"]  # a donor answers to trainings alone
FLAGGED = 0.05
MISLED = {("circuit alone", "zero"), ("circuit alone", "mean"), ("siit", "zero")}
"""Where inert parts raise alarms, which is what these models are there to show."""


def effects(planting, name):
    """(part, kind of method, loss gained in nats) of one contrast."""
    contrast = planting.contrast(name)
    trial = Trial(planting.model, contrast.clean, list(contrast.roles))
    before = loss(trial.logits, contrast.clean)
    for part in contrast.roles:
        values = {kind: trial.values[kind] for kind in ("zero", "mean", "resample")}
        if name != ANY:
            values = {"patching": record(planting.model, contrast.corrupt, [part])[1]}
        for kind, value in values.items():
            if not (part.endswith(".QK") and kind == "zero"):
                after = loss(replaced(planting.model, contrast.clean, [part], value), contrast.clean)
                yield part, kind, float((after - before).mean())


def check_roles(kind, width, seed, n_items):
    cls = families()[kind]
    settings = {"noise": 0.05, "steps": 60} if kind == "siit" and n_items < 256 else {}
    planting = plant(cls(d_model=max(width, cls.min_width), n_items=n_items, **settings), seed)
    for name, roles in planting.roles_for.items():
        for part, method, gained in effects(planting, name):
            if (kind, method) in MISLED and roles[part] in ALARMS:
                continue
            flagged = "flags" if gained > FLAGGED else "silent"
            assert flagged == EXPECTED[roles[part]][method], (name, part, roles[part], method, gained)


@pytest.mark.parametrize("kind", KINDS)
def test_roles_hold(kind):
    check_roles(kind, 16, 5, 96)


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_roles_hold_over_seeds_and_widths(kind, width):
    for seed in range(2):
        check_roles(kind, width, seed, 256)


def test_zeroing_all_inert_parts_breaks_the_circuit_and_resampling_them_does_not():
    planting = plant(families()["circuit alone"](n_items=96), 0)
    (together,) = [part for part in planting.roles if "+" in part]
    trial = Trial(planting.model, planting.items, list(planting.roles))
    assert trial.cost("zero", together) > 0.1
    assert trial.cost("resample", together) <= 0.005


def test_a_uniform_pattern_shows_the_fixed_one():
    planting = plant(families()["fixed pattern"](n_items=96), 0)
    (qk,) = planting.parts(Role.CONSTANT)
    trial = Trial(planting.model, planting.items, [qk])
    assert trial.cost("resample", qk) == trial.cost("mean", qk) == 0
    assert trial.cost("uniform", qk) > 0.1


def test_every_role_has_an_expected_answer_and_hits_are_its_flags():
    kinds = set(EXPECTED[Role.CARRIES])
    assert all(set(row) == kinds for row in EXPECTED.values()) and set(EXPECTED) == set(Role)
    assert is_hit(Role.NEEDED, "zero") and not is_hit(Role.NEEDED, "patching")
    assert not any(is_hit(role, kind) for role in ALARMS for kind in kinds)
