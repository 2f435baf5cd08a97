"""Models on disk: save and load are inverses, and nothing but a whole model is loaded."""

import errno
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save as safetensors_save

from mechproc.errors import StoreError
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model, read_tensors, save_model
from mechproc.model.state import State, init_state

CFG = ModelConfig(n_layers=1, n_heads=2, d_model=4, n_ctx=5, d_vocab=7, tied_embeddings=True, unembed_bias=True)


def bits(state: State) -> str:
    """A digest of every tensor's name and bytes."""
    whole = hashlib.sha256()
    for name in sorted(state):
        whole.update(name.encode() + state[name].numpy().tobytes())
    return whole.hexdigest()


@pytest.fixture
def state() -> State:
    return init_state(CFG, 3)


@pytest.fixture
def file(tmp_path: Path, state: State) -> Path:
    return save_model(tmp_path / "m.safetensors", CFG, state, {"steps": 7, "name": "ünï"})


def test_load_is_the_inverse_of_save_in_another_process(file: Path, state: State) -> None:
    code = (
        "import sys, json, hashlib; from mechproc.model.io import load_model\n"
        "cfg, state, metadata = load_model(sys.argv[1]); whole = hashlib.sha256()\n"
        "for name in sorted(state): whole.update(name.encode() + state[name].numpy().tobytes())\n"
        "print(json.dumps([cfg.to_dict(), whole.hexdigest(), metadata]))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [CFG.to_dict(), bits(state), {"steps": 7, "name": "ünï"}]


def test_float64_and_odd_values_keep_their_bits(tmp_path: Path, state: State) -> None:
    state = {name: t.double() for name, t in state.items()}
    state["embed.W_E"][0] = torch.tensor([-0.0, 5e-324, 1e308, 1 / 3], dtype=torch.float64)
    save_model(tmp_path / "m.safetensors", CFG, state)
    assert bits(load_model(tmp_path / "m.safetensors")[1]) == bits(state)


def test_views_are_saved_by_value(tmp_path: Path, state: State) -> None:
    flat = torch.arange(28.0)
    state["embed.W_E"] = flat[:28].view(4, 7).T
    save_model(tmp_path / "m.safetensors", CFG, state)
    assert load_model(tmp_path / "m.safetensors")[1]["embed.W_E"][1].tolist() == [1.0, 8.0, 15.0, 22.0]


def test_equal_models_make_equal_files(tmp_path: Path, file: Path, state: State) -> None:
    again = save_model(tmp_path / "again.safetensors", CFG, state, {"name": "ünï", "steps": 7})
    assert again.read_bytes() == file.read_bytes()


def test_a_folder_gets_the_usual_name(tmp_path: Path, state: State) -> None:
    assert save_model(tmp_path, CFG, state) == tmp_path / "model.safetensors"
    assert bits(load_model(tmp_path)[1]) == bits(state)


def test_loaded_weights_do_not_change_with_the_file(file: Path, state: State) -> None:
    _, loaded, _ = load_model(file)
    with file.open("r+b") as opened:
        opened.seek(-16, os.SEEK_END)
        opened.write(b"\xff" * 16)
    assert bits(loaded) == bits(state)


def test_nan_loads_with_a_warning(tmp_path: Path, state: State) -> None:
    state["pos_embed.W_pos"][2, 1] = torch.nan
    save_model(tmp_path / "m.safetensors", CFG, state)
    with pytest.warns(RuntimeWarning, match=r"m\.safetensors: pos_embed\.W_pos has values that are not finite"):
        _, loaded, _ = load_model(tmp_path / "m.safetensors")
    assert loaded["pos_embed.W_pos"].isnan().sum() == 1


def test_a_full_disk_keeps_the_old_model(file: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        save_model(file, CFG, {name: t + 1 for name, t in state.items()})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def header_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors, without the checksum, so that other checks are reached."""
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    plain = json.loads(header["__metadata__"]["mechproc"])
    text = json.dumps({key: value for key, value in plain.items() if key not in ("layout", "checksum")})
    return header | {"__metadata__": {"mechproc": text}}, raw[8 + length :]


def with_header(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_text(raw: bytes, text: str) -> bytes:
    """The file with another ``mechproc`` entry."""
    header, data = header_of(raw)
    header["__metadata__"] = {"mechproc": text}
    return with_header(header, data)


def with_config(raw: bytes, **changes: Any) -> bytes:
    header, _ = header_of(raw)
    plain = json.loads(header["__metadata__"]["mechproc"])
    plain["config"] |= changes
    return with_text(raw, json.dumps(plain))


def other_offsets(raw: bytes) -> bytes:
    header, data = header_of(raw)
    header["embed.W_E"]["data_offsets"] = [0, 10**12]
    return with_header(header, data)


HOSTILE = {
    "empty": lambda raw: b"",
    "text": lambda raw: b"hello, this is no model at all, but it is long enough to have a header",
    "pickle": lambda raw: pickle.dumps({"W": np.ones(3)}),
    "truncated header": lambda raw: raw[:40],
    "truncated data": lambda raw: raw[:-5],
    "too long": lambda raw: raw + b"more",
    "huge header": lambda raw: struct.pack("<Q", 2**63 - 1) + raw[8:],
    "offsets outside": other_offsets,
    "not ours": lambda raw: safetensors_save({"W": np.ones(3, dtype=np.float32)}),
    "text is no JSON": lambda raw: with_text(raw, "{"),
    "deep JSON": lambda raw: with_text(raw, "[" * 100_000),
    "JSON list": lambda raw: with_text(raw, "[1]"),
    "another kind": lambda raw: with_text(raw, '{"kind": "resume"}'),
    "no config": lambda raw: with_text(raw, '{"kind": "model", "metadata": {}}'),
    "unknown setting": lambda raw: with_config(raw, n_layer=1),
    "impossible setting": lambda raw: with_config(raw, n_heads=0),
    "other shape": lambda raw: with_config(raw, d_vocab=8),
    "a billion layers": lambda raw: with_config(raw, n_layers=10**9),
    "fewer tensors": lambda raw: with_config(raw, n_layers=2),
    "more tensors": lambda raw: with_config(raw, unembed_bias=False),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_one_line(file: Path, name: str) -> None:
    file.write_bytes(HOSTILE[name](file.read_bytes()))
    with pytest.raises(StoreError, match=r"m\.safetensors") as error:
        load_model(file)
    assert "\n" not in str(error.value)


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    for name, content in {"raw": pickle.dumps(Touch()), "zip": b""}.items():
        file = tmp_path / f"{name}.safetensors"
        if name == "zip":
            torch.save(Touch(), file)
        else:
            file.write_bytes(content)
        with pytest.raises(StoreError):
            load_model(file)
    assert not (tmp_path / "executed").exists()


def test_flipped_bits_are_refused(file: Path, state: State) -> None:
    """Or they change nothing, as a bit of the padding does."""
    raw, intact = np.frombuffer(file.read_bytes(), dtype=np.uint8), load_model(file)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        broken = raw.copy()
        broken[rng.integers(0, len(raw))] ^= 1 << rng.integers(0, 8)
        file.write_bytes(broken.tobytes())
        try:
            cfg, found, metadata = load_model(file)
            assert (cfg, bits(found), metadata) == (intact[0], bits(intact[1]), intact[2])
        except StoreError:
            refused += 1
    assert refused > 190


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    state = {name: t.to(dtype) for name, t in state.items()}
    save_model(tmp_path / "m.safetensors", CFG, state)
    _, found, _ = load_model(tmp_path / "m.safetensors")
    assert all(found[name].dtype is dtype and torch.equal(found[name], t) for name, t in state.items())


def test_other_dtypes_are_refused_both_ways(file: Path, state: State) -> None:
    with pytest.raises(StoreError, match=r"embed\.W_E is torch\.int64"):
        save_model(file, CFG, {name: t.to(torch.int64) for name, t in state.items()})
    with pytest.raises(StoreError, match=r"ln_final\.w is torch\.float64"):
        save_model(file, CFG, state | {"ln_final.w": state["ln_final.w"].double()})
    header, data = header_of(file.read_bytes())
    header["ln_final.b"]["dtype"] = "I32"
    file.write_bytes(with_header(header, data))
    with pytest.raises(StoreError, match=r"ln_final\.b is torch\.int32"):
        load_model(file)


def test_missing_files_folders_and_wrong_weights(tmp_path: Path, state: State) -> None:
    with pytest.raises(StoreError, match=r"nothing\.safetensors does not exist"):
        load_model(tmp_path / "nothing.safetensors")
    with pytest.raises(StoreError, match=r"model\.safetensors does not exist"):
        load_model(tmp_path)
    with pytest.raises(StoreError):
        read_tensors(tmp_path)
    del state["ln_final.w"]
    with pytest.raises(StoreError, match=r"ln_final\.w of shape \[4\] is missing"):
        save_model(tmp_path, CFG, state)
    assert list(tmp_path.iterdir()) == []
