"""What each perturbation keeps and what it destroys, block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError
from mechproc.model.parts import select
from mechproc.transfer.perturb import Noise, NormMatchedNoise, Permute, Perturbation, Spectrum, perturbed

ALL_KINDS = [Permute(), Noise(0.3), NormMatchedNoise(), Spectrum()]


def blocks(state, cfg):
    """The body's blocks by name: each head's slice of the attention's tensors, every other tensor whole."""
    found = {}
    for name, tensor in state.items():
        if ".attn." in name and not name.endswith("b_O"):
            found |= {f"{name}[{head}]": tensor[head].numpy() for head in range(cfg.n_heads)}
        elif name.startswith("blocks"):
            found[name] = tensor.numpy()
    return found


def singular_values(block):
    return np.linalg.svd(block if block.ndim == 2 else block[:, None], compute_uv=False)


def correlation(before, after):
    """Over the 796 numbers of attention and MLPs: 0.035 is one standard error of nothing in common."""
    both = [np.concatenate([b.ravel() for name, b in each.items() if ".ln" not in name]) for each in (before, after)]
    return np.corrcoef(*both)[0, 1]


def test_permute_keeps_each_blocks_numbers_and_moves_them(cfg, random_state):
    state = random_state(cfg)
    before, after = blocks(state, cfg), blocks(perturbed(Permute(), select("body + ln", cfg), state, 0), cfg)
    for name, block in before.items():
        if "ln_final" not in name:
            np.testing.assert_array_equal(np.sort(after[name].ravel()), np.sort(block.ravel()), err_msg=name)
            moved = (after[name] != block).mean()
            assert moved > (0.5 if block.size > 2 else -1), name


def test_permute_crosses_the_neurons_of_a_matrix(cfg, random_state):
    state = random_state(cfg)
    changed = perturbed(Permute(), select("L0.mlp", cfg), state, 0)
    for name in ("blocks.0.mlp.W_in", "blocks.0.mlp.W_out"):
        for axis in (0, 1):
            kept = np.sort(changed[name].numpy(), axis) == np.sort(state[name].numpy(), axis)
            assert not kept.all(axis).any(), name  # no row and no column holds the numbers that it had


def test_only_the_chosen_neurons_are_permuted_among_each_other(cfg, random_state):
    state = random_state(cfg)
    changed = perturbed(Permute(), select("L0.mlp.N1 + L0.mlp.N4", cfg), state, 0)
    before, after = state["blocks.0.mlp.W_in"].numpy(), changed["blocks.0.mlp.W_in"].numpy()
    np.testing.assert_array_equal(after[:, [0, 2, 3, 5]], before[:, [0, 2, 3, 5]])
    np.testing.assert_array_equal(np.sort(after[:, [1, 4]].ravel()), np.sort(before[:, [1, 4]].ravel()))
    assert (np.sort(after[:, 1]) != np.sort(before[:, 1])).any()


def test_norm_matched_noise_keeps_each_blocks_norm_and_nothing_else(cfg, random_state):
    state = random_state(cfg)
    before, after = blocks(state, cfg), blocks(perturbed(NormMatchedNoise(), select("body", cfg), state, 0), cfg)
    for name, block in before.items():
        if ".ln" not in name:
            assert np.linalg.norm(after[name]) == pytest.approx(np.linalg.norm(block), rel=1e-5), name
    assert abs(correlation(before, after)) < 0.11


def test_spectrum_keeps_each_blocks_singular_values_in_other_bases(cfg, random_state):
    state = random_state(cfg)
    before, after = blocks(state, cfg), blocks(perturbed(Spectrum(), select("body", cfg), state, 0), cfg)
    for name, block in before.items():
        if ".ln" not in name:
            np.testing.assert_allclose(singular_values(after[name]), singular_values(block), rtol=1e-4, err_msg=name)
    assert abs(correlation(before, after)) < 0.11


