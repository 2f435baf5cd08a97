"""Copies of records at a URL: object stores, other machines, whatever fsspec reaches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec

from mechproc.errors import ConfigError, StoreError, first_line
from mechproc.files import atomic_write
from mechproc.provenance import differences
from mechproc.reading import read_bytes
from mechproc.runs.records import Records, checked_lines, require_equal


def copy_records(records: str | Path, url: str) -> int:
    """Add the records of a folder to those at ``url``, such as ``s3://bucket/records``, and return how many were added.

    Records that are there stay, those of other machines included, so that several machines can copy to one URL one
    after the other. Every line that is copied, and every line that is there, has to have its checksum. A file at the
    URL is replaced as a whole.

    Errors: ``ConfigError`` for a URL whose protocol is not known or whose package is not installed; ``StoreError`` for
    records that are damaged, that differ from those at the URL, or that cannot be read or written.
    """
    try:
        files, root = fsspec.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"url = {url!r} is not allowed: {first_line(error)}") from None
    shards = Records(records).shards()
    if not shards:
        raise StoreError(f"{records} has no records")
    added = 0
    for shard in shards:
        there = f"{root.rstrip('/')}/{shard.name}"
        try:
            known = files.cat_file(there) if files.exists(there) else b""
            lines = checked_lines(known, f"{url}/{shard.name}")
            new = _new(checked_lines(read_bytes(shard, shard.parent), str(shard)), lines, str(shard), url)
            if new:
                _write(files, there, b"".join([*lines.values(), *new]))
        except StoreError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise StoreError(f"{url}/{shard.name} cannot be written: {first_line(error)}") from error
        added += len(new)
    return added


def _new(here: dict[str, bytes], there: dict[str, bytes], shard: str, url: str) -> list[bytes]:
    """The lines that are not there; those that are there must say the same, if they have the same provenance."""
    for identity in here.keys() & there.keys():
        if here[identity] != there[identity]:
            one, other = json.loads(here[identity]), json.loads(there[identity])
            if not differences(one["provenance"], other["provenance"]):
                require_equal(one, other, f"{shard} (identity {identity})", f"that at {url}")
    return [line for identity, line in here.items() if identity not in there]


def _write(files: Any, path: str, content: bytes) -> None:
    if "file" in (files.protocol if isinstance(files.protocol, (tuple, list)) else (files.protocol,)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    else:  # object stores show an object once it is whole
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, content)
