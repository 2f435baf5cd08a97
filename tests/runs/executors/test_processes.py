"""Ctrl-C with worker processes: all of them stop, save where they are, and go on from there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mechproc.runs.executors import run_all
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor

SCRIPT = """
import sys
from mechproc.studies.set_to_haystack import Sizes, donor
from mechproc.runs.executors import run_all
from mechproc.runs.store import Store

if __name__ == "__main__":
    sizes = Sizes(d_model=8, n_heads=2, n_symbols=8, longest_list=4, donor_steps=20_000, batch_size=4)
    run_all([donor(seed, sizes) for seed in range(6)], Store(sys.argv[1]), workers=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
@pytest.mark.parametrize("told", ["all of them, as by a terminal", "the first process alone"])
def test_ctrl_c_stops_every_worker_with_a_resume_point(tmp_path: Path, told: str):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, str(script), str(root)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(root.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    (os.killpg if told.startswith("all") else os.kill)(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    assert len(folders) == 2  # the four that had not begun were not begun
    assert all((folder / "resume.safetensors").exists() for folder in folders)


def test_no_workers_are_refused(tiny, store: Store):
    with pytest.raises(ValueError, match="workers = 0 is not allowed: at least 1"):
        run_all([donor(0, tiny)], store, workers=0)


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    process = subprocess.run([sys.executable, str(script), str(tmp_path / "runs")], capture_output=True, text=True)
    assert process.returncode == 1 and "__name__ == '__main__'" in process.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_worker_that_is_killed_is_replaced_and_its_run_goes_on(tmp_path: Path):
    script, root = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(SCRIPT.replace("20_000", "2_000").replace("range(6)", "range(3)"))
    process = subprocess.Popen([sys.executable, str(script), str(root)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(root.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert len(list(root.glob("*/test.json"))) == 3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")
def test_sigterm_leaves_resume_points(tmp_path: Path):
    script, root = tmp_path / "script.py", tmp_path / "runs"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, str(script), str(root)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(root.glob("*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert len(list(root.glob("*/resume.safetensors"))) == 2
