"""The maps of a transfer map's donors beside it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from analyses import donor_maps, predicted
from analyses.transfer_map import EVERYTHING
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.procedures import get
from mechproc.result import Result
from mechproc.studies import transfer_map
from mechproc.studies.transfer_map import PLAYERS, arm

from .test_transfer_map import WORTH, Fake

SEEDS = [10, 11]


class WithDonors(Fake):
    """A store that has the weights of the donors of set."""

    def has_weights(self, run) -> bool:
        return run.procedure.short_name == "set"

    def model(self, run):
        return run.model, init_state(run.model, run.seed)


@pytest.fixture(scope="module")
def study():
    return transfer_map.study("laptop", SEEDS)


def worth(names, seeds, sign=1.0) -> Result:
    values = sign * np.array([[WORTH[part] + 1e-3 * i for _ in seeds] for i, part in enumerate(names)])
    return Result("a map", values, ("part", "seed"), {"part": names, "seed": seeds}, "nats", "up", "anything")


def made(models, starts, rule, seed, n_items) -> dict[str, Result]:
    """A map that ranks parts as they transfer, one that ranks them the other way round, and four like the first."""
    assert set(models) == set(starts) == set(SEEDS) and rule.short_name == "set"
    signs = dict(zip(predicted.OF_DONORS, (1, -1, 1, 1, 1, 1), strict=True))
    return {name: worth(list(PLAYERS)[:4], list(models), sign) for name, sign in signs.items()}


def test_maps_of_donors_are_held_against_what_transfers(study, monkeypatch):
    monkeypatch.setattr(donor_maps, "maps", made)
    found = predicted.run(study, WithDonors(study), "alone")  # type: ignore[arg-type]
    assert found.coordinates["map"] == ("shapley", "removed", *predicted.OF_DONORS)
    assert found.select(case="set, haystack", map=["ablation", "resampling"]).values.tolist() == [1.0, -1.0]
    assert found.select(case="k-dyck, haystack", map="ablation").is_missing.all()  # its donors are not here
    assert found.metadata["n_seeds"]["ablation"] == {"set, haystack": 2}
    assert found.metadata["p"]["ablation"] == pytest.approx(1 / 24) and found.metadata["p"]["resampling"] == 1.0
    assert found.metadata["describes"]["ablation"] == "the pretrained model, on its own rule"
    assert "parts of the rule, along their training" in found.metadata["describes"]["target"]
    (means,) = found.metadata["sentences"]
    assert "alone" not in means and "ablation 1.00 (p = 0.042)" in means
    assert found.warnings == ["k-dyck: the weights of 2 of 2 donors are not here, so that no map of donors counts"]


def test_a_target_that_no_seed_has_is_refused(study):
    lacks = [arm(rule, EVERYTHING) for rule in ("set", "k-dyck")]
    with pytest.raises(ConfigError, match="complete for the map 'removed'"):
        predicted.run(study, WithDonors(study, missing=lacks), "removed")  # type: ignore[arg-type]


def read_one(run, models, rule, latents, sites, **settings):
    """Of all latents one, which takes a second where all take many."""
    return run(models, rule, [next(iter(rule.latent_names))], sites, **settings)


def test_every_map_of_donors_has_rows_of_the_transfer_map(monkeypatch):
    rule = get("set").small_version()
    cfg = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=rule.n_ctx, d_vocab=rule.d_vocab)
    models, starts = ({4: HookedTransformer(cfg, init_state(cfg, seed))} for seed in (0, 1))
    monkeypatch.setattr(donor_maps.probing, "run", functools.partial(read_one, donor_maps.probing.run))
    found = donor_maps.maps(models, starts, rule, 0, 24)
    assert tuple(found) == predicted.OF_DONORS
    rows = {name: set(each.coordinates["part"]) for name, each in found.items()}
    assert rows["ablation"] == rows["weight change"] == set(PLAYERS)
    assert all(set(PLAYERS[:4]) <= of_map <= set(PLAYERS) for of_map in rows.values())
    for each in found.values():
        assert set(each.axes) == {"part", "seed"} and np.isfinite(each.values).all()
