"""Every byte of a run is the same, whatever trains it, in whichever order, and whatever else the process does."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.executors import Event, run_all
from mechproc.runs.records import Records
from mechproc.runs.store import Store
from mechproc.threads import one_thread

from .conftest import planned

MADE = ("date", "host", "processor", "commit")


def every_byte(store: Store, runs: list[RunConfig]) -> dict[str, bytes]:
    """The files of the runs and of their donors, without when and where they were made."""
    found: dict[str, bytes] = {}
    for needed in {each.identity: each for run in runs for each in run.with_donors()}.values():
        folder = store.folder(needed)
        for file in sorted(folder.path.rglob("*")):
            if file.is_file() and file != folder.lock_file:
                found[f"{folder.name}/{file.relative_to(folder.path)}"] = file.read_bytes()
        environment = {k: v for k, v in json.loads(folder.environment.read_text()).items() if k not in MADE}
        test = json.loads(folder.test.read_text())
        del test["seconds"], test["checksum"], test["files"]["environment.json"]
        found[f"{folder.name}/environment.json"] = json.dumps(environment).encode()
        found[f"{folder.name}/test.json"] = json.dumps(test, sort_keys=True).encode()
    return found


def recorded(place: Path) -> dict[str, dict]:
    records = Records(place).all()
    return {r["identity"]: r | {"made": None, "checksum": None, "provenance": None} for r in records}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, dict]]:
    root = tmp_path_factory.mktemp("reference")
    store = Store(root / "runs", records=root / "records")
    run_all(planned(), store, workers=1)
    return every_byte(store, planned()), recorded(root / "records")


def one_by_one_in_a_thread(store: Store) -> None:
    def train() -> None:
        for run in planned():
            for needed in run.with_donors():
                execute(needed, store)

    with one_thread():
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()


def in_the_reverse_order_with_other_global_states(store: Store) -> None:
    """Global generators and settings that a notebook may have changed."""
    before = torch.get_num_threads(), torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    torch.set_num_threads(2)
    try:
        run_all(planned()[::-1], store, workers=1)
    finally:
        torch.set_num_threads(before[0])
        torch.set_rng_state(before[1])
        np.random.set_state(before[2])
        random.setstate(before[3])


def with_two_workers(store: Store) -> None:
    seen: list[Event] = []
    run_all(planned(), store, workers=2, report=seen.append)
    ended = [(event.n_done, event.n_failed, event.n_total) for event in seen if event.kind == "done"]
    assert ended == [(n, 0, 8) for n in range(1, 9)] and seen[-1].seconds_left == 0.0


@pytest.mark.parametrize(
    "train",
    [
        in_the_reverse_order_with_other_global_states,
        one_by_one_in_a_thread,
        pytest.param(with_two_workers, marks=pytest.mark.slow),
    ],
)
def test_the_same_bits(train, tmp_path: Path, reference: tuple[dict[str, bytes], dict[str, dict]]):
    store = Store(tmp_path / "runs", records=tmp_path / "records")
    train(store)
    files, records = reference
    found = every_byte(store, planned())
    assert found.keys() == files.keys()
    assert [name for name, content in files.items() if found[name] != content] == []
    store.record_complete(planned())
    assert recorded(tmp_path / "records") == records
