"""What a study costs before it runs: trainings, time measured on this machine, disk, and the seeds that it needs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from mechproc.config import digest
from mechproc.model.state import init_state, n_parameters
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import references
from mechproc.runs.store import Store
from mechproc.statistics.power import POWER, seeds_for
from mechproc.studies.study import Study
from mechproc.threads import one_thread
from mechproc.training.data import TrainStream, evaluation_batches, evaluation_items
from mechproc.training.engines import choose
from mechproc.training.schedule import checkpoint_steps

WARM_UP = 3
"""Updates that are not timed: the first ones load the kernel and fill the caches."""
MEASURE_S = 0.5
"""Time spent on the updates of each kind of run, at least."""
ROW_BYTES = 300
"""Size of one row of metrics and its share of the record."""


class Cost(NamedTuple):
    """Seconds of one core, of one kind of run."""

    update: float
    """One update, drawing its items included."""
    validation: float
    test: float
    """Drawing and scoring the test items, their ceiling and baselines."""

    def seconds(self, run: RunConfig) -> float:
        """A whole training; fewer where it stops early."""
        training = run.training
        n_validations = 1 + -(-training.last_step // training.evaluate_every)
        return self.update * training.last_step + self.validation * n_validations + self.test


def measure_cost(run: RunConfig) -> Cost:
    """Time a few updates, a validation and the test of a run like this one, on one thread, after a warm-up."""
    training, cfg = run.training, run.model
    with one_thread():
        engine = choose("auto", cfg).make(cfg, init_state(cfg, run.seed, run.start), training, run.seed, None)
        stage = run.procedure.lengths.n_stages - 1 if run.procedure.lengths.n_stages > 1 else None
        with TrainStream(run.procedure, run.seed, training.batch_size) as stream:

            def updates(steps: Iterable[int]) -> float:
                started = time.perf_counter()
                for step in steps:
                    engine.step(stream.batch(step, stage), step)
                return time.perf_counter() - started

            updates(range(WARM_UP))
            n = max(5, round(MEASURE_S / max(updates([WARM_UP]), 1e-4)))
            update = updates(range(WARM_UP + 1, WARM_UP + 1 + n)) / n
        items = evaluation_items(run.procedure, training.n_validation, "validation", stage)
        validation = evaluation_batches(items)
        validated = _timed(lambda: engine.evaluate(validation))

        def test() -> None:
            items = evaluation_items(run.procedure, training.n_test, "test")
            engine.evaluate(evaluation_batches(items))
            references(run.procedure, items)

        return Cost(update, validated, _timed(test))


class Costs:
    """``measure_cost`` of each kind of run once: its procedure, model and batch."""

    def __init__(self) -> None:
        self.measured: dict[str, tuple[RunConfig, Cost]] = {}

    def seconds(self, run: RunConfig) -> float:
        """A whole training, on one core."""
        training = run.training
        sizes = (training.batch_size, training.dropout, training.n_validation, training.n_test)
        key = digest([run.procedure.identifying(), run.model.identifying(), sizes])
        if key not in self.measured:
            self.measured[key] = (run, measure_cost(run))
        return self.measured[key][1].seconds(run)


def disk_bytes(run: RunConfig) -> int:
    """About what a run's folder takes: weights in float32, at its end and at each checkpoint, and its metrics."""
    n_weights = 1 + len(checkpoint_steps(run.training))
    return 4 * n_parameters(run.model) * n_weights + ROW_BYTES * (
        1 + run.training.last_step // run.training.evaluate_every
    )


class Needed(NamedTuple):
    """How many seeds one comparison needs."""

    name: str
    smallest_effect: float | None
    """None: none was declared."""
    unit: str
    n_seeds: int
    """Seeds that are complete."""
    spread: float | None
    """Standard deviation of the differences over seeds so far; None before two seeds."""
    needed: int | None
    """Seeds to find the smallest effect with probability 0.8; None where it is not known or more than 1,000."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study would cost."""

    n_runs: int
    """Trainings in all, those of donors included."""
    missing: Sequence[RunConfig]
    """Trainings that are not complete, donors first."""
    seconds: float
    """Of one core, for what is missing."""
    bytes: int
    """Of disk, for what is missing."""
    costs: Costs
    comparisons: Sequence[Needed]


def plan(
    study: Study,
    store: Store,
    only: str = "*",
    progress: Callable[[RunConfig], None] | None = None,
    only_seeds: Sequence[int] | None = None,
) -> Plan:
    """Measure what the missing runs would cost; a few seconds for each kind of run."""
    runs = study.only(only, only_seeds)
    everything = {r.identity: r for run in runs for r in run.with_donors()}
    missing, costs, seconds = store.missing(runs), Costs(), 0.0
    for run in missing:
        if progress:
            progress(run)
        seconds += costs.seconds(run)
    size = sum(map(disk_bytes, missing))
    return Plan(len(everything), missing, seconds, size, costs, list(_needed(study, store)))


def _needed(study: Study, store: Store) -> Iterator[Needed]:
    for family in study.families:
        for one, other in family.pairs:
            seeds = study.complete_seeds(store, (one, other))
            spread = needed = None
            if len(seeds) >= 2:
                values = study.scores(store, family.measure).select(arm=(one, other), seed=seeds).values
                differences = values[0] - values[1]
                spread = float(differences.std(ddof=1))
                if family.smallest_effect is not None:
                    alpha = family.alpha / (1 if family.descriptive else len(family.pairs))
                    needed = seeds_for(differences, family.smallest_effect, alpha, POWER)
            name = f"{one} against {other} ({family.name}, {family.measure})"
            yield Needed(name, family.smallest_effect, family.unit, len(seeds), spread, needed)


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
