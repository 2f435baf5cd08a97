"""Two parts together: worked out by hand, and on planted twins and backups."""

from __future__ import annotations

import numpy as np
import pytest

from analyses import ablation
from analyses.planted.family import families
from analyses.planted.planting import plant
from analyses.planted.roles import Role
from mechproc.errors import ConfigError, PartError

from ..conftest import LOGIT, alternating, planted
from ..interventions.grid import TASK, model
from .test_shapley import right_logit, twins

ITEMS = alternating((1, 2, 6), (2, 3, 6), (3, 4, 6), (4, 1, 6))


def by_hand(models, parts, score):
    return ablation.pairs(models, ITEMS, parts, "zero", score)


def test_parts_that_do_the_same_cost_more_together():
    found = by_hand([twins(), planted()], ["L0.H0", "L0.H1"], "accuracy")
    assert found.axes == ("part", "other", "seed")
    assert found.select(part="L0.H0", other="L0.H1").values.tolist() == [1.0, 0.0]  # the second has no twin
    assert found.metadata["alone"] == {"L0.H0": {"0": 0.0, "1": 1.0}, "L0.H1": {"0": 0.0, "1": 0.0}}


def test_parts_one_after_the_other_cost_less_together():
    found = by_hand([planted()], ["L0.H0", "L0.H1", "embed"], right_logit)
    # The head copies what is embedded: each alone costs LOGIT, and so do both.
    assert found.select(part="L0.H0", other="embed").values[0] == pytest.approx(-LOGIT, abs=1e-5)
    assert found.select(part="L0.H0", other="L0.H1").values[0] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_array_equal(found.values, found.values.transpose(1, 0, 2))


def test_it_is_the_joint_effect_less_both():
    ours, parts = [model("usual", 1), model("usual", 2)], ["attn - L0.H0 - L1.H1", "L1.mlp", "L0.H0"]
    found = ablation.pairs(ours, TASK, parts, "resample", "loss", n_items=40)
    together = ["L0.H1 + L1.H0 + L1.mlp", "L0.attn + L1.H0"]
    lost = ablation.run(ours, TASK, [*parts, *together], "resample", "loss", n_items=40).values
    assert np.abs(found.select(part=parts[0], other="L1.mlp").values).min() > 1e-6
    expected = lost[3] - lost[0] - lost[1]
    np.testing.assert_allclose(found.select(part=parts[0], other="L1.mlp").values, expected, atol=1e-10)


def test_a_part_with_itself_or_inside_another_is_undefined():
    found = ablation.pairs([model("usual")], TASK, ["L0.H0", "L0.attn", "L1.mlp"], n_items=20)
    undefined = {(where["part"], where["other"]): why for where, why in found.undefined}
    assert undefined["L0.H0", "L0.attn"] == undefined["L0.attn", "L0.H0"] == "the two overlap"
    assert undefined["L1.mlp", "L1.mlp"] == "a part with itself" and len(undefined) == 5
    assert (np.isnan(found.values) == found.is_undefined).all()


def test_refusals():
    with pytest.raises(ConfigError, match="at least two"):
        ablation.pairs([model("usual")], TASK, ["L0.H0"], n_items=20)
    with pytest.raises(ConfigError, match="two that do not overlap"):
        ablation.pairs([model("usual")], TASK, ["L0.H0", "L0.attn"], n_items=20)
    with pytest.raises(PartError, match=r"zero at 'L0\.H0\.QK' is undefined"):
        ablation.pairs([model("usual")], TASK, ["L0.H0.QK", "L1.H0"], n_items=20)


def interactions(planting, kind):
    """(part, other, interaction in nats, what each costs alone) of the planting's parts, the largest first."""
    reference = planting.procedure.items(256, seed=0, split="validation") if kind == "mean" else None
    found = ablation.pairs([planting.model], planting.items, None, kind, reference=reference)
    parts = found.coordinates["part"]
    cells = [(float(found.values[i, j, 0]), {parts[i], parts[j]}) for i in range(len(parts)) for j in range(i)]
    alone = {part: values["0"] for part, values in found.metadata["alone"].items()}
    return sorted(cells, key=lambda cell: -cell[0]), alone


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_planted_twins_are_found_and_nothing_else_is(kind, seed):
    planting = plant(families()["twins"](n_items=64), seed)
    pair = set(planting.parts(Role.REDUNDANT))
    cells, alone = interactions(planting, kind)
    assert max(alone[part] for part in pair) < 0.05  # neither shows by itself
    assert cells[0][1] == pair and cells[0][0] > 0.5
    assert max(abs(value) for value, _ in cells[1:]) < 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_backup_shows_with_zeros_alone(seed):
    planting = plant(families()["backup"](n_items=64), seed)
    pair = {*planting.parts(Role.BACKED_UP), *planting.parts(Role.BACKUP)}
    cells, alone = interactions(planting, "zero")
    assert max(alone[part] for part in pair) < 0.05
    assert cells[0][1] == pair and cells[0][0] > 0.5
    assert max(abs(value) for value, _ in cells[1:]) < 0.05
    cells, alone = interactions(planting, "mean")
    assert alone[planting.parts(Role.BACKED_UP)[0]] > 0.5
    assert max(abs(value) for value, _ in cells) < 0.05
