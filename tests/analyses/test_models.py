"""Small models are run with one thread, and nothing outside notices."""

from __future__ import annotations

import pytest
import torch

from analyses import models
from analyses.models import sized_threads
from mechproc import HookedTransformer, ModelConfig
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