def test_the_bases_of_spectrum_are_uniform(cfg):
    """One column of a Haar matrix [4, 4] has mean 0 and mean square 1/4 in every entry; raw QR fixes its signs."""
    rng = np.random.default_rng(0)
    draws = np.stack([Spectrum().of(np.eye(4), rng) for _ in range(2000)])
    np.testing.assert_allclose(draws @ draws.transpose(0, 2, 1), np.broadcast_to(np.eye(4), draws.shape), atol=1e-12)
    np.testing.assert_allclose(draws.mean(0), 0, atol=0.045)  # four standard errors
    np.testing.assert_allclose((draws**2).mean(0), 0.25, atol=0.02)
    columns = np.stack([Spectrum().of(np.ones(4), rng) for _ in range(2000)])
    np.testing.assert_allclose(np.linalg.norm(columns, axis=1), 2.0)
    np.testing.assert_allclose(columns.mean(0), 0, atol=0.09)


def test_noise_is_added_with_its_sigma(cfg, random_state):
    state = random_state(cfg)
    changed = perturbed(Noise(0.3), select("body", cfg), state, 0)
    added = torch.cat([(changed[name] - state[name]).flatten() for name in select("body", cfg).tensors()]).numpy()
    assert len(added) == select("body", cfg).n_parameters
    assert added.std() == pytest.approx(0.3, rel=0.1) and abs(added.mean()) < 0.04


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.kind)
def test_a_pure_function_of_seed_tensor_and_head(kind, cfg, random_state):
    state = random_state(cfg)
    all_heads = perturbed(kind, select("attn", cfg), state, 5)
    one_head = perturbed(kind, select("L1.H2", cfg), state, 5)
    for name in ("W_Q", "b_V", "W_O"):
        after, alone, before = (s[f"blocks.1.attn.{name}"] for s in (all_heads, one_head, state))
        assert torch.equal(alone[2], after[2])
        assert torch.equal(alone[[0, 1, 3]], before[[0, 1, 3]])
    assert not torch.equal(
        perturbed(kind, select("attn", cfg), state, 6)["blocks.1.attn.W_Q"], all_heads["blocks.1.attn.W_Q"]
    )


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.kind)
def test_each_tensor_and_each_head_draws_for_itself(kind, cfg):
    names = [f"blocks.{layer}.attn.{name}" for layer in (0, 1) for name in ("W_Q", "W_K")]
    state = {name: torch.arange(1.0, 17.0).view(8, 2).repeat(4, 1, 1) for name in names}
    selection = select("L0.H0.QK + L0.H1.QK + L1.H0.QK + L1.H1.QK", cfg)
    state |= {name.replace("W_", "b_"): torch.arange(1.0, 3.0).repeat(4, 1) for name in names}
    changed = perturbed(kind, selection, state, 0)
    drawn = {tuple(changed[name][head].flatten().tolist()) for name in names for head in (0, 1)}
    assert len(drawn) == 8


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.kind)
def test_the_global_generators_are_not_touched(kind, cfg, random_state):
    state = random_state(cfg)
    ours, theirs = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = {name: tensor.clone() for name, tensor in state.items()}
    perturbed(kind, select("all", cfg), state, 0)
    assert torch.equal(torch.get_rng_state(), ours) and np.random.get_state()[1].tolist() == theirs
    assert all(torch.equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=lambda kind: kind.kind)
def test_reads_back_from_json(kind):
    plain = kind.to_dict()
    assert plain["kind"] in {"permute", "noise", "norm-matched-noise", "spectrum"}
    assert Perturbation.from_dict(plain) == kind


def test_refused_settings():
    with pytest.raises(ConfigError, match=r"kind = 'permutation' is not allowed: .*did you mean 'permute'"):
        Perturbation.from_dict({"kind": "permutation"})
    for sigma in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="sigma"):
            Noise(sigma)


def test_zeros_stay_finite(cfg, random_state):
    """Biases start at zero: a norm of zero is matched by zeros, not by NaN."""
    state = {name: torch.zeros_like(tensor) for name, tensor in random_state(cfg).items()}
    for kind in (Permute(), NormMatchedNoise(), Spectrum()):
        changed = perturbed(kind, select("all", cfg), state, 0)
        assert all((tensor == 0).all() for tensor in changed.values())
