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
    names = ["steps", "trainings", "data", "growth", "memory", "interventions", "populations"]
    done = subprocess.run(
        [sys.executable, str(HERE), *names, "--quick", "--out", str(record), "--page", str(page)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sections = json.loads(record.read_text())
    assert list(sections) == names
    assert all(sections[name]["machine"]["cores"] for name in sections)
    assert page.read_text().count("\n## ") == 7


def test_the_search_for_the_population_that_fills_a_device(peers, monkeypatch):
    """With times that are made up, of a device that eight members fill; real updates, and no GPT-2."""
    import populations

    from mechproc.procedures import Fixed, Haystack

    class Gpt2:
        model = type("Model", (), {"to": lambda self, device: self})()
        batch = staticmethod(lambda n_items: ())

    def made_up(work, rounds):
        if "ready" not in work:
            return {populations.GPT2: 2.0}
        members = work["ready"]()
        return {"ready": max(1.0, len(members) / 8), "with data": max(2.0, len(work["with data"]()) / 4)}

    monkeypatch.setattr(populations.peers, "gpt2", lambda *_: Gpt2())
    monkeypatch.setattr(populations, "medians", made_up)
    found = populations.filled(Haystack(lengths=Fixed(2)), 2, "cpu", 64)
    assert found["fills"] == 8 and list(found["ready"]) == ["1", "2", "4", "8", "16", "32"]
    assert found["ready"]["4"] == 4 * found["ready"]["1"] == 2 * found["with data"]["4"]
    assert found["ready"]["1"] == 2 * found[populations.GPT2] == pytest.approx(0.36)
    assert populations.filled(Haystack(lengths=Fixed(2)), 2, "cpu", 4)["fills"] is None


def test_the_generated_runs_are_whole(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(HERE))
    import many_runs

    from mechproc.runs.catalogue import folders, lines
    from mechproc.runs.verify import verify

    last = many_runs.generate(tmp_path, 3)
    found, problems = lines(tmp_path / "runs")
    assert [line.status for line in found] == ["complete"] * 3 and problems == [] and last.is_complete()
    assert verify(folders(tmp_path / "runs"), tmp_path / "records") == []
    sys.modules.pop("many_runs")


def test_an_unknown_section_and_a_missing_gpu_are_said():
    import torch

    unknown = subprocess.run([sys.executable, str(HERE), "nothing"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "unknown sections: nothing" in unknown.stderr
    if not torch.cuda.is_available():
        missing = subprocess.run([sys.executable, str(HERE), "gpu"], capture_output=True, text=True)
        assert missing.returncode == 1 and "no CUDA device" in missing.stderr
