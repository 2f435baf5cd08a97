"""GPT-2 of ``transformers`` both ways: equal logits, equal weights, and a refusal for what one side cannot hold."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from mechproc.errors import ConfigError, StoreError
from mechproc.model.convert.gpt2 import DEFAULTS, REQUIRED, from_gpt2, load_gpt2, save_gpt2, to_gpt2
from mechproc.model.hooked import HookedTransformer

SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 9, "vocab_size": 11}
HELD = [{}, {"tied_embeddings": True}, {"n_layers": 1}, {"d_mlp": 7, "act_fn": "relu"}, {"act_fn": "gelu", "eps": 0.1}]


def gpt2(**settings):
    """A GPT-2 in float64 whose every weight is random, LayerNorms and biases included."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = GPT2LMHeadModel(GPT2Config(**SIZES | settings, attn_implementation="eager")).double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return model


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def states_equal(found, expected):
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"tie_word_embeddings": False},
        {},
        {"n_inner": 13, "activation_function": "relu", "initializer_range": 0.1},
        {"activation_function": "gelu", "layer_norm_epsilon": 0.1, "n_layer": 3},
    ],
)
def test_from_gpt2(plain, settings, random_inputs):
    theirs = gpt2(**settings)
    cfg, state = from_gpt2(theirs)
    assert (cfg.n_layers, cfg.d_mlp, cfg.d_head) == (settings.get("n_layer", 2), settings.get("n_inner", 32), 4)
    assert cfg.tied_embeddings == settings.get("tie_word_embeddings", True)
    assert cfg.init_std == settings.get("initializer_range", 0.02)
    inputs = random_inputs(plain)
    same(HookedTransformer(cfg, state, dtype=torch.float64)(inputs), theirs(inputs).logits)
    back = to_gpt2(cfg, state).state_dict()
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("change", HELD)
def test_to_gpt2_and_back(plain, change, random_state, random_inputs):
    cfg = plain.replace(**change)
    state, inputs = random_state(cfg), random_inputs(cfg)
    before = torch.get_rng_state()
    theirs = to_gpt2(cfg, state)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is nobody's"
    assert not theirs.training and theirs.dtype is torch.float64
    same(theirs(inputs).logits, HookedTransformer(cfg, state, dtype=torch.float64)(inputs))
    theirs.set_attn_implementation("eager")
    logits = theirs(inputs).logits
    same(logits, HookedTransformer(cfg, state, dtype=torch.float64)(inputs))
    assert torch.equal(theirs.train()(inputs).logits, logits), "no dropout"
    found_cfg, found = from_gpt2(theirs)
    assert found_cfg == cfg and states_equal(found, state)


def test_weights_are_copied(plain, random_state):
    state = random_state(plain)
    theirs = to_gpt2(plain, state)
    _, found = from_gpt2(theirs)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    assert states_equal(found, state) and all(tensor.is_contiguous() for tensor in found.values())


@pytest.mark.parametrize("change", HELD)
def test_folders_round_trip(plain, change, tmp_path, random_state, random_inputs):
    cfg = plain.replace(**change)
    state, inputs = random_state(cfg), random_inputs(cfg)
    save_gpt2(tmp_path / "ours", cfg, state)
    found_cfg, found = load_gpt2(tmp_path / "ours")
    assert found_cfg == cfg and states_equal(found, state)
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (written["architectures"], written["dtype"]) == (["GPT2LMHeadModel"], "float64")
    theirs, info = GPT2LMHeadModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()) and theirs.dtype is torch.float64
    same(theirs.eval()(inputs).logits, HookedTransformer(cfg, state, dtype=torch.float64)(inputs))
    theirs.save_pretrained(tmp_path / "theirs")
    found_cfg, found = load_gpt2(tmp_path / "theirs")
    assert found_cfg == cfg and states_equal(found, state)


def test_oldest_checkpoints(plain, tmp_path, random_state):
    """As on the hub: no prefix, causal masks among the tensors, hardly anything in the config, a pickle."""
    cfg = plain.replace(tied_embeddings=True)
    state = random_state(cfg)
    tensors = {name.removeprefix("transformer."): t for name, t in to_gpt2(cfg, state).state_dict().items()}
    tensors |= {f"h.{layer}.attn.bias": torch.ones(1, 1, 9, 9) for layer in range(2)}
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    del tensors["lm_head.weight"]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"} | SIZES))
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(StoreError, match=r"pytorch_model\.bin is a pickle, read only with allow_pickle=True"):
        load_gpt2(tmp_path)
    found_cfg, found = load_gpt2(tmp_path, allow_pickle=True)
    assert found_cfg == cfg and states_equal(found, state)


