"""Folders of other libraries: ``config.json`` with the settings, ``model.safetensors`` with named tensors.

Reading needs neither those libraries nor code from the folder. A pickle is read only when told to, and then as plain
tensors (``weights_only``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mechproc.errors import StoreError, first_line
from mechproc.files import new_folder, write_json
from mechproc.model.io import DTYPES, MODEL_FILE

CONFIG_FILE = "config.json"


def read_foreign_tensors(path: Path, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Named tensors from safetensors or, with ``allow_pickle``, from a file of ``torch.save``; else ``StoreError``."""
    safe = path.suffix == ".safetensors"
    if not safe and not allow_pickle and path.exists():
        raise StoreError(f"{path} is a pickle, read only with allow_pickle=True (--allow-pickle)")
    try:
        tensors = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle can raise anything
        # What torch says of a pickle with code in it is how to run the code.
        reason = first_line(error) if safe or isinstance(error, OSError) else "not plain tensors"
        raise StoreError(f"{path} cannot be read: {reason} ({type(error).__name__})") from None
    named = isinstance(tensors, dict) and all(isinstance(name, str) for name in tensors)
    if not named or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise StoreError(f"{path} does not hold named tensors")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            raise StoreError(f"{path}: tensor {name} is {tensor.dtype}: convert the weights to float32 first")
    return tensors


def write_foreign(folder: str | Path, settings: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write both files of a folder, or none; ``StoreError`` when it exists and is not empty, or cannot be written."""
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with new_folder(folder) as temporary:
        write_json(temporary / CONFIG_FILE, settings)
        try:
            (temporary / MODEL_FILE).write_bytes(save(copies, {"format": "pt"}))
        except SafetensorError as error:
            raise StoreError(f"{folder} cannot be written: {error}") from None
