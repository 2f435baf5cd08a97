from __future__ import annotations

import numpy as np
import pytest
import torch
from transformer_lens import head_detector

from analyses import attention
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.procedures.base import Items

CFG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=12, d_vocab=6)
TOKENS = np.array([[1, 2, 3, 1, 2, 2, 4, 1, 3, 5]])
ITEMS = Items(TOKENS, np.array([10]), np.zeros(TOKENS.shape, dtype=bool), {})


class Tokenized:
    """What ``detect_head`` asks of a model, for the one sequence of ``ITEMS``."""

    def __init__(self, model: HookedTransformer):
        self.cfg = model.cfg
        model.cfg.device = "cpu"
        self.model = model

    def to_tokens(self, _: str) -> torch.Tensor:
        return torch.from_numpy(TOKENS)

    def run_with_cache(self, tokens: torch.Tensor, remove_batch_dim: bool):
        logits, cache = self.model.run_with_cache(tokens, return_cache_object=False)
        layers = range(self.cfg.n_layers)
        return logits, {("pattern", n, "attn"): cache[f"blocks.{n}.attn.hook_pattern"][0] for n in layers}


def model(seed: int = 0) -> HookedTransformer:
    state = {name: 20 * tensor for name, tensor in init_state(CFG, seed, "test").items()}
    return HookedTransformer(CFG, state)


@pytest.mark.parametrize("name", attention.GENERAL)
def test_masks_are_those_of_transformer_lens(name):
    of_peer = getattr(head_detector, f"get_{name}_detection_pattern")(torch.from_numpy(TOKENS))
    np.testing.assert_array_equal(attention.general_masks(ITEMS)[name][0], of_peer.numpy() > 0)


@pytest.mark.parametrize("name", attention.GENERAL)
def test_scores_times_the_share_of_queries_with_a_target_are_those_of_detect_head(name):
    subject = model()
    mask = attention.general_masks(ITEMS)[name]
    ours = attention.scores([subject], ITEMS, {name: mask}).values[0, :, :, 0] * mask.any(axis=2).mean()
    theirs = head_detector.detect_head(Tokenized(subject), "one sequence", name).numpy()
    assert np.ptp(theirs) > 0.01  # the heads differ: the comparison can fail
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_nothing_is_a_target_in_the_padding():
    padded = Items(np.pad(TOKENS[:, :4], ((0, 0), (0, 3))), np.array([4]), np.zeros((1, 7), dtype=bool), {})
    for name, mask in attention.general_masks(padded).items():
        assert not mask[:, 4:].any() and not mask[:, :, 4:].any(), name


def test_repeated_tokens_are_repeated_once():
    items = attention.repeated(CFG, 5, seed=3)
    np.testing.assert_array_equal(items.tokens[:, :6], items.tokens[:, 6:])
    assert items.tokens.min() >= 1 and items.tokens.max() < CFG.d_vocab
    with pytest.raises(ConfigError, match="n_ctx = 3"):
        attention.repeated(ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=3, d_vocab=6), 5)
