"""The hooks of HookedTransformer: their names, their shapes, and what reading and editing each of them means."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mechproc.model.convert.bridge import to_bridge
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer

ATTENTION = ["hook_q", "hook_k", "hook_v", "hook_attn_scores", "hook_pattern", "hook_z"]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def replaced(value):
    """A hook that puts ``value`` in place of the activation."""
    return lambda activation, hook: value


def switch_all_on(model):
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    model.set_use_attn_in(True)
    model.set_use_hook_mlp_in(True)


def test_hook_names(cfg):
    attention = [f"attn.{name}" for name in (*ATTENTION, "hook_result")]
    block = ["hook_resid_pre", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", *attention]
    block += ["hook_attn_out", "hook_resid_post"]
    if not cfg.attn_only:
        block += ["hook_resid_mid", "hook_mlp_in", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out"]
    names = {"hook_embed", "hook_pos_embed", *(f"blocks.{n}.{name}" for n in range(cfg.n_layers) for name in block)}
    if cfg.normalization_type is not None:
        norms = ["ln_final", *(f"blocks.{n}.ln1" for n in range(cfg.n_layers))]
        norms += [] if cfg.attn_only else [f"blocks.{n}.ln2" for n in range(cfg.n_layers)]
        names |= {f"{norm}.{hook}" for norm in norms for hook in ("hook_scale", "hook_normalized")}
    assert set(HookedTransformer(cfg).hook_dict) == names


def test_shapes_of_activations(cfg, random_inputs):
    model = HookedTransformer(cfg)
    switch_all_on(model)
    batch, pos, heads, d_head, width = 4, 7, cfg.n_heads, cfg.d_head, cfg.d_model
    by_name = dict.fromkeys(["hook_q", "hook_k", "hook_v", "hook_z"], (batch, pos, heads, d_head))
    by_name |= dict.fromkeys(["hook_attn_scores", "hook_pattern"], (batch, heads, pos, pos))
    by_head = ["hook_result", "hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"]
    by_name |= dict.fromkeys(by_head, (batch, pos, heads, width))
    by_name |= dict.fromkeys(["hook_pre", "hook_post"], (batch, pos, cfg.d_mlp))
    _, cache = model.run_with_cache(random_inputs(cfg))
    assert set(cache) == set(model.hook_dict)
    for name, activation in cache.items():
        expected = by_name.get(name.rpartition(".")[2], (batch, pos, width))
        if ".ln1." in name:
            expected = (batch, pos, heads, width)
        assert activation.shape == ((*expected[:-1], 1) if name.endswith("hook_scale") else expected), name


def test_switches_and_empty_hooks_change_nothing(cfg, random_state, random_inputs):
    model = HookedTransformer(cfg, random_state(cfg), dtype=torch.float64)
    inputs = random_inputs(cfg)
    logits = model(inputs)
    assert torch.equal(model.run_with_hooks(inputs, fwd_hooks=[(lambda name: True, lambda x, hook: x)]), logits)
    switch_all_on(model)
    same(model(inputs), logits)


def test_layer_norm_by_hand(plain, model, inputs):
    """``hook_normalized`` is TransformerLens's since 3.0: before weight and bias."""
    state = model.state()
    _, cache = model.run_with_cache(inputs)
    for norm, read in [("blocks.0.ln1", "blocks.0.hook_resid_pre"), ("blocks.1.ln2", "blocks.1.hook_resid_mid")]:
        x = cache[read]
        same(cache[f"{norm}.hook_scale"], (x.var(-1, unbiased=False, keepdim=True) + plain.eps).sqrt())
        same(cache[f"{norm}.hook_normalized"], F.layer_norm(x, (8,), eps=plain.eps))
    weight, bias, W_U = state["ln_final.w"], state["ln_final.b"], state["unembed.W_U"]
    same(model(inputs), (cache["ln_final.hook_normalized"] * weight + bias) @ W_U)
    halved = model.run_with_hooks(inputs, fwd_hooks=[("ln_final.hook_scale", lambda scale, hook: scale * 2)])
    same(halved - bias @ W_U, (model(inputs) - bias @ W_U) / 2)
    zeroed = model.run_with_hooks(inputs, fwd_hooks=[("ln_final.hook_normalized", lambda x, hook: x * 0)])
    same(zeroed, (bias @ W_U).expand(4, 7, 11))


