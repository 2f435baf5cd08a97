"""The flat AdamW against torch's own and against arithmetic by hand."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.training.config import TrainingConfig
from mechproc.training.optimizer import AdamW, is_decayed, rooted_

SETTINGS = TrainingConfig(weight_decay=0.1, betas=(0.8, 0.95), adam_eps=1e-6, clip_norm=2.0)


def gradients(state: State, step: int) -> State:
    rng = torch.Generator().manual_seed(step)
    return {name: torch.randn(t.shape, generator=rng, dtype=t.dtype) for name, t in state.items()}


def give(optimizer: AdamW, grads: State) -> None:
    optimizer.clear()
    for name, weight in optimizer.weights.items():
        (weight * grads[name]).sum().backward()


def bits_equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_equals_torchs_adamw(state: State) -> None:
    state = {name: t.double() for name, t in state.items()}
    ours = AdamW(state, SETTINGS)
    theirs = {name: t.clone().requires_grad_() for name, t in state.items()}
    groups = [
        {"params": [t for n, t in theirs.items() if n.split(".")[-1].startswith("W_")], "weight_decay": 0.1},
        {"params": [t for n, t in theirs.items() if not n.split(".")[-1].startswith("W_")], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-6)
    for step in range(5):
        grads, rate = gradients(state, step), 0.01 * (step + 1)
        give(ours, grads)
        norm = ours.update(rate)
        for name, t in theirs.items():
            t.grad = grads[name].clone()
        expected_norm = torch.nn.utils.clip_grad_norm_(theirs.values(), 2.0)
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
        assert norm == pytest.approx(expected_norm.item()) and norm > 2.0
        for name, t in theirs.items():  # torch clips to 2 / (norm + 1e-6)
            torch.testing.assert_close(ours.weights[name].detach(), t.detach(), rtol=1e-6, atol=1e-9)


def test_decay_touches_matrices_only(state: State) -> None:
    optimizer = AdamW(state, SETTINGS)
    optimizer.clear()
    assert optimizer.update(0.5) == 0.0
    for name, before in state.items():
        matrix = any(name.endswith(w) for w in ("W_E", "W_pos", "W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_U"))
        assert is_decayed(name) == matrix
        expected = before * (1 - 0.5 * 0.1) if matrix else before
        torch.testing.assert_close(optimizer.weights[name].detach(), expected)


def test_first_step_by_hand() -> None:
    settings = TrainingConfig(weight_decay=0.5, clip_norm=None, adam_eps=1e-12)
    optimizer = AdamW({"x.W_Q": torch.tensor([2.0, -1.0]), "x.b_Q": torch.tensor([3.0])}, settings)
    give(optimizer, {"x.W_Q": torch.tensor([300.0, 0.0]), "x.b_Q": torch.tensor([-400.0])})
    assert optimizer.update(0.1) == pytest.approx(500.0)
    # Adam's first step is the sign of the gradient times the rate; decay takes 0.05 of the matrix first
    assert optimizer.weights["x.W_Q"].tolist() == pytest.approx([2.0 * 0.95 - 0.1, -0.95])
    assert optimizer.weights["x.b_Q"].tolist() == pytest.approx([3.1])


@pytest.mark.parametrize(("clip_norm", "scale"), [(1.0, 0.2), (10.0, 1.0), (None, 1.0)])
def test_clipping_scales_large_gradients(clip_norm: float | None, scale: float) -> None:
    settings = TrainingConfig(clip_norm=clip_norm, betas=(0.5, 0.5))
    optimizer = AdamW({"a.W_Q": torch.zeros(1), "a.b_Q": torch.zeros(1)}, settings)
    give(optimizer, {"a.W_Q": torch.tensor([3.0]), "a.b_Q": torch.tensor([-4.0])})
    assert optimizer.update(0.1) == pytest.approx(5.0)
    first, second = optimizer.moments()
    assert first["a.W_Q"].item() == pytest.approx(0.5 * 3.0 * scale)
    assert second["a.b_Q"].item() == pytest.approx(0.5 * (4.0 * scale) ** 2)


def test_frozen_entries_keep_their_bits(state: State) -> None:
    masks = {name: torch.zeros(t.shape, dtype=torch.bool) for name, t in state.items()}
    masks["blocks.0.attn.W_Q"][1] = True
    masks["blocks.1.ln1.b"][:] = True
    del masks["embed.W_E"]
    free, optimizer = AdamW(state, SETTINGS), AdamW(state, SETTINGS, frozen=masks)
    for step in range(3):
        give(optimizer, gradients(state, step))
        give(free, gradients(state, step))
        assert optimizer.update(0.1) < free.update(0.1)  # frozen entries do not count for clipping
    for moments in optimizer.moments():
        assert not moments["blocks.0.attn.W_Q"][1].any() and not moments["blocks.1.ln1.b"].any()
        assert moments["blocks.0.attn.W_Q"][0].all()
    for name, before in state.items():
        kept = masks.get(name, torch.zeros(before.shape, dtype=torch.bool))
        after = optimizer.weights[name].detach()
        assert torch.equal(after[kept].view(torch.int32), before[kept].view(torch.int32))
        assert (after[~kept] != before[~kept]).all()


def test_a_gradient_that_is_not_finite_changes_nothing(state: State) -> None:
    optimizer = AdamW(state, SETTINGS)
    grads = gradients(state, 0)
    grads["blocks.0.mlp.b_in"][2] = torch.nan
    give(optimizer, grads)
    assert str(optimizer.update(0.1)) == "nan"
    assert bits_equal(state, {name: t.detach() for name, t in optimizer.weights.items()})
    assert not any(m.any() for m in optimizer.moments()[1].values())


def test_goes_on_from_loaded_moments(state: State) -> None:
    one = AdamW(state, SETTINGS)
    for step in range(3):
        give(one, gradients(state, step))
        one.update(0.1)
    other = AdamW({name: t + 1 for name, t in state.items()}, SETTINGS)
    other.load({name: t.detach().clone() for name, t in one.weights.items()}, *one.moments(), 3)
    for optimizer in (one, other):
        give(optimizer, gradients(state, 9))
        optimizer.update(0.1)
    assert bits_equal(one.weights, other.weights)
    assert bits_equal(one.moments()[1], other.moments()[1])


def test_the_given_state_is_left_alone(cfg: ModelConfig, state: State) -> None:
    before = {name: t.clone() for name, t in state.items()}
    optimizer = AdamW(state, SETTINGS)
    give(optimizer, gradients(state, 0))
    optimizer.update(0.1)
    assert bits_equal(before, state) and not any(t.requires_grad for t in state.values())
    assert list(optimizer.weights["embed.W_E"].shape) == [cfg.d_vocab, cfg.d_model]


def test_masks_that_do_not_fit_are_refused(state: State) -> None:
    with pytest.raises(ConfigError, match=r"frozen tensor embed\.W is not one"):
        AdamW(state, SETTINGS, frozen={"embed.W": torch.zeros(1, dtype=torch.bool)})
    with pytest.raises(ConfigError, match=r"frozen\[embed\.W_E\]"):
        AdamW(state, SETTINGS, frozen={"embed.W_E": torch.zeros(1, dtype=torch.bool)})
    with pytest.raises((ConfigError, TypeError), match=r"ln_final\.w"):  # TypeError where annotations are executed
        AdamW(state, SETTINGS, frozen={"ln_final.w": torch.ones(8)})


def test_roots_are_correctly_rounded() -> None:
    numbers = torch.rand(100_003, generator=torch.Generator().manual_seed(0))
    exact = np.sqrt(numbers.double().numpy())  # of 53 bits, and rounded to 24 of them below
    assert np.array_equal(rooted_(numbers).numpy(), exact.astype(np.float32))


UPDATES = """
import hashlib
import torch
from mechproc.model.config import ModelConfig
from mechproc.model.state import init_state
from mechproc.training.config import TrainingConfig
from mechproc.training.optimizer import AdamW

optimizer = AdamW(init_state(ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=8, d_vocab=50), 0), TrainingConfig())
rng = torch.Generator().manual_seed(1)
for step in range(50):
    optimizer.gradient.copy_(torch.randn(optimizer.gradient.shape, generator=rng))
    optimizer.update(1e-3)
print(hashlib.sha256(optimizer.flat.detach().numpy().tobytes()).hexdigest())
"""


def test_bits_do_not_depend_on_what_the_mathematics_library_makes_of_the_processor() -> None:
    """MKL can be told which processor it is on; with torch's square roots each of these ends with other bits."""
    ends = set()
    for branch in ("COMPATIBLE", "AVX2", ""):
        told = {**os.environ, "MKL_CBWR": branch} if branch else os.environ
        done = subprocess.run([sys.executable, "-c", UPDATES], env=told, capture_output=True, text=True, check=True)
        ends.add(done.stdout)
    assert len(ends) == 1
