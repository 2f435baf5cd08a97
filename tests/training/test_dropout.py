"""Philox against its published answers and a plain-Python twin; masks against the layout that is promised."""

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward
from mechproc.model.state import State
from mechproc.training.dropout import SITES, PhiloxDropout, philox4x32

# The three philox4x32-10 lines of Random123's tests/kat_vectors: counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's integers, as the paper writes it: (L, R) pairs and a Weyl sequence of keys."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(r0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(r1 * 0xCD9E8D57, 2**32)
        r0, l0, r1, l1 = high1 ^ l0 ^ k0, low1, high0 ^ l1 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [r0, l0, r1, l1]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = words(key)
    found = philox4x32(*(np.array([w], dtype=np.uint64) for w in words(counter)), (k0, k1))
    assert [int(w[0]) for w in found] == words(answer)
    assert plain_philox(words(counter), [k0, k1]) == words(answer)


def test_words_broadcast() -> None:
    counters = np.random.default_rng(0).integers(0, 2**32, size=(4, 5), dtype=np.uint64)
    found = philox4x32(counters[0, :1], counters[1][:, None], counters[2][None], counters[3][:, None], (1, 2))
    for i, j in [(0, 0), (3, 1), (4, 4)]:
        expected = plain_philox(
            [int(counters[0, 0]), int(counters[1, i]), int(counters[2, j]), int(counters[3, i])], [1, 2]
        )
        assert [int(np.broadcast_to(w, (5, 5))[i, j]) for w in found] == expected


@pytest.mark.parametrize("site", SITES)
def test_masks_follow_the_layout(site: str) -> None:
    seed, step, layer, n_ctx, rate = 0x1234_5678_9ABC_DEF0, 70_001, 1, 11, 0.3
    shape = (3, 4, 2, 5) if site == "pattern" else (3, 4, 6)
    dropped = PhiloxDropout(rate, seed, step, n_ctx)(torch.ones(shape), site, layer, None)
    assert 0 < (dropped == 0).sum() < dropped.numel()
    for place in np.ndindex(*shape):
        item, position, unit = place[0], place[1], place[2] * n_ctx + place[3] if site == "pattern" else place[2]
        counter = [step, SITES[site] * 65_536 + layer, item, position * 65_536 + unit // 4]
        word = plain_philox(counter, [0x9ABC_DEF0, 0x1234_5678])[unit % 4]
        assert dropped[place].item() == pytest.approx(0.0 if word < 0.3 * 2**32 else 1 / 0.7)


def test_masks_do_not_depend_on_what_is_computed() -> None:
    wide, dropout = torch.ones(5, 9, 2, 9), PhiloxDropout(0.5, 7, 3, 16)
    whole = dropout(wide, "pattern", 0, None)
    assert torch.equal(dropout(wide[:3, :6, :, :6], "pattern", 0, None), whole[:3, :6, :, :6])
    positions = torch.tensor([[4, 2], [0, 8], [8, 8], [1, 3], [5, 6]])
    some = dropout(wide[:, :2], "pattern", 0, positions)
    assert torch.equal(some, whole[torch.arange(5)[:, None], positions])


def test_masks_differ_along_everything_they_name() -> None:
    x = torch.ones(4, 8, 16)

    def mask(seed: int = 0, step: int = 0, site: str = "embed", layer: int = 0) -> torch.Tensor:
        return PhiloxDropout(0.5, seed, step, 8)(x, site, layer, None)

    others = [mask(seed=1), mask(seed=2**32), mask(step=1), mask(site="mlp_out"), mask(site="attn_out"), mask(layer=1)]
    for i, one in enumerate([mask(), *others]):
        for other in [mask(), *others][i + 1 :]:
            assert 0.4 < (one == other).float().mean() < 0.6  # as of independent masks


def test_rate_and_scale() -> None:
    dropped = PhiloxDropout(0.25, 1, 1, 64)(torch.ones(100, 50, 16), "attn_out", 0, None)
    share = (dropped == 0).double().mean().item()
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 80_000) ** 0.5
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(PhiloxDropout(0.0, 1, 1, 64)(torch.ones(2, 3, 4), "embed", 0, None), torch.ones(2, 3, 4))


def test_pruned_forward_equals_the_whole_one(cfg: ModelConfig, state: State) -> None:
    state = {name: t.double() for name, t in state.items()}
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.integers(0, cfg.d_vocab, size=(6, 9)))
    positions = torch.from_numpy(rng.integers(0, 9, size=(6, 4)))
    dropout = PhiloxDropout(0.4, 5, 2, cfg.n_ctx)
    whole = forward(state, cfg, inputs, dropout=dropout)
    pruned = forward(state, cfg, inputs, positions, dropout)
    torch.testing.assert_close(pruned, whole[torch.arange(6)[:, None], positions], rtol=0, atol=1e-12)
    assert (whole - forward(state, cfg, inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("bad", [{"rate": 1.0}, {"seed": -1}, {"seed": 2**64}, {"n_ctx": 2**16 + 1}])
def test_what_the_counter_cannot_hold_is_refused(bad: dict) -> None:
    with pytest.raises(ConfigError):
        PhiloxDropout(**({"rate": 0.5, "seed": 0, "step": 0, "n_ctx": 8} | bad))
