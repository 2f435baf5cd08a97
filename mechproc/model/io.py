"""Models on disk: one safetensors file each, the config inside it.

The tensors of a ``State`` stand under their own names. The file's metadata has one entry, ``mechproc``, whose value is
JSON: ``{"kind": "model", "config": {...}, "metadata": {...}, "layout": 2, "checksum": "..."}``. One entry only, so that
equal models make equal bytes. ``checksum`` is the SHA-256 of the rest of the JSON and of all tensors; every reader
refuses a file that does not have its checksum. Files without a ``layout`` are older and have none. Nothing here ever
reads a pickle.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mechproc.config import canonical_json
from mechproc.errors import ConfigError, StoreError
from mechproc.files import atomic_write
from mechproc.model.config import ModelConfig
from mechproc.model.state import State, check_state
from mechproc.reading import parse_json, require_regular

MODEL_FILE = "model.safetensors"
"""The name of a model's file in a folder."""
LAYOUT = 2
"""Of the JSON; files of this layout have a checksum."""


def save_model(path: str | Path, cfg: ModelConfig, state: State, metadata: dict[str, Any] | None = None) -> Path:
    """Write a model atomically and return its file; ``load_model`` is the inverse, bit for bit.

    ``path`` names the file, or a folder that exists, which gets a ``model.safetensors``. ``metadata`` is any JSON
    object. Raises ``StoreError`` when the weights do not fit ``cfg`` or the file cannot be written.
    """
    path = _file(path)
    atomic_write(path, model_bytes(cfg, state, metadata, str(path)))
    return path


def model_bytes(cfg: ModelConfig, state: State, metadata: dict[str, Any] | None = None, source: str = "") -> bytes:
    """What ``save_model`` writes; equal models make equal bytes."""
    check_state(state, cfg, source=source)
    return _bytes(state, {"kind": "model", "config": cfg.to_dict(), "metadata": metadata or {}})


def load_model(path: str | Path) -> tuple[ModelConfig, State, dict[str, Any]]:
    """Read a model: its config, its weights and the metadata it was saved with.

    Raises ``StoreError`` for whatever is not a whole model. Weights that are not finite are loaded with a
    ``RuntimeWarning`` that names the first such tensor, so that a model whose training diverged can be examined.
    """
    path = _file(path)
    state, header = read_tensors(path)
    if header.get("kind") != "model" or not isinstance(header.get("metadata"), dict):
        raise StoreError(f"{path} does not hold a model (kind = {header.get('kind')!r})")
    try:
        cfg = ModelConfig.from_dict(header.get("config"), where="config")
    except ConfigError as error:
        raise StoreError(f"{path}: {error}") from error
    if cfg.n_layers > len(state):  # before names are generated for a number that was read from a file
        raise StoreError(f"{path}: n_layers = {cfg.n_layers}, but the file has {len(state)} tensors")
    check_state(state, cfg, source=str(path))
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            warnings.warn(f"{path}: {name} has values that are not finite", RuntimeWarning, stacklevel=2)
            break
    return cfg, state, header["metadata"]


def write_tensors(path: str | Path, tensors: State, header: dict[str, Any]) -> None:
    """Write named tensors and a JSON object as one safetensors file with its checksum, atomically."""
    atomic_write(path, _bytes(tensors, header))


def _bytes(tensors: State, header: dict[str, Any]) -> bytes:
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    header = header | {"layout": LAYOUT}
    text = canonical_json(header | {"checksum": _checksum(copies, header)})
    return save(copies, {"mechproc": text})


def read_tensors(path: str | Path) -> tuple[State, dict[str, Any]]:
    """Read the tensors and the JSON object of a file of ``write_tensors``; ``StoreError`` for any other file, and for
    one that was changed."""
    if not Path(path).exists():
        raise StoreError(f"{path} does not exist")
    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("mechproc")
            if text is None:
                raise StoreError(f"{path} is a safetensors file, but not one of mechproc's (no 'mechproc' metadata)")
            # clones, because tensors still backed by the file would change or crash with it
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        header = parse_json(text)
    except StoreError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(f"{path} cannot be read as safetensors: {reason}") from error
    if not isinstance(header, dict):
        raise StoreError(f"{path}: the 'mechproc' metadata is not a JSON object")
    written, layout = header.pop("checksum", None), header.get("layout")
    if (layout is not None or written is not None) and written != _checksum(tensors, header):
        raise StoreError(f"{path} was changed or damaged: it does not have its checksum")
    header.pop("layout", None)
    return tensors, header


def _checksum(tensors: State, header: dict[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the header and of each tensor's name, type, shape and bytes."""
    whole = hashlib.sha256(canonical_json(header).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        whole.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / MODEL_FILE if path.is_dir() else path