def test_what_a_config_leaves_out_is_gpt2s_default():
    config = GPT2Config()
    assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
    assert {name: getattr(config, name, True) for name in REQUIRED} == REQUIRED  # is_causal is not among its own


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"normalization_type": None}, "normalization_type = None"),
        ({"d_mlp": 0}, "d_mlp = 0"),
        ({"input": "vectors", "d_input": 5}, "input = 'vectors'"),
        ({"unembed_bias": True}, "unembed_bias = True"),
        ({"d_head": 5}, "d_head = 5"),
    ],
)
def test_gpt2_cannot_hold(plain, change, error, tmp_path, random_state):
    cfg = plain.replace(**change)
    for attempt in (lambda s: to_gpt2(cfg, s), lambda s: save_gpt2(tmp_path / "new", cfg, s)):
        with pytest.raises(ConfigError, match=f"^{re.escape(error)} is not allowed"):
            attempt(random_state(cfg))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"scale_attn_weights": False}, "scale_attn_weights = False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn = True"),
        ({"add_cross_attention": True}, "add_cross_attention = True"),
        ({"is_causal": False}, "is_causal = False"),
        ({"activation_function": "silu"}, "activation_function = 'silu'"),
        ({"model_type": "gpt_neo"}, "model_type = 'gpt_neo'"),
    ],
)
def test_our_models_cannot_follow(settings, error, tmp_path):
    save_gpt2(tmp_path / "model", *from_gpt2(gpt2()))
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(ConfigError, match=f"^{re.escape(error)} is not allowed"):
        load_gpt2(tmp_path / "model")
    if "model_type" not in settings:
        with pytest.raises(ConfigError, match=f"^{re.escape(error)} is not allowed"):
            from_gpt2(gpt2(**settings))


def test_models_that_are_not_language_models():
    untied = gpt2(tie_word_embeddings=False)
    with pytest.raises(StoreError, match=r"GPT2Model: tensor lm_head\.weight is missing"):
        from_gpt2(untied.transformer)
    assert isinstance(untied.transformer, GPT2Model)


@pytest.fixture
def folder(plain, tmp_path, random_state):
    save_gpt2(tmp_path / "model", plain, random_state(plain))
    return tmp_path / "model"


def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: without(t, "transformer.ln_f.bias"), r"tensor ln_f\.bias is missing, the config asks for \(8,\)"),
        (lambda t: t | {"extra": torch.zeros(3)}, r"tensor extra is \(3,\), the config asks for none"),
        (
            lambda t: t | {"transformer.wpe.weight": torch.zeros(8, 8)},
            r"wpe\.weight is \(8, 8\), .* \(9, 8\)",
        ),
        (lambda t: {}, "has 0 layers, n_layer = 2"),
        (lambda t: t | {"wte.weight": torch.zeros(11, 8)}, r"has wte\.weight twice"),
        (
            lambda t: t | {"transformer.ln_f.bias": torch.zeros(8).half()},
            r"ln_final\.b is torch\.float16; all must have one",
        ),
    ],
)
def test_tensors_that_do_not_fit(folder, change, error):
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(StoreError, match=error):
        load_gpt2(folder)


