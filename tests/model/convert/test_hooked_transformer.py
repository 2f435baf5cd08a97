"""HookedTransformer's state dicts both ways: equal logits, with TransformerLens's own reading of them as the judge."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from mechproc.errors import ConfigError, StoreError
from mechproc.model.convert.folding import untied
from mechproc.model.convert.hooked_transformer import (
    KNOWN,
    REQUIRED,
    from_hooked_transformer,
    load_hooked_transformer,
    save_hooked_transformer,
    to_hooked_transformer,
)
from mechproc.model.hooked import HookedTransformer

BASE = {"n_layers": 2, "n_heads": 2, "d_model": 8, "d_head": 4, "n_ctx": 9, "d_vocab": 11, "act_fn": "gelu_new"}
SETTINGS_OF_3_9 = {
    "clip_qkv": None,
    "use_logn_attn": False,
    "train_seq_length": None,
    "use_dynamic_ntk_rope": False,
    "ungroup_grouped_query_attention": False,
    "rotary_base_local": None,
    "rotary_scaling_factor": 1.0,
    "quantization_method": None,
    "NTK_original_ctx_len": 8192,
    "use_yarn_rope": False,
    "yarn_factor": 1.0,
    "yarn_attention_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_original_max_position_embeddings": 4096,
    "yarn_truncate": True,
    "yarn_global_attn_only": False,
    "use_attention_sinks": False,
    "norm_topk_prob": False,
    "attn_scale": 2.0,
    "d_vocab_out": 11,
    "n_params": 1536,
}
"""What ``HookedTransformer(...).cfg.to_dict()`` of 3.9 holds besides what the bridge's config has, or otherwise."""


def settings_3_9(**changes):
    """All settings of a HookedTransformer of 3.9, defaults included."""
    return TransformerBridgeConfig(**BASE | {"d_mlp": 32}).to_dict() | SETTINGS_OF_3_9 | changes


