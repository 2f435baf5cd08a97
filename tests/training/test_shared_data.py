"""Trainings that are advanced together read what each would read by itself, made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mechproc.procedures.base import Procedure
from mechproc.training.data import Batch, TrainStream
from mechproc.training.shared_data import SharedTrainStreams, shared_sources


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps whose batches were made."""
    steps: list[int] = []
    make: Callable[..., Batch] = TrainStream._make

    def counted(self: TrainStream, step: int, stage: int | None) -> Batch:
        steps.append(step)
        return make(self, step, stage)

    monkeypatch.setattr(TrainStream, "_make", counted)
    return steps


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_those_that_keep_pace_share_their_batches(procedure: Procedure, made: list[int]):
    streams = SharedTrainStreams()
    with streams(procedure, 0, 8) as one, streams(procedure, 0, 8) as other, streams(procedure, 1, 8) as third:
        for step in range(3):
            assert one.batch(step, None) is other.batch(step, None)
            assert not same(one.batch(step, None), third.batch(step, None))
        assert one.batch(3, None) is not None
        assert one.batch(4, None) is not other.batch(3, None)  # one behind, still kept
    assert made == [0, 0, 1, 1, 2, 2, 3, 4]


def test_one_that_is_elsewhere_gets_the_same_batches_from_a_stream_of_its_own(procedure: Procedure, made: list[int]):
    streams, alone = SharedTrainStreams(), TrainStream(procedure, 0, 8)
    with streams(procedure, 0, 8) as first:
        for step in range(5):
            first.batch(step, None)
        with streams(procedure, 0, 8) as late:
            for step in range(3):
                assert same(late.batch(step, None), alone.batch(step, None))
                assert same(first.batch(5 + step, None), alone.batch(5 + step, None))
    with streams(procedure, 0, 8) as again:  # a new stream begins where it is asked
        assert same(again.batch(7, None), alone.batch(7, None))


def test_one_that_falls_behind_leaves_the_stream_of_the_others_where_it_is(procedure: Procedure, monkeypatch):
    """Else the two would take turns in having the blocks of items drawn again."""
    drawn: list[int] = []
    draw = TrainStream.draw
    monkeypatch.setattr(TrainStream, "draw", lambda self, stage, index: drawn.append(index) or draw(self, stage, index))
    streams = SharedTrainStreams()
    with streams(procedure, 0, 8) as first, streams(procedure, 0, 8) as late:
        for step in range(3):
            first.batch(200 + step, None)
            late.batch(step, None)
    assert sorted(drawn) == [0, 1]


def test_stages_are_not_mixed():
    from .conftest import curriculum

    procedure, _, _ = curriculum()
    streams, alone = SharedTrainStreams(), TrainStream(procedure, 0, 8)
    with streams(procedure, 0, 8) as one, streams(procedure, 0, 8) as other:
        for step, stages in enumerate([(0, 0), (0, 1), (1, 1), (1, 2)]):
            for reader, stage in zip((one, other), stages, strict=True):
                assert same(reader.batch(step, stage), alone.batch(step, stage))


def test_evaluation_items_are_drawn_once(procedure: Procedure):
    draw = shared_sources().evaluation_set
    one, other = draw(procedure, 10, "test"), draw(procedure, 10, "test")
    assert one is other and one.batches is other.batches
    assert draw(procedure, 11, "test") is not one and draw(procedure, 10, "validation") is not one
