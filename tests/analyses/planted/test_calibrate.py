"""Calibration: the rule, the rates, the table of what is asked, and a small run."""

import numpy as np
import pytest

from analyses.planted import calibrate, methods
from analyses.planted.applies import ASKED, asked
from analyses.planted.calibrate import QUANTITIES, Measured, rates, threshold
from analyses.planted.design import ANY
from analyses.planted.family import families
from analyses.planted.methods import METHODS, Method
from analyses.planted.planting import plant
from analyses.planted.roles import Role
from analyses.planted.single_parts import single_part_transfer
from mechproc.errors import ConfigError

ROLES = {"L0.H0": Role.CARRIES, "L0.H1": Role.INERT_EXACT, "L0.mlp": Role.DECOY, "L1.H0": Role.NEEDED}


def measured(**effects):
    return Measured(ROLES, {part.replace("_", "."): effect for part, effect in effects.items()})


def of(row, quantity):
    return row[QUANTITIES.index(quantity)]


def test_the_threshold_is_the_floor_or_the_quantile_of_inert_parts():
    quiet = [measured(L0_H0=5.0, L0_H1=0.001, L0_mlp=3.0) for _ in range(20)]
    assert threshold(quiet) == 0.05
    noisy = [measured(L0_H0=5.0, L0_H1=i / 10, L0_mlp=30.0) for i in range(20)]
    assert threshold(noisy) == pytest.approx(np.quantile(np.arange(20) / 10, 0.99))  # decoys do not enter
    together = [Measured({"L0.H1 + L0.H2": Role.INERT_NORM}, {"L0.H1 + L0.H2": 9.0})]
    assert threshold(together) == 0.05


def test_rates_count_plantings_and_parts():
    says = [
        measured(L0_H0=1.0, L0_H1=0.0, L0_mlp=0.0, L1_H0=1.0),
        measured(L0_H0=1.0, L0_H1=1.0, L0_mlp=0.0, L1_H0=0.0),
        measured(L0_H0=1.0, L0_H1=0.0, L0_mlp=1.0, L1_H0=1.0),
        measured(L0_H0=0.0, L0_H1=0.0, L0_mlp=0.0, L1_H0=1.0),
    ]
    row = rates(METHODS["zero ablation"], 0.5, says)
    assert (of(row, "hit"), of(row, "alarm")) == (0.5, 0.5)
    assert (of(row, "part hit"), of(row, "part alarm")) == (6 / 8, 2 / 8)
    assert of(row, "flagged: decoy") == 0.25 and np.isnan(of(row, "flagged: backup"))
    # Wilson's interval of 2 in 4, by its formula with z = 1.959964
    z2 = 1.959964**2
    half = np.sqrt(z2) * np.sqrt(0.25 / 4 + z2 / 64) / (1 + z2 / 4)
    assert (of(row, "hit low"), of(row, "hit high")) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    along = rates(METHODS["activation patching"], 0.5, says)
    assert of(along, "part hit") == 3 / 4  # what is only needed is no hit for it, flagged or not


def test_the_table_asks_about_contrasts_that_exist_and_leaves_none_out():
    assert set(ASKED) == set(families())
    for kind, contrasts in ASKED.items():
        cls = families()[kind]
        design = cls().design(np.random.default_rng(0))
        assert set(contrasts) == set(design.roles), kind
    assert asked("offset", ANY, "zero") and not asked("offset", "answer", "zero")


def test_a_small_run_says_what_was_planted():
    result = calibrate.run(
        ["mean ablation", "activation patching"],
        ["modsum", "decoy"],
        n_plantings=2,
        n_calibration=2,
        settings={"n_items": 64},
    )
    cells = result.coordinates["cell"]
    assert "activation patching / modsum / second" in cells and len(cells) == 5
    for cell in cells:
        assert float(result.select(cell=cell, quantity="hit").values) == 1.0
        assert float(result.select(cell=cell, quantity="alarm").values) == 0.0
    second = result.select(cell="activation patching / modsum / second", quantity="flagged: needed")
    assert float(second.values) == 0.0
    assert result.metadata["expected"]["mean ablation / decoy / any item"]["decoy"] == "silent"
    assert result.metadata["acceptance"] == {"modsum": 1.0, "decoy": 1.0}
    assert not result.is_missing.any()


def test_a_method_that_finds_everything_has_alarms_and_one_that_finds_nothing_no_hits(monkeypatch):
    def all_alike(planting, contrast):
        return dict.fromkeys(planting.roles_for[contrast], 1.0)

    def nothing(planting, contrast):
        return dict.fromkeys(planting.roles_for[contrast], 0.0)

    monkeypatch.setitem(methods.METHODS, "all", Method("all", "zero", all_alike))
    monkeypatch.setitem(methods.METHODS, "none", Method("none", "zero", nothing))
    result = calibrate.run(["all", "none"], ["lookup"], n_plantings=2, n_calibration=1, settings={"n_items": 32})
    table = {c: result.select(cell=c, quantity="hit").values for c in result.coordinates["cell"]}
    assert all(value == 0.0 for value in table.values())  # the threshold of one that flags all is above all
    assert float(result.select(cell="all / lookup / any item", quantity="threshold").values) == 1.0


def test_effects_are_those_of_the_part():
    planting = plant(families()["fixed pattern"](n_items=64), 0)
    effects = METHODS["zero ablation"].measure(planting, ANY)
    (qk,) = planting.parts(Role.CONSTANT)
    assert qk not in effects and qk in METHODS["resample ablation"].measure(planting, ANY)
    assert max(effects, key=lambda part: effects[part]) in planting.parts(Role.CARRIES)
    assert max(effects.values()) > 1


@pytest.mark.parametrize("kind", ["offset", "haystack", "decoy"])
def test_attention_and_weights_say_which_part_it_is(kind):
    planting = plant(families()[kind](n_items=64), 1)
    carry, decoys = planting.parts(Role.CARRIES), planting.parts(Role.DECOY)
    looks = METHODS["attention on targets"].measure(planting, ANY)
    assert set(sorted(looks, key=lambda part: -looks[part])[: len(carry + decoys)]) == set(carry + decoys)
    composes = METHODS["composition score"].measure(planting, ANY)
    assert set(composes) == set(planting.roles) and min(composes[part] for part in carry) > 0.2
    assert all(composes[part] < 0.2 for part in decoys)


@pytest.mark.parametrize(
    "arguments, field",
    [
        ({"methods": ["zero ablatoin"]}, "methods.*zero ablation"),
        ({"kinds": ["nope"]}, "kinds"),
        ({"n_plantings": 0}, "n_plantings = 0"),
        ({"methods": ["single-part transfer"], "kinds": ["offset"]}, "methods"),
    ],
)
def test_arguments_are_checked(arguments, field):
    with pytest.raises(ConfigError, match=field):
        calibrate.run(**arguments)


def test_a_name_is_registered_once():
    with pytest.raises(ConfigError, match="zero ablation"):
        methods.register("zero ablation", "zero")(lambda planting, contrast: {})


@pytest.mark.slow
def test_the_planted_head_of_a_donor_helps():
    effects = []
    for seed in range(2):
        planting = plant(families()["transfer"](n_items=64), seed)
        head = next(iter(planting.variables))
        effects.append(single_part_transfer(planting, parts=[head])[head])
    assert min(effects) > 0.05
