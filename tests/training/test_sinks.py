"""The folder of a training: what is written comes back, and what is broken is said."""

import json
from pathlib import Path

import pytest
import torch

from mechproc.errors import StoreError
from mechproc.model.config import ModelConfig
from mechproc.model.io import write_tensors
from mechproc.model.state import State
from mechproc.runs.folder import RunFolder
from mechproc.training.engines.base import Snapshot
from mechproc.training.sinks import FolderSink, ResumePoint, TrainerState

TRAINER = TrainerState(
    step=7, stage=2, best=1 / 3, stale=1, n_rows=3, loss_sum=0.1 + 0.2, norm_sum=1e-17, last_row_step=5
)


@pytest.fixture
def sink(tmp_path: Path) -> FolderSink:
    return FolderSink(RunFolder(tmp_path / "deep" / "run"))


def resume_point(state: State) -> ResumePoint:
    return ResumePoint(
        "f00", TRAINER, Snapshot(state, {n: t + 1 for n, t in state.items()}, {n: t * t for n, t in state.items()})
    )


def test_rows_are_there_at_once_and_are_cut(sink: FolderSink) -> None:
    assert sink.rows() == []
    for step in range(4):
        sink.row({"step": step, "loss": step / 3, "train_loss": None})
        assert json.loads(sink.metrics_file.read_text().splitlines()[-1]) == sink.rows()[-1]
    sink.cut_rows(2)
    sink.row({"step": 9})
    assert [row["step"] for row in sink.rows()] == [0, 1, 9]
    assert sink.rows()[1]["loss"] == 1 / 3


def test_a_torn_last_row_is_cut(sink: FolderSink) -> None:
    sink.row({"step": 0})
    with sink.metrics_file.open("a") as file:
        file.write('{"step": 1, "lo')
    with pytest.raises(StoreError, match=r"metrics\.jsonl cannot be read"):
        sink.rows()
    sink.cut_rows(1)
    assert sink.rows() == [{"step": 0}]
    with pytest.raises(StoreError, match="has 1 rows, but the resume point was made after 2"):
        sink.cut_rows(2)


def test_a_resume_point_comes_back(sink: FolderSink, state: State) -> None:
    assert sink.load_resume() is None
    sink.save_resume(resume_point(state))
    point = sink.load_resume()
    assert point is not None and (point.training, point.trainer) == ("f00", TRAINER)
    for found, given in zip(vars(point.snapshot).values(), vars(resume_point(state).snapshot).values(), strict=True):
        assert found.keys() == given.keys() and all(torch.equal(found[n], given[n]) for n in given)
    sink.clear_resume()
    assert sink.load_resume() is None
    sink.clear_resume()


def test_broken_resume_points_are_refused(sink: FolderSink, state: State, cfg: ModelConfig) -> None:
    sink.save_resume(resume_point(state))
    whole = sink.resume_file.read_bytes()
    sink.resume_file.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=r"resume\.safetensors cannot be read as safetensors"):
        sink.load_resume()
    plain = {"kind": "resume", "training": "f00", "course": TRAINER.to_dict()}
    broken = {
        "another kind": ({"weights/a": torch.ones(1)}, plain | {"kind": "model"}),
        "unknown group": ({"momentum/a": torch.ones(1)}, plain),
        "no group": ({"a": torch.ones(1)}, plain),
        "no course": ({"weights/a": torch.ones(1)}, {"kind": "resume", "training": "f00"}),
        "odd course": ({"weights/a": torch.ones(1)}, plain | {"course": {"step": "seven"}}),
    }
    for tensors, header in broken.values():
        write_tensors(sink.resume_file, tensors, header)
        with pytest.raises(StoreError, match=r"resume\.safetensors is not a"):
            sink.load_resume()


def test_folders_that_cannot_be_written_are_named(tmp_path: Path, sink: FolderSink) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/run/checkpoints cannot be made: Not a directory"):
        FolderSink(RunFolder(tmp_path / "file" / "run"))
    sink.metrics_file.mkdir()
    with pytest.raises(StoreError, match=r"metrics\.jsonl cannot be written: Is a directory"):
        sink.row({"step": 0})