@pytest.mark.parametrize("norm", ["LN", "LNPre"])
def test_the_normalized_activations_are_those_of_transformer_lens(plain, random_state, random_inputs, norm):
    cfg = plain.replace(normalization_type=norm)
    state, inputs = random_state(cfg), random_inputs(cfg)
    model, bridge = HookedTransformer(cfg, state, dtype=torch.float64), to_bridge(cfg, state)
    if norm == "LN":
        bridge.enable_compatibility_mode(no_processing=True)
    ours, theirs = model.run_with_cache(inputs)[1], bridge.run_with_cache(inputs)[1]
    for name in ("blocks.0.ln1", "blocks.1.ln2", "ln_final"):
        for hook in ("hook_scale", "hook_normalized"):
            found, expected = ours[f"{name}.{hook}"], theirs[f"{name}.{hook}"]
            torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", ["LN", "LNPre"])
def test_layer_norm_of_large_values_in_half_precision(plain, random_state, random_inputs, norm, dtype):
    """The squares of values above 255 overflow in float16; the final LayerNorm then read inf and wrote 0."""
    cfg = plain.replace(normalization_type=norm)
    state = random_state(cfg)
    state["embed.W_E"] *= 1000
    exact = HookedTransformer(cfg, state, dtype=torch.float64)(random_inputs(cfg))
    half = {name: tensor.to(dtype) for name, tensor in state.items()}
    logits, cache = HookedTransformer(cfg, half, dtype=dtype).run_with_cache(random_inputs(cfg))
    assert logits.dtype is dtype and cache["ln_final.hook_scale"].isfinite().all()
    trained = forward(half, cfg, random_inputs(cfg))
    for found in (logits, trained):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=0.05 * exact.abs().max().item())


def test_attention_by_hand(model, inputs):
    """One head at one query, from the cached input on, in plain sums."""
    state = {
        name.removeprefix("blocks.1.attn."): w for name, w in model.state().items() if name.startswith("blocks.1.attn")
    }
    _, cache = model.run_with_cache(inputs)
    norm = model.blocks[1].ln1
    x = (cache["blocks.1.ln1.hook_normalized"] * norm.w + norm.b)[2].detach()
    head, query = 1, 4
    q = x[query] @ state["W_Q"][head] + state["b_Q"][head]
    keys = [x[key] @ state["W_K"][head] + state["b_K"][head] for key in range(query + 1)]
    values = [x[key] @ state["W_V"][head] + state["b_V"][head] for key in range(query + 1)]
    scores = [float(q @ key) / math.sqrt(4) for key in keys]
    pattern = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
    found = cache["blocks.1.attn.hook_attn_scores"][2, head, query]
    assert found[: query + 1].tolist() == pytest.approx(scores, rel=1e-12)
    assert (found[query + 1 :] == -torch.inf).all()
    assert cache["blocks.1.attn.hook_pattern"][2, head, query, : query + 1].tolist() == pytest.approx(
        pattern, rel=1e-10
    )
    z = sum(weight * value for weight, value in zip(pattern, values, strict=True))
    same(cache["blocks.1.attn.hook_z"][2, query, head], z)
    result = sum(cache["blocks.1.attn.hook_z"][2, query, h] @ state["W_O"][h] for h in range(2))
    same(cache["blocks.1.hook_attn_out"][2, query], result + state["b_O"])


def test_residual_stream_adds_up(model, inputs):
    _, cache = model.run_with_cache(inputs)
    same(cache["blocks.0.hook_resid_pre"], cache["hook_embed"] + cache["hook_pos_embed"])
    for layer in range(2):
        block = f"blocks.{layer}"
        mid = cache[f"{block}.hook_resid_pre"] + cache[f"{block}.hook_attn_out"]
        same(cache[f"{block}.hook_resid_mid"], mid)
        same(cache[f"{block}.hook_resid_post"], mid + cache[f"{block}.hook_mlp_out"])


def test_edited_scores_go_through_the_softmax(model, inputs):
    """Scores that leave head 0 nothing but key 0: every query of it then reads the value at position 0."""

    def first_key_only(scores, hook):
        scores = scores.clone()
        scores[:, 0, :, 1:] = -torch.inf
        return scores

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_attn_scores", first_key_only)]):
        logits, cache = model.run_with_cache(inputs)
    assert (cache["blocks.0.attn.hook_pattern"][:, 0, :, 0] == 1).all()
    value = cache["blocks.0.attn.hook_v"][:, :1, 0]
    same(cache["blocks.0.attn.hook_z"][:, :, 0], value.expand(-1, 7, -1))
    assert (logits - model(inputs)).abs().max() > 1e-3


