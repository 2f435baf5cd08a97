"""The check that an engine passes before it is trusted: right engines pass, wrong ones are named."""

from __future__ import annotations

import pytest
import torch

from mechproc.cli import main
from mechproc.errors import ConfigError
from mechproc.training.engine import ReferenceEngine
from mechproc.training.engines import choice, choose
from mechproc.training.engines.parity import CFG, fault


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


@pytest.mark.parametrize("name", ["reference", "torch", "auto"])
def test_the_engines_pass(name: str):
    assert fault(choose(name, CFG).make) is None


@pytest.mark.parametrize(
    ("engine", "said"),
    [(WrongLoss, "its loss on a tiny model"), (WrongHead, "blocks.1.attn.W_Q"), (NotANumber, "embed.W_E")],
)
def test_wrong_engines_are_named(engine: type[ReferenceEngine], said: str):
    assert said in (fault(engine) or "")


def test_mps_is_refused_unless_it_computes_what_the_reference_does(monkeypatch: pytest.MonkeyPatch):
    """There need not be such a device here: what is found on it is put in its place."""
    monkeypatch.setattr(choice, "_check_device", lambda device: None)
    monkeypatch.setattr(choice, "_fault_on", lambda device: "its gradient of embed.W_E is off")
    with pytest.raises(ConfigError, match="device = 'mps' is not allowed: it does not compute what the CPU does"):
        choose("auto", CFG, device="mps")
    monkeypatch.setattr(choice, "_fault_on", lambda device: None)
    assert choose("auto", CFG, device="mps").name == "torch"


def test_doctor_tells_what_there_is(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for expected in ("mechproc ", "torch ", "cores ", "compiler ", "kernel ", "reference engine", "auto takes"):
        assert any(line.startswith(expected) for line in said.splitlines()), expected
    assert said.endswith("training works\n")


def test_doctor_fails_when_an_engine_is_wrong(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mechproc.training.engines.parity.fault", lambda make: "its loss is off")
    assert main(["doctor"]) == 1
    assert "WRONG: its loss is off" in capsys.readouterr().out
