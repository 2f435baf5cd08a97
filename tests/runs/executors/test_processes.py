"""Ctrl-C with worker processes: all of them stop, save where they are, and go on from there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mechproc.runs.executors.processes import run_all
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor

SCRIPT = """
import sys
from mechproc.studies.set_to_haystack import Sizes, donor
from mechproc.runs.executors.processes import run_all
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
