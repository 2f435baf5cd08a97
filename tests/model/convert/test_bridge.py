"""TransformerLens's own model both ways: equal logits, equal weights, and a refusal for what one side cannot hold."""

from __future__ import annotations

import re

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

from mechproc.errors import ConfigError, StoreError
from mechproc.model.convert.bridge import from_bridge, to_bridge
from mechproc.model.convert.folding import untied
from mechproc.model.hooked import HookedTransformer

BASE = {"d_model": 8, "d_head": 4, "n_layers": 2, "n_ctx": 9, "n_heads": 2, "d_vocab": 11, "d_mlp": 32}


def native(**changes):
    """A bridge in float32 whose every weight is random."""
    bridge = TransformerBridge.boot_native(TransformerBridgeConfig(**BASE | changes), device="cpu")
    return randomised(bridge).eval()


def randomised(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 2
    return module


def around_gpt2(**settings):
    """A bridge around a GPT-2 of ``transformers``, as ``boot_transformers`` makes it."""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 9, "vocab_size": 11}
    with torch.random.fork_rng(devices=[]):
        model = randomised(GPT2LMHeadModel(GPT2Config(**sizes | settings)).eval())
    return build_bridge_from_module(model, architecture="GPT2LMHeadModel", hf_config=model.config, device="cpu")


def same(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_to_bridge_and_back(cfg, random_state, random_inputs):
    state, inputs = random_state(cfg), random_inputs(cfg)
    before = torch.get_rng_state()
    if cfg.input == "vectors" or cfg.tied_embeddings:
        field = "tied_embeddings = True" if cfg.tied_embeddings else "input = 'vectors'"
        with pytest.raises(ConfigError, match=f"^{field} is not allowed: "):
            to_bridge(cfg, state)
        return
    bridge = to_bridge(cfg, state)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is nobody's"
    assert not bridge.training
    same(bridge(inputs), HookedTransformer(cfg, state, dtype=torch.float64)(inputs))
    found_cfg, found = from_bridge(bridge)
    assert found_cfg == cfg and list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_tied_embeddings_once_untied(plain, random_state, random_inputs):
    tied = plain.replace(tied_embeddings=True)
    state, inputs = random_state(tied), random_inputs(tied)
    same(to_bridge(*untied(tied, state))(inputs), HookedTransformer(tied, state, dtype=torch.float64)(inputs))


def test_weights_are_copied_both_ways(plain, random_state):
    state = random_state(plain)
    bridge = to_bridge(plain, state)
    _, found = from_bridge(bridge)
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter.zero_()
    for name, tensor in random_state(plain).items():
        assert torch.equal(state[name], tensor) and torch.equal(found[name], tensor), name


def test_all_but_the_bias_of_the_logits_is_trained(plain, random_state, random_inputs):
    cfg = plain.replace(unembed_bias=True)
    bridge = to_bridge(cfg, random_state(cfg))
    bridge(random_inputs(cfg)).logsumexp(-1).sum().backward()
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter -= parameter.grad
    _, found = from_bridge(bridge)
    kept = [name for name, tensor in random_state(cfg).items() if torch.equal(found[name], tensor)]
    assert kept == ["unembed.b_U"]


FOLLOWED = {
    "LN": lambda: native(act_fn="gelu_new"),
    "any spelling": lambda: native(act_fn="GELU_NEW", normalization_type="ln"),
    "its own defaults": lambda: native(act_fn=None),
    "folded": lambda: native(normalization_type="LNPre"),
    "no LayerNorm": lambda: native(normalization_type=None),
    "no MLPs": lambda: native(attn_only=True),
    "odd heads": lambda: native(n_heads=3, d_head=5),
    "around GPT-2": around_gpt2,
    "around GPT-2, untied": lambda: around_gpt2(tie_word_embeddings=False, activation_function="relu"),
}


@pytest.mark.parametrize("made", FOLLOWED)
def test_from_bridge(made, plain, random_inputs):
    bridge, inputs = FOLLOWED[made](), random_inputs(plain)
    cfg, state = from_bridge(bridge)
    logits = bridge(inputs)
    same(HookedTransformer(cfg, state)(inputs), logits, atol=1e-5 * logits.abs().max().item())
    assert cfg.attn_only == (made == "no MLPs")
    assert cfg.tied_embeddings == (made == "around GPT-2")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_keep_their_dtype(plain, dtype, random_state):
    state = {name: tensor.to(dtype) for name, tensor in random_state(plain).items()}
    bridge = to_bridge(plain, state)
    assert {parameter.dtype for parameter in bridge.parameters()} == {dtype}
    _, found = from_bridge(bridge)
    assert all(tensor.dtype is dtype and torch.equal(tensor, state[name]) for name, tensor in found.items())


@pytest.mark.parametrize("make", [lambda: native(act_fn="gelu"), around_gpt2])
def test_processed_weights(make, plain, random_inputs):
    """What ``enable_compatibility_mode`` folds and centres: other weights, and logits that differ by a constant."""
    bridge, inputs = make(), random_inputs(plain)
    bridge.enable_compatibility_mode()
    cfg, state = from_bridge(bridge)
    same(HookedTransformer(cfg, state)(inputs), bridge(inputs), atol=1e-4)
    assert not cfg.tied_embeddings


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"normalization_type": "RMS"}, "normalization_type = 'RMS'"),
        ({"final_rms": True}, "final_rms = True"),
        ({"positional_embedding_type": "rotary"}, "positional_embedding_type = 'rotary'"),
        ({"gated_mlp": True}, "gated_mlp = True"),
        ({"n_key_value_heads": 1}, "n_key_value_heads = 1"),
        ({"act_fn": "solu_ln"}, "config.act_fn = 'solu_ln'"),
        ({"attn_scale": 3.0}, "attn_scale = 3.0"),
        ({"attention_dir": "bidirectional"}, "attention_dir = 'bidirectional'"),
        ({"output_logits_soft_cap": 3.0}, "output_logits_soft_cap = 3.0"),
        ({"d_vocab_out": 7}, "d_vocab_out = 7"),
    ],
)
def test_our_models_cannot_follow(changes, error):
    with pytest.raises(ConfigError, match=f"^{re.escape(error)} is not allowed: "):
        from_bridge(native(**{"act_fn": "gelu"} | changes))


def test_other_models_are_refused(model):
    with pytest.raises(ConfigError, match=r"^bridge = 'HookedTransformer' is not allowed: a TransformerBridge"):
        from_bridge(model)


def test_logits_that_differ_are_an_error():
    bridge = native(act_fn="gelu")
    bridge.add_hook("hook_embed", lambda activation, hook: activation * 0)
    with pytest.raises(StoreError, match="logits differ from those of the weights read from it, by up to"):
        from_bridge(bridge)
    bridge.reset_hooks()
    from_bridge(bridge)
    with pytest.raises(StoreError, match="training mode"):
        from_bridge(around_gpt2(resid_pdrop=0.5).train())
