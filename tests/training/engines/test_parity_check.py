"""The check that an engine passes before it is trusted: right engines pass, wrong ones are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mechproc.cli import main
from mechproc.errors import ConfigError, TrainingError
from mechproc.model.state import init_state
from mechproc.training.config import TrainingConfig
from mechproc.training.data import Batch
from mechproc.training.engines import choice, choose
from mechproc.training.engines.base import ReferenceEngine
from mechproc.training.engines.cpu import build
from mechproc.training.engines.parity import CFG, mismatch
from mechproc.training.optimizer import VERSION


class WrongLoss(ReferenceEngine):
    def step(self, batch, step):
        loss, norm = super().step(batch, step)
        return 1.01 * loss, norm


class WrongHead(ReferenceEngine):
    def step(self, batch, step):
        found = super().step(batch, step)
        self.weights["blocks.1.attn.W_Q"].grad[1] *= 1.01
        return found


class NotANumber(ReferenceEngine):
    def step(self, batch, step):
        found = super().step(batch, step)
        self.weights["embed.W_E"].grad[0, 0] = torch.nan
        return found


class NoUpdate(ReferenceEngine):
    """Right gradients that never reach the weights."""

    def step(self, batch, step):
        before = self.snapshot().weights
        found = super().step(batch, step)
        with torch.no_grad():
            for name, tensor in self.weights.items():
                tensor.copy_(before[name])
        return found


class NoSecondMoment(ReferenceEngine):
    def step(self, batch, step):
        found = super().step(batch, step)
        if step == 0:
            self.adamw._exp_avg_sq.zero_()
        return found


class OutOfMemory(ReferenceEngine):
    def step(self, batch, step):
        raise torch.OutOfMemoryError("no room\nfor more")


@pytest.mark.parametrize("name", ["reference", "torch", "auto"])
def test_the_engines_pass(name: str):
    assert mismatch(choose(name, CFG).make) is None


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (WrongLoss, "its loss on a tiny model"),
        (WrongHead, "blocks.1.attn.W_Q"),
        (NotANumber, "embed.W_E"),
        (NoUpdate, "its update of embed.W_E on a tiny model is not the one"),
        (NoSecondMoment, "its exp_avg_sq after two updates"),
        (OutOfMemory, "it fails with OutOfMemoryError: no room"),
    ],
)
def test_wrong_engines_are_named(engine: type[ReferenceEngine], said: str):
    assert said in (mismatch(engine) or "")


def test_mps_is_refused_unless_it_computes_what_the_reference_does(monkeypatch: pytest.MonkeyPatch):
    """There need not be such a device here: what is found on it is put in its place."""
    monkeypatch.setattr(choice, "_check_device", lambda device: None)
    monkeypatch.setattr(choice, "_mismatch_on", lambda device: "its gradient of embed.W_E is off")
    with pytest.raises(ConfigError, match="device = 'mps' is not allowed: it does not compute what the CPU does"):
        choose("auto", CFG, device="mps")
    monkeypatch.setattr(choice, "_mismatch_on", lambda device: None)
    assert choose("auto", CFG, device="mps").name == "torch"


def test_doctor_tells_what_there_is(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for expected in ("mechproc ", "torch ", "cores ", "compiler ", "kernel ", "reference engine", "auto takes"):
        assert any(line.startswith(expected) for line in said.splitlines()), expected
    assert said.endswith("training works\n")


def test_a_device_that_no_engine_trains_on_is_refused():
    for device in ("meta", "privateuseone", "nonsense", "cuda:99"):
        with pytest.raises(ConfigError, match=f"device = '{device}' is not allowed: a device that torch can use here"):
            choose("auto", CFG, device=device)
    assert choose("auto", CFG, device="cpu:3").label == choose("auto", CFG).label


@pytest.mark.slow
def test_doctor_names_what_cannot_be_imported(tmp_path: Path):
    for package in ("circuitsvis", "torch"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('libsomething.so: cannot open')")
        done = subprocess.run(
            [sys.executable, "-m", "mechproc", "doctor"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert any(
            line.split()[:3] == [package, "BROKEN:", "ImportError:"] and "pip install --force-reinstall" in line
            for line in done.stdout.splitlines()
        )
        assert "see the lines that say MISSING, BROKEN or WRONG" in done.stdout


def test_doctor_fails_when_an_engine_is_wrong(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mechproc.training.engines.parity.mismatch", lambda make: "its loss is off")
    assert main(["doctor"]) == 1
    assert "WRONG: its loss is off" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
def test_a_batch_with_nothing_scored_ends_every_engine_alike(name: str) -> None:
    training = TrainingConfig(steps=10, warmup_steps=0, batch_size=4)
    engine = choose(name, CFG).make(CFG, init_state(CFG, 0), training, 0)
    before = {key: tensor.detach().clone() for key, tensor in engine.weights.items()}
    zeros = torch.zeros((2, 1), dtype=torch.int64)
    batch = Batch(torch.ones((2, 3), dtype=torch.int64), zeros, zeros, torch.zeros((2, 1), dtype=torch.bool))
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        engine.step(batch, 3)
    assert all(torch.equal(before[key], tensor) for key, tensor in engine.weights.items())


def test_provenance_names_the_source_of_the_kernel() -> None:
    label = choose("cpu", CFG).label
    assert label.split(",")[0] == f"cpu {build.source_digest()}" and len(build.source_digest()) == 12


def test_provenance_names_the_optimizer_and_where_it_decides_how_torch_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {name: choose(name, CFG).label for name in ("cpu", "torch", "reference")}
    assert all(label.endswith(f", optimizer {VERSION}") for label in labels.values())
    assert ["rounding" in label for label in labels.values()] == [False, True, True]
    here = choice.rounding_of_torch()
    monkeypatch.setattr(torch.Tensor, "exp", lambda numbers: torch.exp(numbers).nextafter(torch.tensor(9e9)))
    assert f"rounding {here}" in labels["torch"] and choice.rounding_of_torch.__wrapped__() != here
