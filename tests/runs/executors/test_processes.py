"""Worker processes: interrupted, killed or left alone, they lose no finished work and give the bits of one process."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mechproc
from mechproc.runs.executors import run_all
from mechproc.runs.executors.processes import UNGUARDED
from mechproc.runs.records import Records
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import Sizes, donor, transfer

SIZES = Sizes(d_model=8, n_heads=2, n_symbols=8, longest_list=4, donor_steps=20_000, batch_size=4)
SCRIPT = f"""
import sys
from mechproc.studies.set_to_haystack import Sizes, donor
from mechproc.runs.executors import run_all
from mechproc.runs.store import Store

if __name__ == "__main__":
    sizes = {SIZES!r}
    run_all([donor(seed, sizes) for seed in range(6)], Store(sys.argv[1]), workers=2)
"""
STUDY_SIZES = Sizes(
    d_model=8, n_heads=2, n_symbols=8, longest_list=4, n_keys=4, n_values=8, most_pairs=3,
    donor_steps=600, task_steps=900, batch_size=4,
)  # fmt: skip
STUDY = f"""
import sys
from mechproc.studies.set_to_haystack import Sizes, transfer
from mechproc.runs.executors import run_all
from mechproc.runs.store import Store

if __name__ == "__main__":
    sizes = {STUDY_SIZES!r}
    runs = [transfer(arm, seed, sizes) for seed in (0, 1) for arm in ("random", "attention", "MLPs")]
    store = Store(sys.argv[1], records=sys.argv[2])
    run_all(runs, store, workers=2, report=lambda e: print(e.kind, e.run.name, e.step, flush=True))
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(mechproc.__file__).parents[1])}
unix = pytest.mark.skipif(os.name == "nt", reason="sends signals")


def start(folder: Path, text: str, *args: Path) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script), *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=ENVIRONMENT
    )


def wait_for(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes; multiprocessing's resource tracker is none."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"resource_tracker" not in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
@unix
@pytest.mark.parametrize(
    ("sent", "receivers"),
    [(signal.SIGINT, "all, as by a terminal"), (signal.SIGINT, "the first"), (signal.SIGTERM, "the first")],
)
def test_an_interruption_stops_every_worker_with_a_resume_point(tmp_path: Path, sent, receivers: str):
    root = tmp_path / "runs"
    process = start(tmp_path, SCRIPT, root)
    wait_for(lambda: len(list(root.glob("*/metrics.jsonl"))) == 2)
    (os.killpg if receivers.startswith("all") else os.kill)(process.pid, sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 if sent == signal.SIGTERM else "KeyboardInterrupt" in err
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    assert len(folders) == 2  # the four that had not begun were not begun
    assert all((folder / "resume.safetensors").exists() for folder in folders)


@pytest.mark.slow
@unix
def test_workers_of_a_killed_process_save_their_resume_points_and_end(tmp_path: Path):
    root = tmp_path / "runs"
    process = start(tmp_path, SCRIPT, root)
    wait_for(lambda: len(list(root.glob("*/metrics.jsonl"))) == 2)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not any(map(is_alive, workers)), 20.0)
    assert len(list(root.glob("*/resume.safetensors"))) == 2


def without_made(folder: Path) -> dict[str, dict]:
    return {record["identity"]: record | {"made": None} for record in Records(folder).all()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, dict]:
    """The records of the study, from one process."""
    root = tmp_path_factory.mktemp("reference")
    runs = [transfer(arm, seed, STUDY_SIZES) for seed in (0, 1) for arm in ("random", "attention", "MLPs")]
    run_all(runs, Store(root / "runs", records=root / "records"), workers=1)
    return without_made(root / "records")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
def test_a_study_that_is_killed_at_random_moments_gives_the_records_of_one_process(tmp_path: Path, reference):
    """Five times the first process or one of its workers; then it may end. No finished run is trained again."""
    rng = random.Random(0)
    root, records = tmp_path / "runs", tmp_path / "records"
    finished: dict[Path, int] = {}
    process = start(tmp_path, STUDY, root, records)
    for _ in range(5):
        time.sleep(rng.uniform(2.0, 6.0))
        workers = workers_of(process)
        victim = rng.choice([*workers, process.pid])
        os.kill(victim, signal.SIGKILL)
        if victim == process.pid or process.poll() is not None:
            process.communicate(timeout=60)
            finished |= {test: test.stat().st_mtime_ns for test in root.glob("*/test.json") if test not in finished}
            process = start(tmp_path, STUDY, root, records)
    out, err = process.communicate(timeout=300)
    if process.returncode:  # one run was in training when its worker was killed, twice: it has failed, the others not
        assert "by signal 9, 2 times" in err
        process = start(tmp_path, STUDY, root, records)
        again, err = process.communicate(timeout=300)
        out += again
    assert process.returncode == 0, err
    done = {line.split()[1] for line in out.splitlines() if line.startswith("done")}
    assert all(test.stat().st_mtime_ns == when and test.parent.name not in done for test, when in finished.items())
    assert without_made(records) == reference


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
def test_a_killed_worker_is_replaced_and_its_run_goes_on_once(tmp_path: Path, reference):
    root, records = tmp_path / "runs", tmp_path / "records"
    process = start(tmp_path, STUDY, root, records)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while not lines[-1].startswith("step"):
        lines.append(process.stdout.readline())
    os.kill(workers_of(process)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert sum(line.startswith("retried") for line in out.splitlines()) == 1
    assert without_made(records) == reference


@pytest.mark.slow
def test_a_program_without_a_guard_is_told_where_to_put_it(tmp_path: Path):
    unguarded = SCRIPT.replace('if __name__ == "__main__":', "if True:")
    process = start(tmp_path, unguarded, tmp_path / "runs")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.count("Traceback") == 1
    assert err.splitlines()[-1].startswith("mechproc.errors.MechprocError:") and "__main__" in err.splitlines()[-1]
    assert str(UNGUARDED) not in err.splitlines()[-1]


@pytest.mark.slow
def test_a_program_that_is_no_file_is_told_what_workers_need(tmp_path: Path):
    process = subprocess.run(
        [sys.executable, "-", str(tmp_path / "runs")], input=SCRIPT, capture_output=True, text=True, env=ENVIRONMENT
    )
    assert process.returncode == 1 and "could not start" in process.stderr.splitlines()[-1]


def test_no_workers_are_refused(tiny, store: Store):
    with pytest.raises(ValueError, match="workers = 0 is not allowed: 1 to 1,000"):
        run_all([donor(0, tiny)], store, workers=0)
