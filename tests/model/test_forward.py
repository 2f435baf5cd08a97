"""The training forward against the hooked reference, in float64, and the initialisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mechproc.model.forward import forward, loss_and_correct
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state, tensor_shapes

SCORED = [[6], [0, 3, 5], [2, 4, 5, 6], [1, 2]]
"""Positions with loss in each of four items: ragged, the first and the last position among them."""


def ragged():
    """``SCORED`` as ``Block.positions`` gives it: left-aligned, position 0 in the places that are not real."""
    width = max(map(len, SCORED))
    positions = torch.tensor([row + [0] * (width - len(row)) for row in SCORED])
    return positions, torch.tensor([[place < len(row) for place in range(width)] for row in SCORED])


def losses_and_gradients(state, cfg, inputs, targets):
    """Loss and gradients of the training forward, then of the hooked model with its loss summed item by item."""
    positions, real = ragged()
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in state.items()}
    loss, _ = loss_and_correct(forward(leaves, cfg, inputs, positions), targets.gather(1, positions), real)
    loss.backward()

    model = HookedTransformer(cfg, state, dtype=torch.float64)
    log_probs = model(inputs).log_softmax(-1)
    places = [(item, pos) for item, row in enumerate(SCORED) for pos in row]
    reference = -sum(log_probs[item, pos, targets[item, pos]] for item, pos in places) / len(places)
    reference.backward()
    gradients = {name: (leaf.grad, model.get_parameter(name).grad) for name, leaf in leaves.items()}
    return loss, reference, gradients


def test_logits_equal_the_reference_everywhere(cfg, random_state, random_inputs):
    state, inputs = random_state(cfg), random_inputs(cfg)
    reference = HookedTransformer(cfg, state, dtype=torch.float64)(inputs)
    assert reference.std() > 0.1
    torch.testing.assert_close(forward(state, cfg, inputs), reference, rtol=1e-12, atol=1e-12)


def test_logits_at_positions_in_any_order(cfg, random_state, random_inputs):
    state, inputs = random_state(cfg), random_inputs(cfg)
    positions = torch.tensor([[6, 0, 3], [3, 3, 1], [5, 2, 6], [0, 0, 0]])
    logits = forward(state, cfg, inputs, positions)
    reference = HookedTransformer(cfg, state, dtype=torch.float64)(inputs)
    expected = torch.stack([reference[item, row] for item, row in enumerate(positions)])
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


def test_gradients_equal_the_reference(cfg, random_state, random_inputs):
    targets = random_inputs(cfg.replace(input="tokens", d_input=None), seed=1)
    loss, reference, gradients = losses_and_gradients(random_state(cfg), cfg, random_inputs(cfg), targets)
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=0)
    assert gradients.keys() == tensor_shapes(cfg).keys()
    for name, (found, expected) in gradients.items():
        if name.endswith("b_K"):  # adds the same to every score of a query, so its true gradient is zero
            largest = gradients[name.replace("b_K", "b_Q")][1].abs().max()
            assert max(found.abs().max(), expected.abs().max()) < 1e-12 * largest
            continue
        size = expected.abs().max()
        assert size > 1e-4, f"{name} gets no gradient here: the comparison would be empty"
        assert (found - expected).abs().max() < 1e-12 * size, name


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_when_all_embeddings_are_equal(plain, bias, random_state, random_inputs):
    """The state in which a full transfer starts: every row of W_E is one vector, every column of W_U is one vector.

    All logits of a position are then equal, and the gradient that enters the residual stream is that vector times the
    sum of (probability - target), which is zero. Only the unembedding learns from the first step.
    """
    cfg = plain.replace(unembed_bias=bias)
    state, inputs = random_state(cfg), random_inputs(cfg)
    state["embed.W_E"] = state["embed.W_E"][:1].expand(cfg.d_vocab, -1).clone()
    state["unembed.W_U"] = state["unembed.W_U"][:, :1].expand(-1, cfg.d_vocab).clone()
    if bias:
        state["unembed.b_U"].fill_(0.3)
    targets = random_inputs(cfg, seed=1)
    loss, reference, gradients = losses_and_gradients(state, cfg, inputs, targets)
    assert loss.item() == pytest.approx(math.log(cfg.d_vocab), abs=1e-12)
    assert reference.item() == pytest.approx(math.log(cfg.d_vocab), abs=1e-12)
    learns = {name for name in gradients if name.startswith("unembed")}
    for name, (found, expected) in gradients.items():
        if name in learns:
            assert expected.abs().max() > 1e-2
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
        else:  # zero but for rounding, in both
            assert max(found.abs().max(), expected.abs().max()) < 1e-14, name


@pytest.mark.parametrize("at", [0, 3, 6])
def test_no_token_reaches_back(cfg, at, random_state, random_inputs):
    state, inputs = random_state(cfg), random_inputs(cfg)
    changed = inputs.clone()
    changed[:, at] = (inputs[:, at] + 1) % cfg.d_vocab
    model = HookedTransformer(cfg, state, dtype=torch.float64)
    every = torch.arange(inputs.shape[1]).expand(len(inputs), -1)
    for run in (model, lambda x: forward(state, cfg, x), lambda x: forward(state, cfg, x, every)):
        before, after = run(inputs), run(changed)
        assert torch.equal(before[:, :at], after[:, :at])
        moved = (before - after).abs().amax((0, 2))[at:]
        assert (moved > 1e-6).all(), "later positions can see the token, so they should differ"


def test_dropout_acts_at_each_site(cfg, random_state, random_inputs):
    """A dropout that scales by unit, position and site, beside hooks that do the same in the hooked model."""
    state, inputs = random_state(cfg), random_inputs(cfg)
    n_pos, last = inputs.shape[1], cfg.n_layers - 1
    strength = {"embed": 0.1, "pattern": 0.2, "attn_out": 0.3, "mlp_out": 0.4}

    def scaled(x, site, layer, positions):
        positions = torch.arange(n_pos).expand(len(x), -1) if positions is None else positions
        units = torch.arange(x[0, 0].numel(), dtype=x.dtype).view(x.shape[2:])
        by_position = positions.view(*positions.shape, *[1] * units.ndim)
        return x * (1 + strength[site] * torch.sin(units + 3 * by_position + 5 * layer))

    def hook(site, layer):
        if site == "pattern":  # [batch, head, query, key] here, [batch, query, head, key] there
            return lambda x, hook: scaled(x.transpose(1, 2), site, layer, None).transpose(1, 2)
        return lambda x, hook: scaled(x, site, layer, None)

    names = {"pattern": "attn.hook_pattern", "attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}
    fwd_hooks = [("blocks.0.hook_resid_pre", hook("embed", 0))]
    for site, name in names.items():
        if site != "mlp_out" or not cfg.attn_only:
            fwd_hooks += [(f"blocks.{layer}.{name}", hook(site, layer)) for layer in range(cfg.n_layers)]
    reference = HookedTransformer(cfg, state, dtype=torch.float64).run_with_hooks(inputs, fwd_hooks=fwd_hooks)

    seen = []

    def dropout(x, site, layer, positions):
        seen.append((site, layer, positions is not None))
        return scaled(x, site, layer, positions)

    positions, _ = ragged()
    logits = forward(state, cfg, inputs, positions, dropout)
    expected = torch.stack([reference[item, row] for item, row in enumerate(positions)])
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    assert [site for site, layer, _ in seen if layer == last and site != "embed"] == list(names)[: 3 - cfg.attn_only]
    assert {pruned for site, layer, pruned in seen if layer == last and site != "embed"} == {True}


def test_loss_and_correct_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [math.log(4), 0.0]], [[0.0, 0.0], [5.0, 0.0]]])
    targets, real = torch.tensor([[1, 1], [0, 0]]), torch.tensor([[True, True], [True, False]])
    loss, correct = loss_and_correct(logits, targets, real)
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(5) + math.log(2)) / 3)
    assert correct.tolist() == [[True, False], [True, False]]  # a tie goes to the first token; the last is not real


@pytest.mark.parametrize("n_layers", [1, 3])
def test_initialisation_is_gpt2s(plain, n_layers):
    cfg = plain.replace(n_layers=n_layers, d_model=64, n_heads=4, d_head=16, d_vocab=300, d_mlp=256, n_ctx=100)
    state = init_state(cfg.replace(init_std=0.05, unembed_bias=True), seed=3)
    for name, tensor in state.items():
        leaf = name.rpartition(".")[2]
        assert tensor.dtype is torch.float32
        if leaf == "w":
            assert (tensor == 1).all()
        elif not leaf.startswith("W_"):
            assert (tensor == 0).all(), name
        else:
            std = 0.05 / math.sqrt(2 * n_layers) if leaf in ("W_O", "W_out") else 0.05
            n = tensor.numel()
            assert tensor.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * n)), name
            assert abs(tensor.mean().item()) < 4 * std / math.sqrt(n), name
            assert (tensor.abs() > 2 * std).float().mean().item() == pytest.approx(0.0455, abs=0.02), "normal tails"


def test_each_tensor_is_drawn_on_its_own(plain):
    state = init_state(plain, seed=0)
    other = init_state(plain, seed=1)
    weights = [name for name in state if ".W_" in name]
    assert all(not torch.equal(state[name], other[name]) for name in weights)
    assert len({round(state[name].flatten()[0].item(), 9) for name in weights}) == len(weights)
    wider = init_state(plain.replace(d_mlp=99, d_vocab=50, unembed_bias=True), seed=0)
    kept = ["pos_embed.W_pos", "blocks.0.attn.W_Q", "blocks.1.attn.W_O"]
    assert all(torch.equal(state[name], wider[name]) for name in kept)


def test_initial_weights_never_change_unnoticed(plain):
    """The reason to raise MODEL_VERSION: a run's identity promises these numbers."""
    state = init_state(plain, seed=0)
    found = [state[name].flatten()[:2].tolist() for name in ("embed.W_E", "blocks.1.attn.W_O")]
    golden = [[-0.023322435, 0.0040337122], [0.0073356591, 0.01361436]]
    np.testing.assert_allclose(found, golden, rtol=1e-6, err_msg="init_state draws other numbers: raise MODEL_VERSION")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_of_half_precision_logits_is_computed_in_float32(plain, random_state, random_inputs, dtype):
    half = {name: tensor.to(dtype) for name, tensor in random_state(plain).items()}
    inputs, real = random_inputs(plain), torch.ones(4, 6, dtype=torch.bool)
    logits = forward(half, plain, inputs)
    loss, _ = loss_and_correct(logits[:, :-1], inputs[:, 1:], real)
    exact = torch.nn.functional.cross_entropy(logits[:, :-1].double().flatten(0, 1), inputs[:, 1:].flatten())
    assert loss.dtype is torch.float32 and loss.item() == pytest.approx(exact.item(), rel=1e-6)
    hooked = HookedTransformer(plain, half)(inputs, return_type="loss")
    assert hooked.dtype is torch.float32 and hooked.item() == pytest.approx(exact.item(), rel=1e-2)
