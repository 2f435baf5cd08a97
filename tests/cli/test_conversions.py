"""``model import`` and ``export``: what is written is read again, what cannot be is one line, nothing overwritten."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechproc.cli import main
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model, save_model
from mechproc.model.state import State, tensor_shapes
from mechproc.pretrained import pretrained_weights

CFG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=9, d_vocab=11)


def weights(cfg: ModelConfig) -> State:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in tensor_shapes(cfg).items()}


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return save_model(tmp_path / "ours.safetensors", CFG, weights(CFG), {"steps": 3})


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert err == "" if code == 0 else (out == "" and err.startswith("mechproc: ") and err.count("\n") == 1)
    return code, out, err


def same_model(file: Path, cfg: ModelConfig) -> None:
    found_cfg, found, _ = load_model(file)
    assert found_cfg == cfg and all(torch.equal(found[name], tensor) for name, tensor in weights(cfg).items())


@pytest.mark.parametrize("to", ["gpt2", "tl"])
@pytest.mark.parametrize("tied", [False, True])
def test_export_and_import_are_inverses(tmp_path, capsys, to, tied):
    cfg = CFG.replace(tied_embeddings=tied)
    file = save_model(tmp_path / "ours.safetensors", cfg, weights(cfg))
    code, out, _ = call(capsys, "model", "export", file, tmp_path / "there", "--to", to)
    assert code == 0 and out.startswith(f"{tmp_path / 'there'}: 2 layers, 2 heads, d_model 8, ")
    assert out.endswith(" parameters, tied embeddings\n" if tied else " parameters\n")
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["config.json", "model.safetensors"]
    code, out, _ = call(capsys, "model", "import", tmp_path / "there", tmp_path / "back.safetensors")
    assert code == 0 and out.startswith(f"{tmp_path / 'back.safetensors'}: 2 layers")
    same_model(tmp_path / "back.safetensors", cfg)
    assert load_model(tmp_path / "back.safetensors")[2] == {"imported_from": "there"}


def test_a_state_dict_of_torch_save_with_its_settings_elsewhere(tmp_path, ours, capsys):
    assert call(capsys, "model", "export", ours, tmp_path / "tl", "--to", "tl")[0] == 0
    torch.save(load_file(tmp_path / "tl" / "model.safetensors"), tmp_path / "model.pt")
    (tmp_path / "tl" / "config.json").rename(tmp_path / "settings.json")
    arguments = ["model", "import", tmp_path / "model.pt", tmp_path / "back.safetensors"]
    assert "is a pickle, read only with" in call(capsys, *arguments)[2]
    assert "its settings are missing" in call(capsys, *arguments, "--allow-pickle")[2]
    arguments += ["--config", tmp_path / "settings.json"]
    assert "is a pickle, read only with" in call(capsys, *arguments)[2]
    assert not (tmp_path / "back.safetensors").exists()
    assert call(capsys, *arguments, "--allow-pickle")[0] == 0
    same_model(tmp_path / "back.safetensors", CFG)


def test_a_checkpoint_of_nanogpt_and_other_files_of_torch_save(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 9, "vocab_size": 11}
    linear = {"attn.c_attn": (24, 8), "attn.c_proj": (8, 8), "mlp.c_fc": (32, 8), "mlp.c_proj": (8, 32)}
    shapes = {"wte": (11, 8), "wpe": (9, 8), "ln_f": (8,), "h.0.ln_1": (8,), "h.0.ln_2": (8,)}
    shapes |= {f"h.0.{name}": shape for name, shape in linear.items()}
    model = {f"transformer.{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    model["lm_head.weight"] = model["transformer.wte.weight"]
    torch.save({"model": model, "model_args": sizes | {"bias": False, "dropout": 0.0}}, tmp_path / "ckpt.pt")
    out = tmp_path / "out.safetensors"
    assert "is a pickle, read only with" in call(capsys, "model", "import", tmp_path / "ckpt.pt", out)[2]
    assert call(capsys, "model", "import", tmp_path / "ckpt.pt", out, "--allow-pickle")[0] == 0
    cfg, state, _ = load_model(out)
    assert cfg.tied_embeddings and torch.equal(state["blocks.0.mlp.W_in"], model["transformer.h.0.mlp.c_fc.weight"].T)
    torch.save({"state_dict": model, "epoch": 3}, tmp_path / "other.pt")
    (tmp_path / "other.json").write_text(json.dumps({"n_layers": 1, "d_model": 8}))
    err = call(capsys, "model", "import", tmp_path / "other.pt", tmp_path / "new.safetensors", "--allow-pickle")[2]
    assert "does not hold named tensors" in err and "state_dict, epoch" in err


def test_the_dtype_is_kept_and_printed(tmp_path, capsys):
    state = {name: tensor.bfloat16() for name, tensor in weights(CFG).items()}
    file = save_model(tmp_path / "ours.safetensors", CFG, state)
    for to in ("gpt2", "tl"):
        assert call(capsys, "model", "export", file, tmp_path / to, "--to", to)[1].endswith(" parameters, bfloat16\n")
        code, out, _ = call(capsys, "model", "import", tmp_path / to, tmp_path / f"{to}.safetensors")
        assert code == 0 and out.endswith(" parameters, bfloat16\n")
        found = load_model(tmp_path / f"{to}.safetensors")[1]
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_folder_of_a_model_can_be_exported(tmp_path, capsys):
    save_model(tmp_path, CFG, weights(CFG))
    assert call(capsys, "model", "export", tmp_path, tmp_path / "there", "--to", "gpt2")[0] == 0


def test_a_donor_can_be_exported(tmp_path, capsys):
    assert main(["model", "export", "sort:3", str(tmp_path / "out"), "--to", "tl"]) == 0
    assert main(["model", "import", str(tmp_path / "out"), str(tmp_path / "back.safetensors")]) == 0
    cfg, state = pretrained_weights("sort", 3)
    _, back, _ = load_model(tmp_path / "back.safetensors")
    assert torch.equal(back["embed.W_E"], state["embed.W_E"]) and cfg.tied_embeddings
    capsys.readouterr()
    assert main(["model", "export", "sort:99", str(tmp_path / "new"), "--to", "tl"]) == 1
    assert "seed = 99 is not allowed" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path, ours, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes").write_text("mine")
    for to in ("gpt2", "tl"):
        assert (
            "there is not empty: choose a new folder"
            in call(capsys, "model", "export", ours, tmp_path / "there", "--to", to)[2]
        )
        assert "cannot be written: it is a file" in call(capsys, "model", "export", ours, ours, "--to", to)[2]
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["notes"]
    assert call(capsys, "model", "export", ours, tmp_path / "new", "--to", "tl")[0] == 0
    before = ours.read_bytes()
    assert (
        "is not allowed: a file that does not exist yet" in call(capsys, "model", "import", tmp_path / "new", ours)[2]
    )
    assert ours.read_bytes() == before


def test_what_the_other_side_cannot_hold_is_one_line(tmp_path, capsys):
    cfg = CFG.replace(input="vectors", d_input=3)
    file = save_model(tmp_path / "ours.safetensors", cfg, weights(cfg))
    for to, name in (("gpt2", "GPT-2"), ("tl", "HookedTransformer")):
        code, _, err = call(capsys, "model", "export", file, tmp_path / "there", "--to", to)
        assert code == 1 and f"input = 'vectors' is not allowed: 'tokens', as {name} reads nothing else" in err
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_not_a_model_is_one_line(tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert "a folder or file that exists" in call(capsys, "model", "import", tmp_path / "nowhere", out)[2]
    assert "config.json cannot be read" in call(capsys, "model", "import", tmp_path, out)[2]
    for settings, says in (
        ({"model_type": "llama"}, "model_type = 'llama' is not allowed: 'gpt2'"),
        ({"n_layers": 1, "d_model": 8}, "model.safetensors does not exist"),
        ({}, "n_layer is missing"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(settings))
        assert says in call(capsys, "model", "import", tmp_path, out)[2]
    save_file({"blocks.0.w": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_layers": 1, "d_model": 8, "gated_mlp": True}))
    assert "gated_mlp = True is not allowed" in call(capsys, "model", "import", tmp_path, out)[2]
    assert (
        "cannot be read" in call(capsys, "model", "export", tmp_path / "config.json", tmp_path / "x", "--to", "tl")[2]
    )
    assert not out.exists() and not (tmp_path / "x").exists()
