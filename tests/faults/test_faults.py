"""A small version of ``make chaos``: a few kills, a few damages, one full disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = ("damage", "disks", "kills", "small_study")
SMALL = {"seeds": 1, "steps": (40, 60)}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")


def call(code: str, place: Path) -> str:
    """Run ``code`` in a process without the checks of types, which make trainings slow; what it prints."""
    start = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport torch\ntorch.set_num_threads(1)\n"
    start += f"from pathlib import Path\nplace = Path({str(place)!r})\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_kills_and_damages_lose_nothing_and_hide_nothing(tmp_path: Path):
    code = f"""
import damage, kills
print(kills.kills(place / "kills", 2, **{SMALL}))
print(kills.at_once(place / "shared", 2, **{SMALL}))
study = place / "study"
counts = damage.damaged(study, damage.prepare(study, **{SMALL}), 2, 1)
print(sum(of["damages"] for of in counts.values()))
"""
    *_, shared, damages = call(code, tmp_path).splitlines()
    assert "'runs, each with one record': 3" in shared and damages == "42"


@pytest.mark.slow
def test_disks_that_are_full_or_gone(tmp_path: Path):
    code = f"""
import disks
if disks.can_mount():
    print(disks.full(place / "full", (96,), **{SMALL}))
    print(disks.read_only(place / "read", **{SMALL}))
    print(disks.vanished(place / "gone", seeds=1, steps=(2000, 2000)))
else:
    print("skipped")
"""
    said = call(code, tmp_path)
    if "skipped" in said:
        pytest.skip("this process may not mount a disk of its own")
    assert "'studies that the full disk stopped': 1" in said
