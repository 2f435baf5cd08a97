"""Small models are run with one thread, and nothing outside notices."""

from __future__ import annotations

import pytest
import torch

from analyses import models
from analyses.models import sized_threads
from mechproc import HookedTransformer, ModelConfig
from mechproc.errors import ConfigError
from mechproc.model.state import init_state


@sized_threads
def threads(models, fail=False) -> int:
    if fail:
        raise RuntimeError
    return torch.get_num_threads()


def test_small_models_take_one_thread(monkeypatch):
    cfg = ModelConfig(1, 1, 4, 5, 6)
    model = HookedTransformer(cfg, init_state(cfg, 0))
    torch.set_num_threads(2)
    for several in (model, [model], {3: model}):
        assert threads(several) == threads(models=several) == 1
    with pytest.raises(RuntimeError):
        threads(model, fail=True)
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(models, "ONE_THREAD_WIDTH", 3)
    assert threads(model) == threads({}) == threads(None) == 2


@sized_threads
def asked(models, parts=None, *, seed=0, **settings):
    return parts, seed, settings


def test_settings_that_analyses_share_are_checked():
    assert asked(None, "L0.H1", targets="all", n_items=3) == (["L0.H1"], 0, {"targets": ["all"], "n_items": 3})
    assert asked(None, ["a", "b"], seed=2) == (["a", "b"], 2, {})
    for settings, says in (
        ({"seed": -1}, "seed = -1 is not allowed: a whole number, at least 0"),
        ({"n_items": 2.5}, "n_items = 2.5"),
        ({"n_items": 0}, "n_items = 0 is not allowed: a whole number, at least 1"),
        ({"n_items": True}, "n_items = True"),
        ({"parts": 3}, "parts = 3 is not allowed: a list of names"),
        ({"sites": ["embed", 3]}, "sites = "),
    ):
        with pytest.raises(ConfigError, match=says):
            asked(None, **settings)


@pytest.mark.parametrize(
    ("n_items", "n_positions", "sizes"),
    [
        (130, None, [64, 64, 2]),
        (130, models.BATCH_POSITIONS, [64, 64, 2]),
        (130, models.BATCH_POSITIONS // 100, [102, 28]),
        (130, 1, [130]),
    ],
)
def test_batches_of_short_items_are_larger(n_items, n_positions, sizes):
    slices = list(models.batches(n_items, n_positions))
    assert [s.stop - s.start for s in slices] == sizes
    assert [s.start for s in slices] == [0, *(s.stop for s in slices[:-1])]
