"""Items for many trainings at a time: what several of them read is made once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mechproc.config import digest
from mechproc.procedures.base import Procedure, Split
from mechproc.training.data import Batch, EvaluationSet, Sources, TrainStream, evaluation_set


def shared_sources() -> Sources:
    """Sources for trainings that are advanced together. Each reads what it would read by itself."""
    return Sources(SharedTrainStreams(), SharedEvaluationSets())


class SharedEvaluationSets:
    """``evaluation_set`` that gives the same object to all who ask for the same items."""

    def __init__(self) -> None:
        self._drawn: dict[str, EvaluationSet] = {}

    def __call__(self, procedure: Procedure, n_items: int, split: Split, stage: int | None = None) -> EvaluationSet:
        key = digest([procedure.to_dict(), n_items, split, stage])
        if key not in self._drawn:
            self._drawn[key] = evaluation_set(procedure, n_items, split, stage)
        return self._drawn[key]


class SharedTrainStreams:
    """Makes ``TrainStream``s for many trainings: those of one procedure and seed that keep pace read the same batches.

    That is so for the arms of a study, whose comparisons are paired. One that falls behind, or is at another stage,
    goes on with a stream of its own: batches are the same in any case.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Shared] = {}

    @contextlib.contextmanager
    def __call__(self, procedure: Procedure, seed: int, batch_size: int) -> Iterator[_Reader]:
        key = digest([procedure.to_dict(), seed, batch_size])
        shared = self._streams.setdefault(key, _Shared(TrainStream(procedure, seed, batch_size)))
        shared.n_readers += 1
        with contextlib.ExitStack() as own:
            try:
                yield _Reader(shared, own)
            finally:
                shared.n_readers -= 1
                if not shared.n_readers:
                    del self._streams[key]
                    shared.stream.__exit__()


class _Shared:
    """A stream and the batches that it gave last."""

    def __init__(self, stream: TrainStream) -> None:
        self.stream, self.n_readers = stream, 0
        self._last: dict[tuple[int, int | None], Batch] = {}

    def batch(self, step: int, stage: int | None) -> Batch | None:
        """One of the last two batches or the one that follows; ``None`` for any other."""
        if (step, stage) not in self._last:
            if self._last and step != 1 + max(step for step, _ in self._last):
                return None
            self._last = {key: batch for key, batch in self._last.items() if key[0] == step - 1}
            self._last[step, stage] = self.stream.batch(step, stage)
        return self._last[step, stage]


class _Reader:
    """Reads a shared stream while it keeps pace."""

    def __init__(self, shared: _Shared, opened: contextlib.ExitStack) -> None:
        self._shared, self._opened = shared, opened
        self._own: TrainStream | None = None

    def batch(self, step: int, stage: int | None) -> Batch:
        """As ``TrainStream.batch``."""
        if self._own is None:
            if (found := self._shared.batch(step, stage)) is not None:
                return found
            shared = self._shared.stream
            self._own = self._opened.enter_context(TrainStream(shared.procedure, shared.seed, shared.batch_size))
        return self._own.batch(step, stage)
