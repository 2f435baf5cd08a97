"""Inputs of every kind that nobody wrote: each ends in a result or in one error, soon, and touches nothing else."""

from __future__ import annotations

import collections
import io
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench import STRANGERS, Bench, Hang
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from mutations import mutated, parts, spoiled, texts, values
from safetensors.torch import save

from mechproc.result import Result

MEMORY = 4 * 2**30
"""Bytes of address space that all of them together may add to the process."""
SLOWER = {"files of a run": 5}
"""Kinds of which fewer inputs are tried, as each goes through several commands."""


def headers(bases: list[tuple[dict[str, Any], bytes]]) -> st.SearchStrategy[bytes]:
    """Files of safetensors whose header, or the JSON in its metadata, was changed."""

    def file_of(header: Any, data: bytes) -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data

    def inner(header: dict[str, Any], about: Any) -> dict[str, Any]:
        return header | {"__metadata__": {"mechproc": json.dumps(about)}}

    changed = [mutated([header]).map(lambda new, data=data: file_of(new, data)) for header, data in bases]
    for header, data in bases:
        about = json.loads(header["__metadata__"]["mechproc"])
        old = {
            key: value for key, value in about.items() if key not in ("layout", "checksum")
        }  # files without a checksum
        changed += [mutated([about, old]).map(lambda new, h=header, data=data: file_of(inner(h, new), data))]
    return st.one_of(changed)


