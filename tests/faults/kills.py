"""SIGKILL at random instants, and several studies on one store."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from small_study import damages_of, finish, finished_of, log, planned, records_of, start, wait


def kills(root: Path, n_kills: int, seed: int = 0, **sizes: Any) -> dict[str, Any]:
    """Kill the study ``n_kills`` times, look at what is left each time, and let it end; as many studies as it takes.

    Raises ``AssertionError`` when a finished run is lost or changed, when a file is damaged, or when the records at the
    end are not those of a study that was never killed.
    """
    runs, rng = planned(**sizes), random.Random(seed)
    began = time.monotonic()
    finish(root / "undisturbed", runs)
    seconds, reference = time.monotonic() - began, records_of(root / "undisturbed")
    killed = studies = looked_at = resumed = left = 0
    while killed < n_kills:
        place, finished = root / f"study-{studies}", {}
        studies += 1
        while True:
            process = start(place, runs)
            status = wait(process, rng.uniform(0.0, seconds) if killed < n_kills else 600.0)
            if status is not None:
                assert status == 0, log(place)[-2000:]
                break
            os.kill(process, signal.SIGKILL)
            wait(process)
            killed += 1
            assert damages_of(place) == []
            now = finished_of(place)
            assert finished.items() <= now.items(), "a finished run was lost or changed"
            finished, looked_at = now, looked_at + len(now)
            resumed += len(list(place.glob("runs/*/resume.safetensors")))
            left += len(list(place.rglob("*.tmp")))
        assert finished.items() <= finished_of(place).items()
        assert records_of(place) == reference
    return {
        "kills": killed,
        "studies that ended with the records of one that was never killed": studies,
        "finished runs found unchanged after a kill": looked_at,
        "resume points found after a kill": resumed,
        "temporary files left by kills": left,
        "finished runs lost": 0,
    }


def at_once(root: Path, n_studies: int = 3, **sizes: Any) -> dict[str, Any]:
    """Several studies on one store at one time: each run has one record, as from one study."""
    runs = planned(**sizes)
    finish(root / "alone", runs)
    place = root / "shared"
    processes = [start(place, runs) for _ in range(n_studies)]
    statuses = [wait(process) for process in processes]
    assert statuses == [0] * n_studies, log(place)[-2000:]
    assert damages_of(place) == [] and records_of(place) == records_of(root / "alone")
    lines = sum(len(shard.read_text().splitlines()) for shard in (place / "records").glob("*.jsonl"))
    assert lines == len(records_of(place))
    return {"studies on one store at once": n_studies, "runs, each with one record": lines}
