"""Files of other libraries: ``config.json`` with the settings, ``model.safetensors`` or a pickle with named tensors.

Reading needs neither those libraries nor code from the folder. A pickle is read only when the caller allows it, and
then as plain tensors (``weights_only``). Weights keep their dtype.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mechproc.errors import StoreError, first_line
from mechproc.files import new_folder, read_json, write_json
from mechproc.model.io import MODEL_FILE
from mechproc.reading import require_regular

CONFIG_FILE = "config.json"
WEIGHT_FILES = (MODEL_FILE, f"{MODEL_FILE}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Where a folder's tensors may be, the first that exists; an index names the shard that holds each tensor."""
WRAPPERS = ("_orig_mod.", "module.")
"""What ``torch.compile`` and ``DistributedDataParallel`` put before every name."""


def weights_of(folder: Path) -> Path:
    """The file of a folder that holds its tensors or their index; ``model.safetensors`` when there is none."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), folder / MODEL_FILE)


def read_foreign_tensors(path: Path, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Named tensors from safetensors, from a file of ``torch.save`` (with ``allow_pickle``), or from an index's shards.

    Raises ``StoreError`` for files that are missing, broken or hold anything else.
    """
    if path.name.endswith(".index.json"):
        return _read_shards(path, allow_pickle)
    content = read_content(path, allow_pickle)
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, torch.Tensor) for value in content.values()):
        keys = f"; its keys are {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else ""
        raise StoreError(f"{path} does not hold named tensors and nothing else{keys}")
    return content


def read_content(path: Path, allow_pickle: bool = False) -> Any:
    """What a file of safetensors or of ``torch.save`` holds; ``StoreError`` when it cannot be read."""
    safe = path.suffix == ".safetensors"
    if not safe and not allow_pickle and path.exists():
        raise StoreError(f"{path} is a pickle, read only with allow_pickle=True (--allow-pickle)")
    require_regular(path)
    try:
        return load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle can raise anything
        # What torch says of a pickle with code in it is how to run the code.
        reason = first_line(error) if safe or isinstance(error, OSError) else "not plain tensors"
        raise StoreError(f"{path} cannot be read: {reason} ({type(error).__name__})") from None


def without_wrappers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without the prefixes that ``torch.compile`` and data parallelism add to every name."""
    for prefix in WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return without_wrappers({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
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


def _read_shards(index: Path, allow_pickle: bool) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint in several files, each in the file that the index names for it."""
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(_is_file_name(shard) for shard in shard_of.values()):
        raise StoreError(f"{index}: weight_map is not a table of tensors and the files beside it that hold them")
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(set(shard_of.values())):
        for name, tensor in read_foreign_tensors(index.parent / shard, allow_pickle).items():
            if shard_of.get(name) != shard:
                raise StoreError(f"{index.parent / shard} has tensor {name}, which {index.name} does not name there")
            tensors[name] = tensor
    missing = sorted(shard_of.keys() - tensors.keys())
    if missing:
        raise StoreError(f"{index}: tensor {missing[0]} is not in {shard_of[missing[0]]}")
    return tensors


def _is_file_name(shard: Any) -> bool:
    return isinstance(shard, str) and shard not in ("", ".", "..") and Path(shard).name == shard and "\\" not in shard
