"""Runs on a Ray cluster of two nodes, one of which is killed, give the records of one process."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import mechproc
from mechproc.errors import ConfigError
from mechproc.runs import index
from mechproc.runs.executors import run_all
from mechproc.runs.executors.ray import Ray
from mechproc.runs.records import Records
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import Sizes, transfer

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra 'cluster')"
)
SIZES = Sizes(
    d_model=8, n_heads=2, n_symbols=8, longest_list=4, n_keys=4, n_values=8, most_pairs=3,
    donor_steps=4000, task_steps=6000, batch_size=4,
)  # fmt: skip
PLANNED = [(arm, 0) for arm in ("random", "attention", "MLPs")]
SCRIPT = f"""
import sys
from mechproc.studies.set_to_haystack import Sizes, transfer
from mechproc.runs.executors import run_all
from mechproc.runs.executors.ray import Ray
from mechproc.runs.store import Store

if __name__ == "__main__":
    runs = [transfer(arm, seed, {SIZES!r}) for arm, seed in {PLANNED!r}]
    store = Store(sys.argv[1], records=sys.argv[2])
    report = lambda event: print(event.kind, event.run.name, event.message, flush=True)
    if len(sys.argv) == 3:
        run_all(runs, store, workers=1)
    else:
        run_all(runs, store, report=report, executor=Ray(sys.argv[3], pack=2))
"""
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(Path(mechproc.__file__).parents[1]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


class Node:
    """A ``ray start`` of its own: ports, temporary folder, processes."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0"]
        command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--object-store-memory=80000000"]
        self.folder = folder
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--disable-usage-stats", *options],
                stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True,
            )  # fmt: skip

    def is_up(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return "Ray runtime started" in (self.folder / "log").read_text()

    def kill(self) -> None:
        """SIGKILL to every process of the node, as when a machine loses its power."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid)
            for process in [family, *family.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)


@pytest.fixture
def nodes() -> Iterator[tuple[str, list[Node]]]:
    """The address of a cluster of two nodes with one core each, and the nodes."""
    root = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # names of sockets may have 107 characters
    started: list[Node] = []
    try:
        for name in ("a", "b"):
            (root / name).mkdir()
        address = f"127.0.0.1:{free_port()}"
        port = address.split(":")[1]
        started.append(Node(root / "a", "--head", f"--port={port}", "--include-dashboard=false"))
        wait_for(started[0].is_up)
        started.append(Node(root / "b", f"--address={address}"))
        wait_for(started[1].is_up)
        yield address, started
    finally:
        for node in reversed(started):
            node.kill()
        shutil.rmtree(root, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pids_in_training(node: Node) -> list[int]:
    """The worker processes of a node that run a task: Ray names them after it."""
    import psutil

    family = psutil.Process(node.process.pid).children(recursive=True)
    found = []
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_train_all"):
                found.append(process.pid)
    return found


def command(folder: Path) -> list[str]:
    """Run the study; behind it follow store, records and the address of the cluster, or none for one process."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return [sys.executable, str(script)]


def without_made(folder: Path) -> dict[str, str]:
    return {record["identity"]: json.dumps(record | {"made": None}, sort_keys=True) for record in Records(folder).all()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, str]:
    """The records of the study, from one process."""
    root = tmp_path_factory.mktemp("reference")
    subprocess.run([*command(root), root / "runs", root / "records"], env=ENVIRONMENT, check=True)
    return without_made(root / "records")


@pytest.mark.cluster
@pytest.mark.slow
@needs_ray
def test_a_node_that_is_killed_in_the_middle_changes_no_record(tmp_path: Path, nodes, reference):
    address, (_, second) = nodes
    places = map(str, (tmp_path / "runs", tmp_path / "records", address))
    with (tmp_path / "out").open("w") as out:
        study = subprocess.Popen(
            [*command(tmp_path), *places], stdout=out, stderr=subprocess.STDOUT, env=ENVIRONMENT, text=True
        )
        wait_for(lambda: pids_in_training(second) or study.poll() is not None)
        second.kill()
        assert study.wait(timeout=300) == 0, (tmp_path / "out").read_text()
    lines = (tmp_path / "out").read_text().splitlines()
    assert sum(line.startswith("retried") and "its node was lost" in line for line in lines) == 1
    assert sum(line.startswith("done") for line in lines) == len(reference) == 4
    assert without_made(tmp_path / "records") == reference
    assert {path.name for path in (tmp_path / "runs").glob(".*")} == {index.NAME}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"cpus": 0.0}, "cpus"),
        ({"gpus": -1.0}, "gpus"),
        ({"gpus": 1.5}, "gpus"),
        ({"pack": 0}, "pack"),
        ({"address": "ray://head:10001"}, "address"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings: dict, field: str):
    with pytest.raises(ConfigError, match=f"{field} = "):
        Ray(**settings)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_install_it(tiny, store: Store):
    with pytest.raises(ConfigError, match=r"pip install 'mechproc\[cluster\]'"):
        run_all([transfer("random", 0, tiny)], store, executor=Ray())
