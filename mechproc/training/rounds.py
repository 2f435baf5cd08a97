"""Several trainings at one time: each round gives all of them what they want next, computed together."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch

from mechproc.errors import MechprocError, TrainingError
from mechproc.training.engines.population import Member, Population
from mechproc.training.interruptions import SuspendedError
from mechproc.training.loop import Course, Evaluation, Update

K = TypeVar("K", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Ended(Generic[K]):
    """A course that has ended, with a result or an error."""

    key: K
    result: Any = None
    error: BaseException | None = None


class Rounds(Generic[K]):
    """Courses, by keys of the caller's, whose workers are members of one population.

    A course that raises an error ends with it, and the others go on. A context manager: leaving it closes the courses
    that have not ended.
    """

    def __init__(self, population: Population) -> None:
        self.population = population
        self._wanted: dict[K, tuple[Course[Any], Update | Evaluation]] = {}

    def __len__(self) -> int:
        """Courses that have not ended."""
        return len(self._wanted)

    def __enter__(self) -> Rounds[K]:
        return self

    def __exit__(self, *_: object) -> None:
        for course, _wanted in self._wanted.values():
            course.close()

    def begin(self, key: K, course: Course[Any]) -> Ended[K] | None:
        """Start a course; what became of it when it ends without wanting anything."""
        return self._go_on(key, course, lambda: course.send(None))

    def round(self) -> Iterator[Ended[K]]:
        """Answer every course once, and give those that ended.

        Raises ``torch.OutOfMemoryError`` when the device has too little memory for all of them; ``suspend`` then lets
        those that were not answered go on later.
        """
        wanted, self._wanted = self._wanted, {}
        answers: dict[K, Any] = {}
        full: str | None = None  # not the error, whose traceback would keep the tensors that filled the memory
        try:
            answers.update(self._answers(wanted))
        except torch.OutOfMemoryError as error:
            full = str(error)
        except BaseException:
            self._wanted = wanted
            raise
        for key, (course, want) in wanted.items():
            if key not in answers:
                self._wanted[key] = course, want
                continue
            answer = answers[key]
            proceed = course.throw if isinstance(answer, TrainingError) else course.send
            if ended := self._go_on(key, course, lambda proceed=proceed, answer=answer: proceed(answer)):
                yield ended
        if full is not None:
            raise torch.OutOfMemoryError(full)

    def suspend(self) -> None:
        """Let every course save its resume point and end, as one that is begun again from there.

        After an update that was cut off in the middle nothing is saved: the points of before are gone on from.
        """
        wanted, self._wanted = self._wanted, {}
        for course, _ in wanted.values():
            with contextlib.suppress(MechprocError, torch.OutOfMemoryError):  # what cannot be saved is computed again
                if self.population.is_whole:
                    course.throw(SuspendedError("it goes on later"))
                course.close()

    def _answers(self, wanted: dict[K, tuple[Course[Any], Update | Evaluation]]) -> Iterable[tuple[K, Any]]:
        updates = {key: want for key, (_, want) in wanted.items() if isinstance(want, Update)}
        if updates:
            members = [_member(update) for update in updates.values()]
            batches, steps = [u.batch for u in updates.values()], [u.step for u in updates.values()]
            yield from zip(updates, self.population.step(members, batches, steps), strict=True)
        evaluations: dict[int, dict[K, Evaluation]] = {}
        for key, (_, want) in wanted.items():
            if isinstance(want, Evaluation):  # the same object where the items are the same
                evaluations.setdefault(id(want.batches), {})[key] = want
        for alike in evaluations.values():
            members = [_member(evaluation) for evaluation in alike.values()]
            batches = next(iter(alike.values())).batches
            yield from zip(alike, self.population.evaluate(members, batches), strict=True)

    def _go_on(self, key: K, course: Course[Any], proceed: Callable[[], Update | Evaluation]) -> Ended[K] | None:
        try:
            self._wanted[key] = course, proceed()
        except StopIteration as end:
            return Ended(key, result=end.value)
        except BaseException as error:  # an interruption, too, until every course has saved its resume point
            return Ended(key, error=error)
        return None


def _member(want: Update | Evaluation) -> Member:
    assert isinstance(want.worker, Member)
    return want.worker
