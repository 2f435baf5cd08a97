"""Checkpoints of nanoGPT: equal logits with a model that is built and saved as in its ``model.py`` and ``train.py``."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mechproc.errors import ConfigError, StoreError
from mechproc.model.convert.folder import read_content
from mechproc.model.convert.nanogpt import from_nanogpt, is_nanogpt
from mechproc.model.hooked import HookedTransformer

ARGS = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 9, "bias": True, "vocab_size": 11, "dropout": 0.1}


class LayerNorm(nn.Module):
    """nanoGPT's: its bias may be missing."""

    def __init__(self, width, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    def __init__(self, args, with_mask):
        super().__init__()
        width, length = args["n_embd"], args["block_size"]
        self.n_head = args["n_head"]
        self.c_attn = nn.Linear(width, 3 * width, bias=args["bias"])
        self.c_proj = nn.Linear(width, width, bias=args["bias"])
        if with_mask:  # without flash attention
            self.register_buffer("bias", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in self.c_attn(x).chunk(3, dim=-1))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.c_fc = nn.Linear(args["n_embd"], 4 * args["n_embd"], bias=args["bias"])
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * args["n_embd"], args["n_embd"], bias=args["bias"])

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, args, with_mask):
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(args["n_embd"], args["bias"]), LayerNorm(args["n_embd"], args["bias"])
        self.attn, self.mlp = Attention(args, with_mask), MLP(args)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, args, with_mask=False):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(args["vocab_size"], args["n_embd"]),
                "wpe": nn.Embedding(args["block_size"], args["n_embd"]),
                "h": nn.ModuleList(Block(args, with_mask) for _ in range(args["n_layer"])),
                "ln_f": LayerNorm(args["n_embd"], args["bias"]),
            }
        )
        self.lm_head = nn.Linear(args["n_embd"], args["vocab_size"], bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, tokens):
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


def trained(dtype=torch.float64, with_mask=False, **changes):
    """A nanoGPT whose every weight is random, and its checkpoint."""
    args = ARGS | changes
    with torch.random.fork_rng(devices=[]):
        model = GPT(args, with_mask).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype) / 2
    return model, {"model": model.state_dict(), "optimizer": {}, "model_args": args, "iter_num": 5, "config": {}}


@pytest.mark.parametrize("changes", [{}, {"bias": False}, {"with_mask": True}, {"n_layer": 3, "n_head": 4}])
def test_equal_logits(changes, plain, random_inputs):
    model, checkpoint = trained(**changes)
    cfg, state = from_nanogpt(checkpoint)
    assert cfg.tied_embeddings and cfg.act_fn == "gelu" and cfg.n_ctx == 9
    found = HookedTransformer(cfg, state)(random_inputs(plain))
    torch.testing.assert_close(found, model(random_inputs(plain)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_copies_in_their_dtype(dtype):
    model, checkpoint = trained(dtype)
    _, state = from_nanogpt(checkpoint)
    before = state["blocks.1.mlp.W_out"].clone()
    assert before.dtype is dtype and torch.equal(before, model.transformer.h[1].mlp.c_proj.weight.T)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.weight.zero_()
    assert torch.equal(state["blocks.1.mlp.W_out"], before)


def test_a_compiled_model_has_a_prefix(tmp_path, plain, random_inputs):
    model, checkpoint = trained()
    checkpoint["model"] = {f"_orig_mod.{name}": tensor for name, tensor in checkpoint["model"].items()}
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    with pytest.raises(StoreError, match="is a pickle"):
        read_content(tmp_path / "ckpt.pt")
    content = read_content(tmp_path / "ckpt.pt", allow_pickle=True)
    assert is_nanogpt(content) and not is_nanogpt(content["model"])
    found = HookedTransformer(*from_nanogpt(content))(random_inputs(plain))
    torch.testing.assert_close(found, model(random_inputs(plain)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model_args": ARGS | {"rope": True}}, "model_args.rope is not a setting"),
        ({"model_args": {"n_layer": 2}}, "model_args: n_head is missing"),
        ({"model_args": ARGS | {"n_head": 3}}, "n_heads = 3 is not allowed"),
        ({"model_args": ARGS | {"n_embd": 16}}, "ours: tensor wte.weight is (11, 8)"),
        ({"model_args": ARGS | {"n_layer": 3}}, "ours: has 2 layers, n_layer = 3"),
        ({"model_args": [1]}, "ours: model_args and model are not tables"),
        ({"model": {}}, "ours: tensor transformer.wte.weight is missing"),
    ],
)
def test_what_does_not_fit_is_refused(change, error):
    with pytest.raises((ConfigError, StoreError), match=f"^(model_args: )?{re.escape(error)}"):
        from_nanogpt(trained()[1] | change, "ours")