def test_a_query_without_keys_attends_to_nothing(model, inputs):
    blocked = ("blocks.0.attn.hook_attn_scores", lambda scores, hook: scores - torch.inf)
    with model.hooks(fwd_hooks=[blocked]):
        logits, cache = model.run_with_cache(inputs)
        model(inputs, return_type="loss").backward()  # through the blocked scores too
    assert (cache["blocks.0.attn.hook_pattern"] == 0).all()
    same(cache["blocks.0.hook_attn_out"], model.state()["blocks.0.attn.b_O"].expand(4, 7, 8))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()) and logits.isfinite().all()


def test_nan_is_not_hidden_by_the_softmax(model, inputs):
    logits = model.run_with_hooks(inputs, fwd_hooks=[("blocks.0.attn.hook_q", lambda q, hook: q * torch.nan)])
    assert logits.isnan().all()


def test_edited_pattern_weighs_the_values(model, inputs):
    uniform = torch.full((4, 2, 7, 7), 1 / 7, dtype=torch.float64)
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", replaced(uniform))]):
        _, cache = model.run_with_cache(inputs)
    same(cache["blocks.1.attn.hook_z"], cache["blocks.1.attn.hook_v"].mean(1, keepdim=True).expand(-1, 7, -1, -1))


def test_results_by_head_add_up_and_can_be_removed(model, inputs):
    def without_head_1(activation, hook):
        activation = activation.clone()
        activation[:, :, 1] = 0
        return activation

    by_z = model.run_with_hooks(inputs, fwd_hooks=[("blocks.0.attn.hook_z", without_head_1)])
    model.set_use_attn_result(True)
    _, cache = model.run_with_cache(inputs)
    total = cache["blocks.0.attn.hook_result"].sum(2) + model.state()["blocks.0.attn.b_O"]
    same(total, cache["blocks.0.hook_attn_out"])
    by_result = model.run_with_hooks(inputs, fwd_hooks=[("blocks.0.attn.hook_result", without_head_1)])
    same(by_result, by_z)
    assert (by_z - model(inputs)).abs().max() > 1e-3


@pytest.mark.parametrize("which", "qkv")
def test_split_inputs_reach_one_reader_of_one_head(plain, model, inputs, which):
    _, before = model.run_with_cache(inputs)
    model.set_use_split_qkv_input(True)

    def push(activation, hook):  # in place, which must not reach the other readers
        activation[:, 2, 1] += torch.arange(8)

    with torch.no_grad(), model.hooks(fwd_hooks=[(f"blocks.1.hook_{which}_input", push)]):
        _, after = model.run_with_cache(inputs)
    for other in {"q", "k", "v"} - {which}:
        same(after[f"blocks.1.attn.hook_{other}"], before[f"blocks.1.attn.hook_{other}"])
    same(after["blocks.1.hook_resid_pre"], before["blocks.1.hook_resid_pre"])
    state, norm = model.state(), "blocks.1.ln1"
    pushed = before["blocks.1.hook_resid_pre"][:, 2] + torch.arange(8)
    x = F.layer_norm(pushed, (8,), state[f"{norm}.w"], state[f"{norm}.b"], plain.eps)
    expected = before[f"blocks.1.attn.hook_{which}"].clone()
    name = which.upper()
    expected[:, 2, 1] = x @ state[f"blocks.1.attn.W_{name}"][1] + state[f"blocks.1.attn.b_{name}"][1]
    same(after[f"blocks.1.attn.hook_{which}"], expected)


def test_attn_in_reaches_all_readers_of_one_head(model, inputs):
    _, before = model.run_with_cache(inputs)
    model.set_use_attn_in(True)

    def push(activation, hook):
        activation[:, :, 0] += torch.arange(8)

    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.0.hook_attn_in", push)]):
        _, after = model.run_with_cache(inputs)
    for which in "qkv":
        moved = (after[f"blocks.0.attn.hook_{which}"] - before[f"blocks.0.attn.hook_{which}"]).abs().amax((0, 1, 3))
        assert moved[0] > 1e-3 and moved[1] < 1e-12
    same(after["blocks.0.hook_resid_pre"], before["blocks.0.hook_resid_pre"])


def test_mlp_in_reaches_the_mlp_alone(model, inputs):
    _, before = model.run_with_cache(inputs)
    model.set_use_hook_mlp_in(True)
    push = ("blocks.0.hook_mlp_in", lambda x, hook: x.add_(torch.arange(8)))
    with torch.no_grad(), model.hooks(fwd_hooks=[push]):
        _, after = model.run_with_cache(inputs)
    same(after["blocks.0.hook_resid_mid"], before["blocks.0.hook_resid_mid"])
    change = after["blocks.0.hook_mlp_out"] - before["blocks.0.hook_mlp_out"]
    assert change.abs().max() > 1e-3
    same(after["blocks.0.hook_resid_post"], before["blocks.0.hook_resid_post"] + change)
