"""Several runs at a time, on the machines of a Ray cluster that share a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import os
import pickle
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechproc.errors import ConfigError, MechprocError, StoreError, first_line, require
from mechproc.files import atomic_write
from mechproc.runs.config import RunConfig
from mechproc.runs.executors.queue import BUSY_S, Outcome, Queue
from mechproc.runs.executors.serial import attempt
from mechproc.runs.store import Store
from mechproc.threads import one_thread, usable_cores

STOP_S = 60.0
"""Seconds that interrupted tasks have to save their resume points."""


class Ray:
    """An ``Executor`` that trains the runs as tasks of a Ray cluster.

    Store and records lie in folders that every node has under the same path. A task trains up to ``pack`` runs, one
    after the other; a run that needs a donor waits until it is complete, whoever trained it. The runs of a task whose
    node is lost, or whose process is killed, are given to another task, and go on from their resume points. A resume
    point of another kind of processor is not used: that run starts over.

    ``address``: that of a running cluster (``"auto"``: the one that this machine belongs to); by default Ray is started
    on this machine alone. ``cpus`` and ``gpus``: what a task takes of its node, in cores and GPUs, each a fraction if
    need be. With ``gpus`` above 0 the runs are trained on the GPU that Ray gives to the task.

    Errors: ``ConfigError`` when Ray is not installed, when no cluster answers, and when no node has ``cpus`` and
    ``gpus``.
    """

    def __init__(self, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0, pack: int = 1) -> None:
        require(cpus > 0 and math.isfinite(cpus), "cpus", cpus, "more than 0")
        require(gpus >= 0 and math.isfinite(gpus), "gpus", gpus, "0 or more, such as 0.25")
        require(gpus <= 1 or gpus == int(gpus), "gpus", gpus, "a fraction of one GPU, or whole ones")
        require(pack >= 1, "pack", pack, "at least 1")
        client = address is not None and address.startswith("ray://")
        require(
            not client, "address", address, "HOST:PORT of the cluster, or 'auto', from a machine that belongs to it"
        )
        self.address, self.cpus, self.gpus, self.pack = address, cpus, gpus, pack

    def __call__(self, queue: Queue, store: Store) -> None:
        with _cluster(self.address) as ray, _marked(store) as place:
            place = dataclasses.replace(place, device="cuda" if self.gpus else "cpu")
            capacity = self._capacity(ray)
            require(capacity > 0, "cpus and gpus", (self.cpus, self.gpus), f"what a node has: {_resources(ray)}")
            options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0, "num_returns": "streaming"}
            remote = ray.remote(**options)(_train_all)
            tasks: list[_Task] = []
            try:
                while not queue.finished:
                    queue.n_workers = max(self._capacity(ray), 1)
                    self._hand_out(queue, remote, place, tasks)
                    _listen(ray, queue, store, tasks)
            except BaseException:
                _interrupt(ray, tasks)
                raise

    def _capacity(self, ray: Any) -> int:
        """How many tasks the nodes that are there now can run at one time."""
        nodes = [node.get("Resources", {}) for node in ray.nodes() if node.get("Alive")]
        each = [node.get("CPU", 0.0) / self.cpus for node in nodes]
        if self.gpus:
            each = [min(n, node.get("GPU", 0.0) / self.gpus) for n, node in zip(each, nodes, strict=True)]
        return sum(int(n + 1e-9) for n in each)

    def _hand_out(self, queue: Queue, remote: Any, place: _Place, tasks: list[_Task]) -> None:
        """Start tasks while there is room and there are runs."""
        while (room := (queue.n_workers or 1) - len(tasks)) > 0:
            share = min(self.pack, -(-queue.n_ready // room))  # every task gets some before one gets many
            runs: list[RunConfig] = []
            while len(runs) < share and (run := queue.take()) is not None:
                runs.append(run)
            if not runs:
                return
            tasks.append(_Task(remote.remote([_packed(run) for run in runs], place), runs))


@dataclasses.dataclass(frozen=True)
class _Place:
    """What a task has to find on its node as it is on the machine that handed it out."""

    store: Store
    """With absolute paths."""
    marker: str
    """A file in the store: a node that does not see it has another folder under that path."""
    working_folder: str
    """Where the relative paths in configs start."""
    path: tuple[str, ...] = ()
    """Where Python looks for modules, such as a study's own file."""
    device: str = "cpu"


@dataclasses.dataclass
class _Task:
    """A task of the cluster, as the process that handed it out sees it."""

    stream: Any
    """Gives a reference to one ``Outcome`` for each run, in their order."""
    runs: list[RunConfig]
    """Those whose outcome is not known yet; the first is in training."""


# ---- in the process that hands out the runs --------------------------------------------------------------------------


