"""HookedTransformer: its weights, its config, what it reads and what it returns."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
import torch

from mechproc.errors import ConfigError, PartError, StoreError
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state, n_parameters, tensor_shapes, weights_digest


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def message(error):
    return "^" + re.escape(error)


def test_state_round_trip(cfg, random_state):
    state = random_state(cfg)
    model = HookedTransformer(cfg, state, dtype=torch.float64)
    assert list(model.state_dict()) == list(model.state()) == list(tensor_shapes(cfg))
    assert sum(p.numel() for p in model.parameters()) == n_parameters(cfg)
    assert all(torch.equal(model.state()[name], state[name]) for name in state)
    other = random_state(cfg, seed=1)
    model.load_state(other)
    assert all(torch.equal(model.state()[name], other[name]) for name in state)


def test_weights_are_copied_in_and_out(plain):
    state = init_state(plain, 0)
    model = HookedTransformer(plain, state)
    state["embed.W_E"].fill_(9.0)
    model.state()["embed.W_E"].fill_(9.0)
    assert not (model.W_E == 9).any()


def test_a_fresh_model_is_init_state_of_its_seed(plain):
    before = torch.get_rng_state()
    found = HookedTransformer(plain, seed=4).state()
    assert torch.equal(torch.get_rng_state(), before), "the global generator is nobody's"
    assert all(torch.equal(found[name], tensor) for name, tensor in init_state(plain, 4).items())


def test_wrong_weights_are_refused(plain, model):
    state = init_state(plain, 0)
    with pytest.raises(StoreError, match=r"unembed\.b_U does not belong"):
        HookedTransformer(plain, state | {"unembed.b_U": torch.zeros(11)})
    with pytest.raises(StoreError, match=r"ln_final\.b of shape \[8\] is missing"):
        model.load_state({name: tensor for name, tensor in state.items() if name != "ln_final.b"})


def test_weights_keep_their_dtype_unless_it_is_asked_for(plain, random_state):
    state = random_state(plain)
    assert HookedTransformer(plain, state).cfg.dtype is torch.float64
    assert HookedTransformer(plain).cfg.dtype is torch.float32
    model = HookedTransformer(plain, state, dtype=torch.float32)
    assert model.cfg.dtype is torch.float32 and model.state()["embed.W_E"].dtype is torch.float32
    with pytest.raises(ConfigError, match=r"^dtype = torch\.float64 is not allowed: torch\.float32"):
        model.load_state(state)
    with pytest.raises(StoreError, match=r"ln_final\.b is torch\.float32"):
        HookedTransformer(plain, state | {"ln_final.b": state["ln_final.b"].float()})


def test_stacked_weights(plain, model):
    shapes = {"W_Q": (2, 2, 8, 4), "W_K": (2, 2, 8, 4), "W_V": (2, 2, 8, 4), "W_O": (2, 2, 4, 8), "b_Q": (2, 2, 4)}
    shapes |= {"b_K": (2, 2, 4), "b_V": (2, 2, 4), "b_O": (2, 8), "W_in": (2, 8, 32), "b_in": (2, 32)}
    shapes |= {"W_out": (2, 32, 8), "b_out": (2, 8), "W_E": (11, 8), "W_pos": (9, 8), "W_U": (8, 11), "b_U": (11,)}
    state = model.state()
    for name, shape in shapes.items():
        assert getattr(model, name).shape == shape
    for name in ("attn.W_Q", "attn.W_K", "attn.W_V", "attn.W_O", "attn.b_O", "mlp.W_in", "mlp.b_in", "mlp.W_out"):
        assert torch.equal(getattr(model, name.split(".")[1])[1], state[f"blocks.1.{name}"])
    assert (model.b_U == 0).all()
    with pytest.raises(PartError, match="W_in does not exist: this model has no MLPs"):
        _ = HookedTransformer(plain.replace(d_mlp=0)).W_in


def test_qk_and_ov_are_the_bilinear_form_and_the_map(model):
    state = model.state()
    for layer, head in [(0, 1), (1, 0)]:
        q, k, v, o = (state[f"blocks.{layer}.attn.W_{name}"][head] for name in "QKVO")
        same(model.QK[layer, head].AB, q @ k.T)
        same(model.OV[layer, head].AB, v @ o)
        same(model.blocks[layer].attn.QK[head].AB, q @ k.T)
        same(model.blocks[layer].attn.OV[head].AB, v @ o)


def test_tied_and_biased_unembeddings(plain, random_state, random_inputs):
    cfg = plain.replace(tied_embeddings=True, unembed_bias=True)
    state = random_state(cfg)
    model = HookedTransformer(cfg, state, dtype=torch.float64)
    assert torch.equal(model.W_U, state["embed.W_E"].T) and torch.equal(model.unembed.W_U, model.W_U)
    logits, cache = model.run_with_cache(random_inputs(cfg))
    read = cache["ln_final.hook_normalized"] * state["ln_final.w"] + state["ln_final.b"]
    same(logits, read @ state["embed.W_E"].T + state["unembed.b_U"])
    assert torch.equal(model.b_U, state["unembed.b_U"])


def test_accumulated_bias(model):
    s = model.state()
    first = s["blocks.0.attn.b_O"] + s["blocks.0.mlp.b_out"]
    same(model.accumulated_bias(0), torch.zeros(8, dtype=torch.float64))
    same(model.accumulated_bias(1), first)
    same(model.accumulated_bias(1, mlp_input=True), first + s["blocks.1.attn.b_O"])
    same(model.accumulated_bias(2, include_mlp_biases=False), s["blocks.0.attn.b_O"] + s["blocks.1.attn.b_O"])
    with pytest.raises(ConfigError, match="layer = 2"):
        model.accumulated_bias(2, mlp_input=True)


def test_cfg_is_the_model_config_and_more(plain, model):
    assert isinstance(model.cfg, ModelConfig) and model.cfg == plain and plain == model.cfg
    assert model.cfg != plain.replace(n_ctx=10)
    assert hash(model.cfg) == hash(plain) and model.cfg.digest() == plain.digest()
    assert HookedTransformer(model.cfg).cfg == plain
    assert model.cfg.d_vocab_out == 11 and model.cfg.n_key_value_heads is None
    for name in ("n_layers", "use_atn_result"):
        with pytest.raises(ConfigError, match=f"cfg.{name} cannot be set in a model: only device, dtype"):
            setattr(model.cfg, name, 3)


def test_dtype_follows_the_weights_and_copies_stand_alone(model, inputs):
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(inputs), model(inputs))
        twin.float()
        twin.set_use_attn_result(True)
        assert twin.cfg.dtype is torch.float32 and twin(inputs).dtype is torch.float32
        twin.run_with_hooks(inputs, fwd_hooks=[("blocks.1.attn.hook_result", lambda x, hook: None)])
    assert model.cfg.dtype is torch.float64 and not model.cfg.use_attn_result
    assert model.to("meta").cfg.device == torch.device("meta")


def test_what_a_model_shows(plain, model):
    text = repr(model)
    assert text.startswith("HookedTransformer\n  name: not named\n  layers: 2, each 2 heads of width 4 and MLPs of 32")
    assert f"parameters: {n_parameters(plain):,}, float64 on cpu" in text and text.count("\n") == 8
    assert f"weights: {weights_digest(plain, model.state_dict())[:12]}" in text
    assert "weights" not in model.to("meta").summary() and "weights" in model.to_empty(device="cpu").summary()
    named = HookedTransformer(
        plain.replace(d_mlp=0, tied_embeddings=True), name="<mine>", dtype=torch.float16, about={"rule": "<b>set</b>"}
    )
    assert "no MLPs" in repr(named) and "embeddings: tied" in repr(named) and "float16" in repr(named)
    shown = named._repr_html_()
    assert "<td>&lt;mine&gt;</td>" in shown and "<td>&lt;b&gt;set&lt;/b&gt;</td>" in shown
    assert shown.count("<tr>") == shown.count("</tr>") == len(named.summary())
    vectors = HookedTransformer(plain.replace(input="vectors", d_input=5, normalization_type=None))
    assert "vectors of 5, 11 logits" in repr(vectors) and "LayerNorms: none" in repr(vectors)
    assert named.process_weights().name == copy.deepcopy(named).name == "<mine>"
    assert "(LNPre)" in repr(named.process_weights())


def test_return_types(model, inputs):
    logits = model(inputs)
    log_probs = logits.log_softmax(-1)
    by_hand = torch.stack([torch.stack([-log_probs[i, p, inputs[i, p + 1]] for p in range(6)]) for i in range(4)])
    same(model(inputs, return_type="loss", loss_per_token=True), by_hand)
    same(model(inputs, return_type="loss"), by_hand.mean())
    both = model(inputs, return_type="both")
    assert torch.equal(both.logits, logits) and both.loss.item() == pytest.approx(by_hand.mean().item())
    assert model(inputs, return_type=None) is None
    same(model(inputs[0]), logits[:1])


@pytest.mark.parametrize(
    ("change", "wrong", "error"),
    [
        (
            {},
            "a b c",
            "inputs = 'a b c' is not allowed: a tensor or array of token numbers, as this model has no tokenizer",
        ),
        ({}, torch.zeros(2, 3), "inputs = 'torch.float32 (2, 3)' is not allowed: integers"),
        ({}, torch.zeros(2, 3, dtype=torch.bool), "inputs = 'torch.bool (2, 3)' is not allowed: integers"),
        ({}, torch.zeros(2, 3, 4, dtype=torch.long), "inputs = 'torch.int64 (2, 3, 4)' is not allowed: integers"),
        ({}, torch.zeros(2, 10, dtype=torch.long), "inputs = (2, 10) is not allowed: at most n_ctx = 9 positions"),
        ({}, torch.zeros(0, 3, dtype=torch.long), "inputs = (0, 3) is not allowed: at least one item"),
        ({}, torch.tensor([[3, 11]]), "inputs = [3, 11] is not allowed: tokens from 0 to 10"),
        ({}, torch.tensor([[-1, 3]]), "inputs = [-1, 3] is not allowed: tokens from 0 to 10"),
        (
            {"input": "vectors", "d_input": 5},
            torch.zeros(2, 3, 4),
            "inputs = 'torch.float32 (2, 3, 4)' is not allowed: float [batch, pos, 5]",
        ),
        (
            {"input": "vectors", "d_input": 5},
            torch.zeros(2, 3, dtype=torch.long),
            "inputs = 'torch.int64 (2, 3)' is not allowed: float",
        ),
    ],
)
def test_inputs_the_model_cannot_read(plain, change, wrong, error):
    model = HookedTransformer(plain.replace(**change))
    for attempt in (model, model.run_with_cache, model.run_with_hooks, model.to_tokens):
        with pytest.raises(ConfigError, match=message(error)):
            attempt(wrong)


def test_requests_that_mean_nothing(plain, model, inputs, random_inputs):
    vectors = plain.replace(input="vectors", d_input=5)
    model.set_use_split_qkv_input(True)
    attempts = {
        "return_type = 'logit'": lambda: model(inputs, return_type="logit"),
        "return_type = 'loss'": lambda: HookedTransformer(vectors)(random_inputs(vectors), return_type="loss"),
        "inputs = (4, 1)": lambda: model(inputs[:, :1], return_type="loss"),
        "remove_batch_dim = True": lambda: model.run_with_cache(inputs, remove_batch_dim=True),
        "pos_slice = -1": lambda: model.run_with_cache(inputs, pos_slice=-1),
        "token = 'x'": lambda: model.to_single_token("x"),
        "tokens = 'x'": lambda: model.tokens_to_residual_directions("x"),
    }
    for error, attempt in attempts.items():
        with pytest.raises(ConfigError, match=message(error)):
            attempt()


def test_residual_directions_are_columns_of_the_unembedding(model):
    tokens = torch.tensor([[1, 2, 3], [4, 5, 6]])
    folded = model.process_weights()
    directions = folded.tokens_to_residual_directions(tokens)
    assert directions.shape == (2, 3, 8)
    assert torch.equal(directions[1, 2], folded.state()["unembed.W_U"][:, 6])
    assert torch.equal(folded.tokens_to_residual_directions(6), directions[1, 2])
    assert torch.equal(folded.tokens_to_residual_directions(torch.tensor(6)), directions[1, 2])
    assert model.to_single_token(6) == 6 and torch.equal(model.to_tokens(tokens), tokens)


def test_a_procedure_s_arrays_are_read_as_they_are():
    cfg = ModelConfig(n_layers=1, n_heads=2, d_model=4, n_ctx=5, d_vocab=6)
    model = HookedTransformer(cfg, seed=0)
    tokens = np.array([[1, 2, 3], [4, 5, 0]])
    assert torch.equal(model(tokens), model(torch.from_numpy(tokens)))