def theirs(n_ctx=9, d_mlp=32, norm="LN", attn_only=False, mask="full", bias=True, dtype=torch.float64):
    """A state dict of HookedTransformer with random weights, in its order."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype) / 2

    def norm_of(name):
        return {f"{name}.w": random(8), f"{name}.b": random(8)} if norm == "LN" else {}

    state = {"embed.W_E": random(11, 8), "pos_embed.W_pos": random(n_ctx, 8)}
    for layer in range(2):
        block = f"blocks.{layer}"
        state |= norm_of(f"{block}.ln1") | ({} if attn_only else norm_of(f"{block}.ln2"))
        state |= {f"{block}.attn.W_Q": random(2, 8, 4), f"{block}.attn.W_O": random(2, 4, 8)}
        state |= {f"{block}.attn.b_Q": random(2, 4), f"{block}.attn.b_O": random(8)}
        state |= {f"{block}.attn.{w}_{x}": random(*s) for w, s in (("W", (2, 8, 4)), ("b", (2, 4))) for x in "KV"}
        sizes = {"full": n_ctx, "empty": 0}
        state[f"{block}.attn.mask"] = torch.ones(sizes[mask], sizes[mask], dtype=torch.bool).tril()
        state[f"{block}.attn.IGNORE"] = torch.tensor(-torch.inf)
        if not attn_only:
            state |= {f"{block}.mlp.W_in": random(8, d_mlp), f"{block}.mlp.b_in": random(d_mlp)}
            state |= {f"{block}.mlp.W_out": random(d_mlp, 8), f"{block}.mlp.b_out": random(8)}
    return state | norm_of("ln_final") | {"unembed.W_U": random(8, 11), "unembed.b_U": random(11) * bias}


CASES = {
    "LN": ({}, {}),
    "folded": ({"norm": "LNPre"}, {"normalization_type": "LNPre"}),
    "no LayerNorm": ({"norm": None}, {"normalization_type": None}),
    "no MLPs": ({"attn_only": True}, {"attn_only": True, "act_fn": None}),
    "relu, narrow": ({"d_mlp": 5}, {"d_mlp": 5, "act_fn": "relu"}),
    "mask of 3.9, no bias": ({"mask": "empty", "bias": False}, {}),
    "float32": ({"dtype": torch.float32}, {"act_fn": "gelu", "eps": 0.1}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_logits_are_those_of_transformer_lens(case, plain, random_inputs):
    made, changes = CASES[case]
    state_dict, settings, inputs = theirs(**made), settings_3_9(**changes), random_inputs(plain)
    cfg, state = from_hooked_transformer(state_dict, settings)
    dtype = made.get("dtype", torch.float64)
    bridge_settings = {name: value for name, value in changes.items() if value is not None or name != "act_fn"}
    bridge_cfg = TransformerBridgeConfig(**BASE | {"d_mlp": 32} | bridge_settings)
    bridge = TransformerBridge.boot_native(bridge_cfg, device="cpu", dtype=dtype)
    bridge.load_state_dict(convert_tl_checkpoint(state_dict, bridge_cfg))
    ours = HookedTransformer(cfg, state, dtype=dtype)(inputs)
    exact = dtype is torch.float64 and case != "folded"  # its folded LayerNorms compute in float32
    torch.testing.assert_close(ours, bridge.eval()(inputs), rtol=0, atol=1e-10 if exact else 1e-4)
    assert cfg.unembed_bias == made.get("bias", True)
    assert all(tensor.dtype is dtype and tensor.is_contiguous() for tensor in state.values())


def test_a_config_object_and_the_sizes_that_follow():
    cfg, _ = from_hooked_transformer(theirs(), TransformerBridgeConfig(**BASE))
    assert (cfg.d_mlp, cfg.n_heads, cfg.tied_embeddings) == (32, 2, False)
    assert cfg.init_std == pytest.approx(0.8 / 8**0.5)
    counted, _ = from_hooked_transformer(theirs(), BASE | {"n_heads": -1, "init_mode": "xavier_normal"})
    assert (counted.n_heads, counted.init_std) == (2, 0.02)


def test_the_weights_are_copies():
    state_dict = theirs()
    _, state = from_hooked_transformer(state_dict, BASE)
    state_dict["embed.W_E"].zero_()
    assert state["embed.W_E"].any()


def test_to_and_back(cfg, random_state):
    if cfg.input == "vectors":
        with pytest.raises(ConfigError, match=r"^input = 'vectors' is not allowed: 'tokens'"):
            to_hooked_transformer(cfg, random_state(cfg))
        return
    state = random_state(cfg)
    settings, state_dict = to_hooked_transformer(cfg, state)
    assert {"unembed.W_U", "unembed.b_U"} <= state_dict.keys()
    found_cfg, found = from_hooked_transformer(state_dict, settings)
    assert found_cfg == cfg and list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_and_settings_keep_the_dtype(plain, tmp_path, dtype, random_state):
    state = {name: tensor.to(dtype) for name, tensor in random_state(plain).items()}
    settings, state_dict = to_hooked_transformer(plain, state)
    assert settings["dtype"] is dtype and {t.dtype for t in state_dict.values()} == {dtype}
    save_hooked_transformer(tmp_path / "model", plain, state)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written.get("dtype", "float32") == str(dtype).removeprefix("torch.")
    _, found = load_hooked_transformer(tmp_path / "model")
    assert all(tensor.dtype is dtype and torch.equal(tensor, state[name]) for name, tensor in found.items())


def test_settings_are_written_as_the_help_says(tmp_path):
    """A dtype and a device are no JSON; ``default=str`` spells them."""
    state_dict = theirs()
    torch.save(state_dict, tmp_path / "model.pt")
    settings = settings_3_9(dtype=torch.float64, device=torch.device("cpu"))
    with (tmp_path / "model.json").open("w") as file:
        json.dump(settings, file, default=str)
    cfg, state = load_hooked_transformer(tmp_path / "model.pt", allow_pickle=True)
    assert cfg == from_hooked_transformer(state_dict, settings)[0]
    assert torch.equal(state["embed.W_E"], state_dict["embed.W_E"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_of_compiled_and_parallel_models(prefix):
    expected = from_hooked_transformer(theirs(), BASE)[1]
    found = from_hooked_transformer({prefix + name: tensor for name, tensor in theirs().items()}, BASE)[1]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_folded_model_stays_folded(plain, random_inputs):
    cfg, state = from_hooked_transformer(theirs(norm="LNPre"), BASE | {"normalization_type": "LNPre"})
    assert cfg.normalization_type == "LNPre" and not any(".ln" in name or name.startswith("ln") for name in state)


def test_every_setting_of_transformer_lens_is_known():
    assert TransformerBridgeConfig(**BASE).to_dict().keys() <= KNOWN
    assert settings_3_9().keys() <= KNOWN
    defaults = settings_3_9()
    assert {name: defaults.get(name, only) for name, only in REQUIRED.items()} == REQUIRED


def test_tied_embeddings_are_told_by_the_tensors(plain, random_state, random_inputs):
    settings, state_dict = to_hooked_transformer(plain, random_state(plain))
    cfg, state = from_hooked_transformer(state_dict, settings | {"tie_word_embeddings": True})
    assert cfg == plain and torch.equal(state["unembed.W_U"], state_dict["unembed.W_U"])
    tied = plain.replace(tied_embeddings=True)
    state, inputs = random_state(tied), random_inputs(tied)
    loose_cfg, loose = untied(tied, state)
    assert not loose_cfg.tied_embeddings and untied(loose_cfg, loose)[0] == loose_cfg
    before = HookedTransformer(tied, state, dtype=torch.float64)(inputs)
    torch.testing.assert_close(HookedTransformer(loose_cfg, loose, dtype=torch.float64)(inputs), before)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"positional_embedding_type": "rotary"}, "positional_embedding_type = 'rotary' is not allowed: 'standard'"),
        ({"normalization_type": "RMS"}, "normalization_type = 'RMS' is not allowed: 'LN', 'LNPre' (folded) or None"),
        ({"gated_mlp": True}, "gated_mlp = True is not allowed: False"),
        ({"n_key_value_heads": 1}, "n_key_value_heads = 1 is not allowed: n_heads = 2, or None"),
        ({"parallel_attn_mlp": True}, "parallel_attn_mlp = True"),
        ({"attention_dir": "bidirectional"}, "attention_dir = 'bidirectional' is not allowed: 'causal'"),
        ({"attn_scale": 1.0}, "attn_scale = 1.0 is not allowed: -1 or sqrt(d_head) = 2.0"),
        ({"attn_scale": "2"}, "attn_scale = '2' is not allowed: a number"),
        ({"use_attn_scale": False}, "use_attn_scale = False is not allowed: True"),
        ({"attn_scores_soft_cap": 50.0}, "attn_scores_soft_cap = 50.0 is not allowed: -1"),
        ({"output_logits_soft_cap": 30}, "output_logits_soft_cap = 30 is not allowed: -1"),
        ({"d_vocab_out": 10}, "d_vocab_out = 10 is not allowed: d_vocab = 11"),
        ({"act_fn": "solu_ln"}, "act_fn = 'solu_ln' is not allowed: one of 'gelu_new', 'gelu', 'relu'"),
        ({"act_fn": None}, "act_fn = None is not allowed: given unless attn_only"),
        ({"d_mlp": 0}, "d_mlp = 0 is not allowed: at least 1 unless attn_only"),
        ({"attn_only": "false"}, "attn_only = 'false' is not allowed: true or false"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no' is not allowed: true or false"),
        ({"initializer_range": float("inf")}, "initializer_range = inf is not allowed: a number, and finite"),
        ({"eps": float("inf")}, "eps = inf is not allowed: above 0 and finite"),
        ({"n_heads": -1, "d_head": 4, "d_model": float("inf")}, "d_model = inf is not allowed: a number, and finite"),
        ({"num_experts": 4}, "num_experts = 4 is not allowed: None"),
        ({"d_modell": 8}, "d_modell is not a setting of HookedTransformer that is known here; did you mean 'd_model'?"),
        ({"n_layers": "two"}, "n_layers = 'two' is not allowed"),
        ({"n_heads": -1, "d_head": "4"}, "d_head = '4' is not allowed: a number"),
        ({"n_heads": -1, "d_head": 0}, "n_heads = -1 is not allowed"),
    ],
)
def test_settings_our_models_cannot_follow(change, error):
    with pytest.raises(ConfigError, match=re.escape(error)) as raised:
        from_hooked_transformer(theirs(), BASE | change)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", REQUIRED)
def test_each_setting_that_changes_the_function_is_refused(name):
    with pytest.raises(
        ConfigError, match=f"^{name} = 'other' is not allowed: {re.escape(repr(REQUIRED[name]))} is all"
    ):
        from_hooked_transformer(theirs(), BASE | {name: "other"})


def without(state, *ends):
    return {name: tensor for name, tensor in state.items() if not name.endswith(ends)}


@pytest.mark.parametrize(
    ("change", "settings", "error"),
    [
        (lambda s: without(s, "b_Q"), {}, "tensor blocks.0.attn.b_Q of shape [2, 4] is missing"),
        (lambda s: s | {"hook_embed.w": torch.zeros(3)}, {}, "tensor hook_embed.w does not belong to a model of"),
        (lambda s: s | {"blocks.0.attn._W_K": torch.zeros(1, 8, 4)}, {}, "tensor blocks.0.attn._W_K does not belong"),
        (lambda s: theirs(n_ctx=12), {}, "tensor pos_embed.W_pos has shape [12, 8], the config asks for [9, 8]"),
        (lambda s: s, {"d_head": 2, "n_heads": 4}, "W_Q has shape [2, 8, 4], the config asks for [4, 8, 2]"),
        (lambda s: s, {"n_layers": 1000}, "has 2 layers, n_layers = 1000"),
        (lambda s: s, {"attn_only": True}, "tensor blocks.0.ln2.w does not belong"),
        (lambda s: s, {"normalization_type": "LNPre"}, "has LayerNorm weights, which a model of normalization_type"),
        (lambda s: theirs(norm="LNPre"), {}, "no LayerNorm weights; if they are folded, normalization_type is 'LNPre'"),
        (lambda s: s | {"blocks.1.attn.mask": torch.ones(9, 9)}, {}, "blocks.1.attn.mask is not the causal mask"),
        (lambda s: {}, {}, "has 0 layers, n_layers = 2"),
        (lambda s: {"transformer.wte.weight": torch.zeros(3)}, {}, "transformer.wte.weight is not a name of Hooked"),
        (
            lambda s: s | {"ln_final.b": s["ln_final.b"].float()},
            {},
            "tensor ln_final.b is torch.float32; all must have",
        ),
    ],
)
def test_tensors_that_do_not_fit(change, settings, error):
    with pytest.raises(StoreError, match="^state_dict: .*" + re.escape(error)):
        from_hooked_transformer(change(theirs()), BASE | settings)


def test_folders_round_trip(cfg, tmp_path, random_state):
    if cfg.input == "vectors":
        with pytest.raises(ConfigError):
            save_hooked_transformer(tmp_path / "model", cfg, random_state(cfg))
        assert not (tmp_path / "model").exists()
        return
    state = random_state(cfg)
    save_hooked_transformer(tmp_path / "model", cfg, state)
    for path in ("model", "model/model.safetensors"):
        found_cfg, found = load_hooked_transformer(tmp_path / path)
        assert found_cfg == cfg and all(torch.equal(found[name], state[name]) for name in state)
    # what TransformerLens makes of the two files
    theirs_cfg = TransformerBridgeConfig(**json.loads((tmp_path / "model" / "config.json").read_text()))
    bridge = TransformerBridge.boot_native(theirs_cfg, device="cpu")
    bridge.load_state_dict(convert_tl_checkpoint(load_file(tmp_path / "model" / "model.safetensors"), theirs_cfg))


def test_where_the_settings_are_found(tmp_path):
    save_file(theirs(), tmp_path / "a.safetensors")
    with pytest.raises(
        StoreError, match=r"settings are missing \(.*a\.json or .*config\.json does not exist; .*default=str"
    ):
        load_hooked_transformer(tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(BASE | {"act_fn": "gelu"}))
    assert load_hooked_transformer(tmp_path / "a.safetensors")[0].act_fn == "gelu"
    (tmp_path / "a.json").write_text(json.dumps(BASE | {"act_fn": "relu"}))
    assert load_hooked_transformer(tmp_path / "a.safetensors")[0].act_fn == "relu"
    (tmp_path / "other.json").write_text(json.dumps(BASE | {"act_fn": "swish"}))
    with pytest.raises(ConfigError, match=r"other\.json: config\.act_fn = 'swish'"):
        load_hooked_transformer(tmp_path / "a.safetensors", tmp_path / "other.json")
    with pytest.raises(StoreError, match=r"nothing\.json does not exist"):
        load_hooked_transformer(tmp_path / "a.safetensors", tmp_path / "nothing.json")
    with pytest.raises(StoreError, match=r"b\.safetensors does not exist"):
        load_hooked_transformer(tmp_path / "b.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"a\.safetensors cannot be read"):
        load_hooked_transformer(tmp_path / "a.safetensors")


class Hostile:
    def __reduce__(self):
        return (print, ("a pickle ran code",))


def test_pickles_are_read_only_when_told_to(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(BASE))
    torch.save(theirs(), tmp_path / "a.pt")
    with pytest.raises(StoreError, match=r"a\.pt is a pickle, read only with allow_pickle=True"):
        load_hooked_transformer(tmp_path / "a.pt")
    _, state = load_hooked_transformer(tmp_path / "a.pt", allow_pickle=True)
    assert torch.equal(state["embed.W_E"], theirs()["embed.W_E"])
    torch.save({"embed.W_E": Hostile()}, tmp_path / "a.pt")
    with pytest.raises(StoreError, match=r"a\.pt cannot be read"):
        load_hooked_transformer(tmp_path / "a.pt", allow_pickle=True)
    assert "ran code" not in capsys.readouterr().out


def test_nothing_is_overwritten(plain, random_state, tmp_path):
    save_hooked_transformer(tmp_path / "model", plain, random_state(plain))
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(StoreError, match="is not empty: choose a new folder"):
        save_hooked_transformer(tmp_path / "model", plain, random_state(plain, seed=1))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