def _listen(ray: Any, queue: Queue, store: Store, tasks: list[_Task]) -> None:
    """Wait until a run ends, or for the time after which busy runs are tried again; report how far the others are."""
    if not tasks:
        return time.sleep(BUSY_S)
    ready, _ = ray.wait([task.stream for task in tasks], timeout=BUSY_S)
    for task in [task for task in tasks if any(task.stream is stream for stream in ready)]:
        try:
            outcome = ray.get(next(task.stream))
        except StopIteration:
            tasks.remove(task)
            continue
        except ray.exceptions.RayError as error:
            tasks.remove(task)
            _ended(ray, queue, task, error)
            continue
        queue.settle(task.runs.pop(0), outcome)
    for task in tasks:
        with contextlib.suppress(StoreError):  # a row that is being written, or a share that answers late
            if task.runs and (place := store.folder(task.runs[0]).progress()):
                queue.step(task.runs[0], *place)


def _ended(ray: Any, queue: Queue, task: _Task, error: Exception) -> None:
    """Settle the runs of a task that ended without their outcomes: only the first had begun."""
    lost = (ray.exceptions.NodeDiedError, ray.exceptions.LocalRayletDiedError)
    killed = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
    first, *others = task.runs
    for run in reversed(others):
        queue.put_back(run)
    if isinstance(error, lost):
        queue.settle(first, Outcome("lost", "its node was lost"))
    elif isinstance(error, killed):
        queue.settle(first, Outcome("killed", f"its process was killed ({type(error).__name__})"))
    else:
        queue.settle(first, Outcome("failed", f"{type(error).__name__}: {first_line(error)}", str(error)))


def _interrupt(ray: Any, tasks: list[_Task]) -> None:
    """Let the tasks write their resume points and stop."""
    for task in tasks:
        ray.cancel(task.stream)
    deadline = time.monotonic() + STOP_S
    for task in tasks:
        with contextlib.suppress(StopIteration, ray.exceptions.RayError):
            while (left := deadline - time.monotonic()) > 0:
                ready, _ = ray.wait([task.stream], timeout=left)
                if ready:
                    ray.get(next(task.stream))


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster; one that the application has connected before stays connected."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report to Ray's makers
    local = {"num_cpus": usable_cores(), "include_dashboard": False} if address is None else {"address": address}
    try:
        ray.init(**local, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"address = {address!r} is not allowed: no Ray cluster answers ({first_line(error)})"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")  # not a dependency: the extra ``cluster`` brings it
    except ImportError:
        raise ConfigError(
            "executor = 'ray' is not allowed: Ray is not installed; pip install 'mechproc[cluster]'"
        ) from None


def _resources(ray: Any) -> str:
    each = [
        ", ".join(f"{node.get('Resources', {}).get(name, 0.0):g} {name}" for name in ("CPU", "GPU"))
        for node in ray.nodes()
        if node.get("Alive")
    ]
    return "; ".join(each) or "there is no node"


@contextlib.contextmanager
def _marked(store: Store) -> Iterator[_Place]:
    """Where tasks find the store, in which a file stands meanwhile that every node has to see."""
    root = store.root.resolve()
    shared = Store(root, None if store.records is None else store.records.folder.resolve())
    marker = root / f".{uuid.uuid4().hex[:12]}.shared.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{root} cannot be made: {error.strerror or error}") from error
    atomic_write(marker, b"")
    try:
        yield _Place(shared, str(marker), os.getcwd(), tuple(sys.path))  # noqa: PTH109
    finally:
        with contextlib.suppress(OSError):
            marker.unlink()


def _packed(run: RunConfig) -> tuple[str, str, bytes]:
    """Name, identity and pickle of a run: it is unpickled where its modules can be imported."""
    return run.name, run.identity, importlib.import_module("ray.cloudpickle").dumps(run)


# ---- on a node -------------------------------------------------------------------------------------------------------


def _train_all(runs: list[tuple[str, str, bytes]], place: _Place) -> Iterator[Outcome]:
    """What a task does: one run after the other, an outcome for each."""
    sys.path[:0] = [entry for entry in place.path if entry not in sys.path]
    with one_thread(), _sigterm_ends_trainings():
        for name, identity, pickled in runs:
            yield _train(name, identity, pickled, place)


def _train(name: str, identity: str, pickled: bytes, place: _Place) -> Outcome:
    here = f"node {os.uname().nodename}" if hasattr(os, "uname") else "this node"
    try:
        os.chdir(place.working_folder)
        shared = Path(place.marker).exists()
    except OSError:
        shared = False
    if not shared:
        return Outcome(
            "failed",
            f"{here} does not share {place.store.root} or {place.working_folder} with the machine that started the "
            "study: both must lie on a file system that every node has under the same path",
        )
    try:
        run = pickle.loads(pickled)
    except MechprocError as error:
        return Outcome("failed", str(error))
    except (ImportError, AttributeError) as error:
        return Outcome("failed", f"{here} cannot import what {name} uses: {first_line(error)}")
    if run.identity != identity:
        return Outcome(
            "failed",
            f"{name} is {run.name} on {here}: it has another version of mechproc, or the procedure is defined in a "
            "program; put it into a file of its own and name it as FILE.py:Class",
        )
    return attempt(run, place.store, device=place.device, start_over=True)


@contextlib.contextmanager
def _sigterm_ends_trainings() -> Iterator[None]:
    """Within, SIGTERM, which a node that is taken away sends, lets the training save its resume point first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    end.ends_trainings = True  # type: ignore[attr-defined]
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