def test_settings_that_do_not_fit(folder):
    config = json.loads((folder / "config.json").read_text())
    attempts = {
        "n_embd is missing": without(config, "n_embd"),
        "n_heads = 3 is not allowed": config | {"n_head": 3},
        "n_layers = 'two' is not allowed": config | {"n_layer": "two"},
        "n_inner = 0 is not allowed": config | {"n_inner": 0},
        "eps = 0.0 is not allowed: above 0 and finite": config | {"layer_norm_epsilon": 0.0},
        "n_layers = 1000000000000 is not allowed: at most": config | {"n_layer": 10**12},
        "tie_word_embeddings = True is not allowed: False, as lm_head.weight": config | {"tie_word_embeddings": True},
    }
    for error, settings in attempts.items():
        (folder / "config.json").write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match=re.escape(error)):
            load_gpt2(folder)
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 1000}))
    with pytest.raises(StoreError, match="has 2 layers, n_layer = 1000"):
        load_gpt2(folder)
    (folder / "config.json").write_text(json.dumps(config | {"n_embd": 10**4}))
    with pytest.raises(StoreError, match=r"wte\.weight is .* the config asks for \(\d+, 10000\)"):
        load_gpt2(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_dtype(plain, tmp_path, dtype, random_state):
    state = {name: tensor.to(dtype) for name, tensor in random_state(plain).items()}
    theirs = to_gpt2(plain, state)
    save_gpt2(tmp_path / "ours", plain, state)
    read = GPT2LMHeadModel.from_pretrained(tmp_path / "ours")
    read.save_pretrained(tmp_path / "theirs")
    assert theirs.dtype is dtype and read.dtype is dtype
    for found in (from_gpt2(theirs), from_gpt2(read), load_gpt2(tmp_path / "ours"), load_gpt2(tmp_path / "theirs")):
        assert states_equal(found[1], state)
    assert HookedTransformer(plain, state).cfg.dtype is dtype


@pytest.mark.parametrize("pickled", [False, True])
def test_shards(plain, tmp_path, random_state, pickled):
    """As ``transformers`` writes a large model: several files, and an index of what each of them holds."""
    state, folder = random_state(plain), tmp_path / "shards"
    to_gpt2(plain, state).save_pretrained(folder, max_shard_size="2KB")
    index = folder / "model.safetensors.index.json"
    if pickled:  # of transformers before 5
        names = {path.name: f"pytorch_{path.stem}.bin" for path in folder.glob("model-*.safetensors")}
        plain_index = json.loads(index.read_text())
        plain_index["weight_map"] = {name: names[shard] for name, shard in plain_index["weight_map"].items()}
        for shard, name in names.items():
            torch.save(load_file(folder / shard), folder / name)
            (folder / shard).unlink()
        index.unlink()
        index = folder / "pytorch_model.bin.index.json"
        index.write_text(json.dumps(plain_index))
        with pytest.raises(StoreError, match=r"pytorch_model-00001-of-.*\.bin is a pickle"):
            load_gpt2(folder)
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 2
    found_cfg, found = load_gpt2(folder, allow_pickle=pickled)
    assert found_cfg == plain and states_equal(found, state)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: m | {"transformer.wte.weight": "../model.safetensors"}, "weight_map is not a table of tensors and"),
        (lambda m: m | {"transformer.wte.weight": 3}, "weight_map is not a table"),
        (lambda m: {}, "weight_map is not a table"),
        (lambda m: m | {"extra": next(iter(m.values()))}, "tensor extra is not in model-000"),
        (
            lambda m: without(m, "transformer.wpe.weight"),
            "has tensor transformer.wpe.weight, which model",
        ),
        (lambda m: m | {"transformer.wpe.weight": "gone.safetensors"}, "gone.safetensors cannot be read: No such file"),
    ],
)
def test_shards_that_do_not_fit_their_index(plain, tmp_path, random_state, change, error):
    to_gpt2(plain, random_state(plain)).save_pretrained(tmp_path, max_shard_size="2KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"weight_map": change(content["weight_map"])}))
    with pytest.raises(StoreError, match=re.escape(error)):
        load_gpt2(tmp_path)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_compiled_and_parallel_models(plain, folder, prefix):
    _, expected = load_gpt2(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    found_cfg, found = load_gpt2(folder)
    assert found_cfg == plain and states_equal(found, expected)


class Hostile:
    def __reduce__(self):
        return (print, ("a pickle ran code",))


def test_broken_and_hostile_files(folder, tmp_path, capsys, plain, random_state):
    whole = (folder / "model.safetensors").read_bytes()
    for broken in (whole[:100], whole[:-5], b"", b"\xff" * 64):
        (folder / "model.safetensors").write_bytes(broken)
        with pytest.raises(StoreError, match=r"model\.safetensors cannot be read"):
            load_gpt2(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        load_gpt2(folder)
    torch.save({"transformer.wte.weight": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(StoreError, match=r"pytorch_model\.bin cannot be read: not plain tensors \(UnpicklingError\)$"):
        load_gpt2(folder, allow_pickle=True)
    for wrong in ([1, 2], {"h.0": 3}, {3: torch.zeros(2)}):
        torch.save(wrong, folder / "pytorch_model.bin")
        with pytest.raises(StoreError, match="does not hold named tensors and nothing else"):
            load_gpt2(folder, allow_pickle=True)
    assert "ran code" not in capsys.readouterr().out
    for text in ("{", "[1]", "\udcff"):
        (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(StoreError, match=r"config\.json"):
            load_gpt2(folder)
    with pytest.raises(StoreError, match=r"config\.json cannot be read"):
        load_gpt2(tmp_path / "nowhere")


def test_nothing_is_overwritten(folder, plain, random_state, tmp_path):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(StoreError, match="is not empty: choose a new folder"):
        save_gpt2(folder, plain, random_state(plain, seed=1))
    assert (folder / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        save_gpt2(tmp_path / "file", plain, random_state(plain))
