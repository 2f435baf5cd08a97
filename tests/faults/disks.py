"""Disks that are full, that may only be read, and that are taken away in the middle."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from small_study import damages_of, finish, finished_of, log, planned, readable, records_of, start, wait

SIZES_KB = (96, 160, 224, 288, 352, 448)
"""Of disks too small for the study."""


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    return os.name == "posix" and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount") is not None


@contextlib.contextmanager
def disk(folder: Path, size_kb: int) -> Iterator[Path]:
    """A disk of its own for a while: a tmpfs."""
    folder.mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _call("umount", "-l", str(folder), check=False)


def full(root: Path, sizes_kb: tuple[int, ...] = SIZES_KB, **sizes: Any) -> dict[str, Any]:
    """Run the study on disks that are too small for it: it says so, and ends on a larger one."""
    runs = planned(**sizes)
    finish(root / "reference", runs)
    stopped = kept = 0
    for size_kb in sizes_kb:
        with disk(root / f"disk-{size_kb}", size_kb) as place:
            status = wait(start(place, runs))
            said = log(place)
            assert status in (0, 1), said[-2000:]
            if status == 1:
                stopped += 1
                assert "No space left on device" in said and "Traceback" not in said, said[-2000:]
            assert damages_of(place) == []
            finished = finished_of(place)
            kept += len(finished)
            _call("mount", "-o", "remount,size=64m", str(place))
            finish(place, runs)
            assert finished.items() <= finished_of(place).items() and damages_of(place) == []
            assert records_of(place) == records_of(root / "reference")
    assert stopped
    return {"disks": len(sizes_kb), "studies that the full disk stopped": stopped, "finished runs kept": kept}


def read_only(root: Path, **sizes: Any) -> dict[str, Any]:
    """A store that may only be read is read, and a study that has to write says so."""
    runs = planned(**sizes)
    with disk(root / "disk", 65536) as place:
        finish(place, runs[:1])
        before = readable(place)
        _call("mount", "-o", "remount,ro", str(place))
        assert wait(start(place, runs[:1])) == 0  # nothing is missing
        assert wait(start(place, runs)) == 1 and "Read-only file system" in log(place), log(place)
        assert readable(place) == before and damages_of(place) == []
        _call("mount", "-o", "remount,rw", str(place))
        finish(place, runs)
    return {"stores that may only be read": 1}


def vanished(root: Path, **sizes: Any) -> dict[str, Any]:
    """A disk that is taken away in the middle: the study says so, and writes nothing to what is left in its place."""
    runs = planned(**sizes)
    with disk(root / "disk", 65536) as mounted:
        process = start(mounted / "study", runs)
        while not list(mounted.glob("study/runs/*/metrics.jsonl")):
            assert wait(process, 0.01) is None
        hidden = mounted / "study"  # what has the same path once the disk is gone
        _call("umount", "-l", str(mounted))
        (hidden / "runs").mkdir(parents=True)
        status = wait(process)
        assert status == 1, status
        left = [path for path in hidden.rglob("*") if path.is_file()]
        assert left == [], left
        shutil.rmtree(hidden)
    return {"disks taken away": 1}


def _call(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