def opened(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file of safetensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def kinds(bench: Bench) -> dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any]]]:
    """What is tried, by the kind of input: what does it, and where inputs come from."""
    folder = bench.store.folder(bench.run)
    config_files = [json.dumps(plain).encode() for plain in bench.configs]
    models = [folder.model.read_bytes(), folder.test_items.read_bytes()]
    tensors = {"wte.weight": torch.zeros(4, 2), "h.0.ln_1.weight": torch.ones(2)}
    (bench.place / "foreign.safetensors").write_bytes(save(tensors))
    gpt2 = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 2, "vocab_size": 4, "n_positions": 3}
    hooked = {"n_layers": 1, "d_model": 2, "n_ctx": 3, "d_head": 2, "d_vocab": 4, "n_heads": 1, "act_fn": "gelu_new"}
    lines = [line for shard in bench.store.records.shards() for line in shard.read_bytes().splitlines(keepends=True)]  # pyright: ignore
    records = [{key: value for key, value in json.loads(line).items() if key != "checksum"} for line in lines]
    result = Result("score", [[1.0, 2.0]], ("arm", "seed"), {"arm": ["a"], "seed": [0, 1]}, "nats", "more", "-",
                    provenance=[({}, {"engine": "cpu"})])  # fmt: skip
    plain_result = {key: value for key, value in json.loads(result.to_json()).items() if key != "checksum"}
    json_files = {
        name: json.loads((folder.path / name).read_text()) for name in ("config.json", "environment.json", "test.json")
    }
    in_folder = [mutated([plain]).map(lambda new, name=name: (name, new)) for name, plain in json_files.items()]
    for name in ("metrics.jsonl", "error.json", "lock"):
        file = folder.path / name
        content = file.read_bytes() if file.exists() else b'{"error": "it failed"}'
        in_folder.append(spoiled([content]).map(lambda new, name=name: (name, new)))
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    in_folder.append(mutated(rows).map(lambda row: ("metrics.jsonl", (json.dumps(row) + "\n").encode())))
    pickles = [_pickle_of(value) for value in ({"a": torch.zeros(2)}, _Evil())]
    return {
        "configs": (bench.config, st.one_of(*[mutated(bench.configs)] * 9, values)),
        "damaged configs": (bench.config_bytes, spoiled(config_files)),
        "part expressions": (bench.part, parts | texts),
        "model headers": (bench.model, headers([opened(model) for model in models]) | spoiled(models)),
        "settings of foreign models": (bench.foreign, mutated([gpt2, hooked]) | values),
        "pickles": (bench.pickled, spoiled(pickles) | st.sampled_from(pickles) | st.binary(max_size=60)),
        "records": (bench.record, mutated(records) | spoiled(lines)),
        "Results": (bench.result, mutated([plain_result]) | spoiled([result.to_json().encode()])),
        "files of a run": (bench.folder, st.one_of(in_folder)),
        "command lines": (bench.command, commands()),
    }


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def _pickle_of(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


NOUNS = """procedure show; parts; model show; model import; model export --to gpt2; run; runs list; runs show; nothing
runs verify; runs repair; runs gc; runs copy; runs rm; study results nothing; study claims nothing; study run nothing
study nothing; analyse ablation; analyse weights; analyse patching; analyse ablation set:0; analyse logits sort:1@100
analyse list; study; calibrate --families nothing; pretrained build nothing""".replace(";", "\n").splitlines()
"""Beginnings of commands that do not begin a training, whatever follows."""
OPTIONS = [
    "--store",
    "--records",
    "--procedure",
    "--status",
    "--seeds",
    "--scale",
    "--out",
    "--measure",
    "--csv",
    "--parquet",
    "--only",
    "--config",
    "--allow-pickle",
    "--allow-code",
    "--layers",
    "--heads",
    "--width",
    "--n-items",
    "--parts",
    "--engine",
    "--ablation",
    "--metric",
    "--pair",
    "--seed",
    "--device",
    "--yes",
    "--dry-run",
    "--write",
    "--methods",
    "--families",
    "--plantings",
    "--page",
    "--workers",
    "--help",
]
NAMES = ("broken.json", "runs", ".", "records", "model.safetensors", "result.json", "out", "new/out")


def commands() -> st.SearchStrategy[list[str]]:
    """Arguments of the command. What the user names may be written to and executed: the names here lead to neither."""
    harmless = texts.filter(lambda text: not any(bad in text for bad in ("/", "..", "evil", "set", "\\")))
    named = st.sampled_from([*NAMES, *OPTIONS])
    words = st.one_of(named, harmless, st.integers(-3, 10**12).map(str), st.sampled_from(["attn", "L0.H0 - attn"]))
    return st.tuples(st.sampled_from(NOUNS), st.lists(words, max_size=5)).map(lambda pair: [*pair[0].split(), *pair[1]])


def tried(place: Path, n_inputs: int, chosen_seed: int = 0, only: str | None = None) -> dict[str, dict[str, int]]:
    """Try ``n_inputs`` inputs of each kind; by kind how many, and how many of them were accepted.

    Raises ``FaultError``, ``Hang`` or the error that an input must not cause, with the smallest such input.
    """
    bench, counts = Bench(place), {}
    for kind, (do, strategy) in kinds(bench).items():
        if only not in (None, kind):
            continue
        count: collections.Counter[str] = collections.Counter()

        n = max(1, n_inputs // SLOWER.get(kind, 1))

        @settings(max_examples=n, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @seed(chosen_seed)
        @given(strategy)
        def check(value: Any) -> None:
            count["inputs"] += 1  # noqa: B023  the function is called in this round of the loop
            try:
                count["accepted"] += bench.attempt(do, value)  # noqa: B023
            except Hang:
                print(f"{kind}: {value!r}", flush=True)  # noqa: B023
                raise

        check()
        counts[kind] = {"inputs": count["inputs"], "accepted": count["accepted"]}
    return counts


def limited(place: Path, n_inputs: int, chosen_seed: int = 0) -> dict[str, Any]:
    """``tried`` in a process of its own with a limit of memory, where every file opened to be written counts."""
    out = place.parent / f"{place.name}.json"
    process = os.fork()
    if process == 0:
        status = 1
        try:
            _limit_memory()
            _watch(place)
            os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(place / "work" / "hypothesis")
            counts = tried(place, n_inputs, chosen_seed)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            out.write_text(json.dumps(counts | {"memory": peak}))
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(process, 0)
    assert status == 0, "an input ended otherwise than it may: see above"
    counts = json.loads(out.read_text())
    print(f"most memory: {counts.pop('memory')} MB")
    return counts


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.truncate", "shutil.rmtree")
"""Audit events of Python whose first argument is a path that changes."""


def _watch(place: Path) -> None:
    """From now on no file outside ``place`` may be opened to be written, renamed, removed or made a folder."""
    allowed = (str(place), "/dev/null", str(place.parent / f"{place.name}.json"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        opened_to = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        if opened_to & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or event in CHANGES:
            path = arguments[0]
            if isinstance(path, (str, bytes, os.PathLike)):
                whole = os.path.realpath(os.fsdecode(path))
                if not whole.startswith(allowed):
                    STRANGERS.append(f"{event} {whole}")

    sys.addaudithook(hook)
