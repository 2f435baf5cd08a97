"""Truncation and flipped bits in every kind of file of the store and the records."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_study import damages_of, finish, planned, start, store_of, wait

from mechproc.errors import StoreError
from mechproc.model.state import weights_digest
from mechproc.result import Result
from mechproc.runs import catalogue
from mechproc.runs.folder import RunFolder
from mechproc.runs.index import NAME
from mechproc.runs.records import Records
from mechproc.training.sinks import FolderSink


def prepare(place: Path, **sizes: Any) -> dict[str, Path]:
    """A store with a finished study and an interrupted run, and one file of each kind by a name."""
    runs = planned(**sizes)
    finish(place, runs)
    done = store_of(place).folder(runs[0])
    stopped = _interrupted(place)
    result = Result(
        "score", [[1.0, 2.0], [0.25, 0.5]], ("arm", "seed"), {"arm": ["a", "b"], "seed": [0, 1]}, "nats", "more", "-"
    )
    result.save(place / "result.json")
    (shard, *_) = sorted((place / "records").glob("*.jsonl"))
    return {
        "config.json": done.config,
        "environment.json": done.environment,
        "metrics.jsonl": done.metrics,
        "model.safetensors": done.model,
        "test_items.safetensors": done.test_items,
        "test.json": done.test,
        "a checkpoint": done.checkpoint(done.checkpoint_steps()[-1]),
        "config.json of an interrupted run": stopped.config,
        "metrics.jsonl of an interrupted run": stopped.metrics,
        "a checkpoint of an interrupted run": stopped.checkpoint(stopped.checkpoint_steps()[-1]),
        "resume.safetensors": stopped.resume,
        "records": shard,
        "a Result": place / "result.json",
        "the index of a store": place / "runs" / NAME,
    }


def _interrupted(place: Path) -> RunFolder:
    (run,) = planned(1, (20_000, 20_000))[:1]
    folder, process = store_of(place).folder(run), start(place, [run])
    while not folder.resume.exists() or folder.metrics.read_bytes().count(b"\n") < 2:
        assert wait(process, 0.01) is None
    os.kill(process, signal.SIGKILL)
    wait(process)
    return folder


def readings(place: Path) -> dict[str, Any]:
    """What every reader gives, or its ``StoreError``."""
    found: dict[str, Any] = {}

    def note(name: str, read: Callable[[], Any]) -> None:
        try:
            found[name] = read()
        except StoreError as error:
            found[name] = error

    note("result", lambda: Result.load(place / "result.json").to_json())
    note("whether the list of runs is right", lambda: _list_is_right(place / "runs"))
    for folder in catalogue.folders(place / "runs"):
        name = folder.name
        note(f"config of {name}", lambda folder=folder: folder.read_config())
        for step in folder.checkpoint_steps():
            note(f"{step} of {name}", lambda f=folder, step=step: weights_digest(*f.load_checkpoint(step)))
        if folder.resume.exists():
            note(f"resume point of {name}", lambda folder=folder: _resume_point(folder))
            continue
        note(f"test of {name}", folder.read_test)
        note(f"environment of {name}", folder.read_environment)
        note(f"metrics of {name}", folder.read_metrics)
        note(f"model of {name}", lambda folder=folder: weights_digest(*folder.load_model()))
        note(f"items of {name}", lambda folder=folder: [counts.tolist() for counts in folder.load_test_items()])
    for shard in Records(place / "records").shards():
        note(f"records {shard.name}", lambda shard=shard: list(Records(place / "records").of(shard)))
    return found


def _list_is_right(root: Path) -> bool:
    """Whether the list of the runs, which the index may help, is what their folders say."""
    return catalogue.lines(root)[0] == [catalogue._line(run) for run in catalogue.entries(root)[0]]


def _resume_point(folder: RunFolder) -> Any:
    sink = FolderSink(folder)
    point = sink.load_resume()
    assert point is not None
    sink.cut_rows(point.trainer.n_rows)
    tensors = {f"{name}": tensor.tolist() for name, tensor in point.snapshot.weights.items()}
    return point.training, point.trainer, tensors, sink.rows()


def damaged(place: Path, kinds: dict[str, Path], n_flips: int, n_cuts: int, seed: int = 0) -> dict[str, Any]:
    """Damage each kind of file many times. Each time, every reader gives what it gave before, or names the file.

    A damage that no reader notices because it changes nothing counts as harmless. One that a reader notices has to be
    named by ``mechproc runs verify`` as well (Results are no part of a store). Raises ``AssertionError`` otherwise.
    """
    rng, counts = random.Random(seed), {}
    resume_rows = next(iter(place.glob("runs/*/resume.safetensors"))).parent / "metrics.jsonl"
    readings(place)  # the resume point cuts the rows behind it off
    before = readings(place)
    for kind, file in kinds.items():
        content, named, harmless = file.read_bytes(), 0, 0
        kept_rows = resume_rows.read_bytes()
        for number in range(n_flips + n_cuts):
            broken = bytearray(content)
            if number < n_flips:
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            else:
                del broken[rng.randrange(len(broken)) :]
            file.write_bytes(bytes(broken))
            after = readings(place)
            apart = [name for name in before if _differs(before[name], after[name])]
            for name in apart:
                value = after[name]
                cut = kind == "records" and number >= n_flips and isinstance(value, list)
                if cut:  # whole records that are not there any more; those that are there are as before
                    assert all(record in before[name] for record in value), f"{kind}: {name}"
                    continue
                assert isinstance(value, StoreError), f"{kind}, damage {number}: {name} reads {value!r}"
                assert str(file) in str(value), f"{kind}, damage {number}: {value}"
            lines = damages_of(place)
            if apart and kind not in ("a Result",):
                whole_lines = kind == "records" and (not broken or broken.endswith(b"\n"))
                assert whole_lines or any(str(file) in line for line in lines), f"{kind}, damage {number}: {lines}"
            named, harmless = named + bool(apart or lines), harmless + (not apart and not lines)
            file.write_bytes(content)
            resume_rows.write_bytes(kept_rows if file != resume_rows else content)
        counts[kind] = {"damages": n_flips + n_cuts, "named": named, "without effect": harmless}
    assert {k: v for k, v in readings(place).items() if _differs(v, before[k])} == {}
    return counts


def _differs(one: Any, other: Any) -> bool:
    return isinstance(other, Exception) or isinstance(one, Exception) or one != other
