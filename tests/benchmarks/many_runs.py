"""A store of very many finished runs: how long it takes to list, filter and report, and how much memory."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mechproc.config import digest
from mechproc.runs import index
from mechproc.runs.catalogue import lines
from mechproc.runs.execute import execute
from mechproc.runs.folder import RunFolder, describe
from mechproc.runs.records import line_of, of_folder
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import Sizes, donor

MEMORY = "import re; print('peak', int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"


def many_runs(n: int) -> dict[str, Any]:
    """Seconds and peak memory (MB) of commands, each in a process of its own, on generated runs and their records."""
    with tempfile.TemporaryDirectory(prefix="many-runs-") as place:
        root = Path(place)
        last = generate(root, n)
        store, records = ["--store", str(root / "runs")], ["--records", str(root / "records")]
        study, page = ["set-to-haystack", *store, *records], str(root / "page.html")
        commands = {
            "runs list": ["runs", "list", *store],
            "runs list --procedure haystack": ["runs", "list", "--procedure", "haystack", *store],
            "runs show RUN": ["runs", "show", last.name, *store],
            "study plan set-to-haystack": ["study", "plan", *study],
            "study results set-to-haystack": ["study", "results", *study],
            "report RUN": ["report", last.name, *store, *records, "--out", page],
            "report set-to-haystack": ["report", *study, "--out", page],
            "runs rm RUN": ["runs", "rm", last.name, "--yes", *store],
        }
        found = {name: measured(argv) for name, argv in commands.items()}
        (root / "runs" / index.NAME).unlink()
        found["runs list, without an index"] = measured(commands["runs list"])
        return {"runs": n, "commands": found}


def measured(argv: list[str]) -> dict[str, float]:
    """Seconds of one command, imports included, those that it had a processor, and the most memory it had."""
    code = f"import sys; from mechproc.cli import main; code = main({argv!r}); {MEMORY}; sys.exit(code)"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 1),
        "processor": round(processor, 1),
        "MB": int(re.findall(r"peak (\d+)", done.stdout)[-1]),
    }


def generate(root: Path, n: int) -> RunFolder:
    """``n`` complete runs and their records: copies of one small training under other seeds."""
    sizes = Sizes(8, 2, 8, 4, 4, 8, 3, donor_steps=4, batch_size=4)
    made = Store(root / "made")
    run = donor(0, sizes)
    execute(run, made)
    source, (line,) = made.folder(run), lines(root / "made")[0]
    config, test, record = source.read_config(), source.read_test(), of_folder(source)
    kept = {
        name: (source.path / name).read_bytes() for name in test["files"] if name != "config.json" and "/" not in name
    }
    del config["checksum"], test["checksum"]
    test["files"] = {name: about for name, about in test["files"].items() if "/" not in name}
    (root / "records").mkdir()
    with (root / "records" / "set.jsonl").open("wb") as shard:
        for seed in range(n):
            run = run.replace(seed=seed)
            folder = RunFolder(root / "runs" / run.name)
            folder.path.mkdir(parents=True)
            plain = {"identity": run.identity, "config": run.to_dict()}
            folder.config.write_text(json.dumps(config | plain | {"checksum": digest(config | plain)}))
            for name, content in kept.items():
                (folder.path / name).write_bytes(content)
            scores = test | {"files": test["files"] | {"config.json": describe(folder.config)}, "seconds": seed / 10}
            folder.test.write_text(json.dumps(scores | {"checksum": digest(scores)}))
            index.add(root / "runs", line._replace(name=run.name, identity=run.identity, seed=seed, seconds=seed / 10))
            shard.write(line_of(record | {"identity": run.identity, "run": plain["config"]}))
    return folder
