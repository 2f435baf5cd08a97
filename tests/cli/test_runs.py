"""``mechproc runs`` on a store with two donors and what was made from them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from mechproc.cli import main
from mechproc.model.config import ModelConfig
from mechproc.procedures import Fixed, Identity, Set
from mechproc.study.executors import run_all
from mechproc.study.run import RunConfig
from mechproc.study.store import Store
from mechproc.training.config import TrainingConfig
from mechproc.transfer.arms import attention_only

TRAINING = TrainingConfig(
    steps=3, batch_size=4, warmup_steps=0, evaluate_every=3, n_validation=5, n_test=5, checkpoints_per_decade=None
)
CFG = ModelConfig(1, 1, 4, 7, 14)
DONOR = RunConfig(Identity(lengths=Fixed(3), n_symbols=12), CFG, TRAINING, 0)
RUN = RunConfig(Set(lengths=Fixed(3), n_symbols=12), CFG, TRAINING, 1, attention_only("d"), {"d": DONOR})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run_all([RUN], Store(root), workers=1)
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_list_has_a_line_for_each_run_and_says_what_is_none(store: Path, capsys):
    (store / "holiday").mkdir()
    (store / RUN.name / "test.json").unlink()
    assert main(["runs", "--store", str(store), "list"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[1].startswith(DONOR.name) and "complete" in lines[1] and lines[1].endswith("random")
    assert lines[2].startswith(RUN.name) and "interrupted" in lines[2] and lines[2].endswith("attn of d")
    assert lines[-1] == f"2 runs in {store}"
    assert shown.err.startswith(f"mechproc: {store / 'holiday'} is not a run: ") and shown.err.count("\n") == 1
    assert main(["runs", "--store", str(store), "list", "--procedure", "set", "--state", "complete"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 runs")


def test_show_says_what_was_run_and_how_it_ended(store: Path, capsys):
    assert main(["runs", "--store", str(store), "show", RUN.identity[:8]]) == 0
    shown = capsys.readouterr().out
    for expected in (RUN.identity, '"kind": "set"', "last validations:", "test: accuracy", "engine "):
        assert expected in shown


@pytest.mark.parametrize("name", ["", "zzz"])
def test_a_name_of_none_or_several_is_refused(store: Path, name: str, capsys):
    assert main(["runs", "--store", str(store), "show", name]) == 1
    assert "the name or the beginning of an identity of one run" in capsys.readouterr().err


def test_rm_asks_first(store: Path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["runs", "--store", str(store), "rm", RUN.name]) == 1
    assert (store / RUN.name).exists() and "nothing was removed" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["runs", "--store", str(store), "rm", RUN.name]) == 0
    assert not (store / RUN.name).exists() and (store / DONOR.name).exists()


def test_rm_refuses_a_donor_unless_forced_and_a_run_that_is_written(store: Path, capsys):
    assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes"]) == 1
    assert f"is a donor of {RUN.name}" in capsys.readouterr().err
    with FileLock(store / DONOR.name / "lock", timeout=0):
        assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes", "--force"]) == 1
        assert "is being written by another process" in capsys.readouterr().err
    assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes", "--force"]) == 0
    assert not (store / DONOR.name).exists()


def test_a_store_that_is_not_there_is_said(tmp_path: Path, capsys):
    assert main(["runs", "--store", str(tmp_path / "none"), "list"]) == 1
    assert "is no folder of runs" in capsys.readouterr().err
