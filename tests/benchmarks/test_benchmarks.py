"""The benchmarks run; what they measure is asserted nowhere."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import peers

    yield peers
    sys.modules.pop("peers")


@pytest.mark.parametrize("kind", ["haystack", "reversed-addition"])
def test_items_made_one_by_one_follow_the_rule_and_the_protocol(peers, kind):
    from mechproc.procedures import Fixed, Haystack, ReversedAddition

    procedure = Haystack() if kind == "haystack" else ReversedAddition(lengths=Fixed(10), protocol="paper")
    rng = random.Random(1)
    for _ in range(50):
        names, places = peers.ITEMS[kind](rng, procedure)
        block = procedure.encode([" ".join(names)])  # refuses what breaks the rule
        assert block.scored[0].nonzero()[0].tolist() == places


@pytest.mark.slow
def test_every_section_writes_its_record(tmp_path):
    record, page = tmp_path / "record.json", tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, str(HERE), "--quick", "--out", str(record), "--page", str(page)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sections = json.loads(record.read_text())
    assert list(sections) == ["steps", "trainings", "data", "growth", "memory", "interventions"]
    assert all(sections[name]["machine"]["cores"] for name in sections)
    assert page.read_text().count("\n## ") == 6


def test_an_unknown_section_and_a_missing_gpu_are_said():
    import torch

    unknown = subprocess.run([sys.executable, str(HERE), "nothing"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "unknown sections: nothing" in unknown.stderr
    if not torch.cuda.is_available():
        missing = subprocess.run([sys.executable, str(HERE), "gpu"], capture_output=True, text=True)
        assert missing.returncode == 1 and "no CUDA device" in missing.stderr
