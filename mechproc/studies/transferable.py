"""What makes a donor transferable: its alphabet, tied embeddings, lengths, steps or learning rate?

A search, on seeds from 1000 upward, that freezes the pretraining of each rule; nothing here is a verdict. Each donor is
one training at a constant rate, probed at four of its steps by two trainings on the task, ``full`` (with the authors'
rule for positions) and attention only: the criterion is the earlier of their two crossings, so that the search does not
choose the answer to the question which of them is better. A probe ends when it crosses, or after 4,000 of the 10,000
steps of the task's schedule. The unit is the donor's training: its checkpoints are not independent.

The list rules and ``k-dyck`` are probed on the haystack, ``k-dyck-shuffle`` and the automata on reversed addition.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from mechproc.model.config import ModelConfig
from mechproc.procedures import (
    Eca,
    EcaVectors,
    Fixed,
    Haystack,
    Identity,
    KDyck,
    KDyckShuffle,
    Procedure,
    ReversedAddition,
    Set,
    Stack,
    Uniform,
)
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.studies.study import Study
from mechproc.training.config import TASK, TrainingConfig
from mechproc.transfer import Recipe, attention_only, fresh, full

SEEDS = (1000, 1001)
"""Search seeds; the first is run for every cell before the second."""
CROSSED = 0.5
"""Validation token accuracy at which a probe has crossed its plateau."""
DONOR_STEPS = (500, 2_000, 5_000, 20_000)
ARMS = {"full": full("donor", positions="donor-if-whole"), "attention": attention_only("donor")}
PROBE = TASK.replace(stop_after=4_000, stop_at_accuracy=CROSSED, checkpoints_per_decade=None)
HAYSTACK, REVERSED_ADDITION = Haystack(), ReversedAddition(protocol="paper")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One setting of a donor's pretraining, and the task that it is probed on."""

    rule: Procedure
    tied: bool
    learning_rate: float
    task: Procedure

    @property
    def name(self) -> str:
        """Every factor of the cell, such as ``set, 100 symbols, lengths 2-20, tied, rate 0.001``."""
        rule = self.rule
        size = {"n_symbols": "symbols", "k": "kinds", "width": "cells"}
        sizes = [f"{getattr(rule, field)} {unit}" for field, unit in size.items() if hasattr(rule, field)]
        support = rule.lengths.support()
        lengths = f"length {support[0]}" if len(support) == 1 else f"lengths {support[0]}-{support[-1]}"
        ties = [] if rule.n_cells else ["tied" if self.tied else "untied"]
        return ", ".join([rule.kind, *sizes, lengths, *ties, f"rate {self.learning_rate:g}"])

    def donor(self, seed: int) -> RunConfig:
        """The donor's training: a constant rate after the warm-up, so that a checkpoint is a shorter training."""
        rule, n_cells = self.rule, self.rule.n_cells
        if n_cells is None:
            model = ModelConfig(2, 4, 16, rule.n_ctx, rule.d_vocab, tied_embeddings=self.tied)
        else:
            model = ModelConfig(2, 4, 16, rule.n_ctx, n_cells, input="vectors", d_input=n_cells)
        training = TrainingConfig(
            steps=DONOR_STEPS[-1],
            batch_size=128,
            learning_rate=self.learning_rate,
            schedule="constant",
            warmup_steps=250,
            weight_decay=0.01,
            evaluate_every=500,
            checkpoints_per_decade=None,
            checkpoints_at=DONOR_STEPS,
        )
        return RunConfig(rule, model, training, seed)

    def probe(self, arm: str, seed: int, donor_steps: int) -> RunConfig:
        """A training on the task from parts of the donor as it was after ``donor_steps``."""
        return _task_run(self.task, seed, ARMS[arm], {"donor": RunAtStep(self.donor(seed), donor_steps)})

    def probes(self, seed: int) -> Iterator[tuple[str, int, RunConfig]]:
        """(arm, donor steps, run) for every probe of one donor."""
        for steps, arm in itertools.product(DONOR_STEPS, ARMS):
            if arm == "full" and self.rule.n_cells is not None:
                continue  # a model that reads vectors has no token embedding to take the mean of
            yield arm, steps, self.probe(arm, seed, steps)


def _task_run(task: Procedure, seed: int, recipe: Recipe, donors: dict[str, RunAtStep]) -> RunConfig:
    model = ModelConfig(2, 4, 16, task.n_ctx, task.d_vocab)
    return RunConfig(task, model, PROBE, seed, recipe, donors)


def random_start(task: Procedure, seed: int) -> RunConfig:
    """The probe of no donor."""
    return _task_run(task, seed, fresh(), {})


def _list_cells(rule: type[Identity] | type[Set] | type[Stack]) -> Iterator[Cell]:
    """Eight of 32 cells: alphabets x tied crossed; lengths and rate as the interactions of their bits with ``tied``."""
    for number, n_symbols in enumerate((20, 50, 100, 200)):
        for tied in (True, False):
            high, low = bool(number & 2), bool(number & 1)
            lengths = Fixed(20) if low == tied else Uniform(2, 20)
            rate = 3e-3 if high == tied else 1e-3
            yield Cell(rule(lengths=lengths, n_symbols=n_symbols), tied, rate, HAYSTACK)


def _bracket_cells(rule: type[KDyck] | type[KDyckShuffle], task: Procedure) -> Iterator[Cell]:
    """Four of eight cells: kinds x tied crossed, the rate as their interaction."""
    for number, k in enumerate((16, 64)):
        for tied in (True, False):
            yield Cell(rule(k=k), tied, 3e-3 if bool(number) == tied else 1e-3, task)


def cells() -> list[Cell]:
    """All cells, in the order in which they are run; the cell that pilot runs found good comes first."""
    pilot = Cell(Set(lengths=Uniform(2, 20), n_symbols=100), True, 1e-3, HAYSTACK)
    automata: list[Cell] = [
        *(Cell(Eca(), tied, rate, REVERSED_ADDITION) for tied, rate in ((True, 1e-3), (False, 3e-3))),
        *(Cell(EcaVectors(), False, rate, REVERSED_ADDITION) for rate in (1e-3, 3e-3)),
    ]
    listed = [_list_cells(rule) for rule in (Set, Identity, Stack)]
    ordered = [
        pilot,
        *(cell for row in zip(*listed, strict=True) for cell in row),
        *_bracket_cells(KDyck, HAYSTACK),
        *automata,
        *_bracket_cells(KDyckShuffle, REVERSED_ADDITION),
    ]
    return list(dict.fromkeys(ordered))


def runs(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """Every run of the search, seed by seed: random starts, then cell by cell the probes, whose donors come first."""
    planned: list[RunConfig] = []
    for seed in seeds:
        planned += [random_start(task, seed) for task in (HAYSTACK, REVERSED_ADDITION)]
        planned += [run for cell in cells() for _, _, run in cell.probes(seed)]
    return planned


def study(seeds: Sequence[int] | None = None) -> Study:
    """The search as a study, without comparisons: it describes, and no verdict is drawn from it.

    Arms are named by task, cell, donor steps and what is moved, such as ``haystack: set, ..., 500 steps, full``.
    """
    arms: list[tuple[str, RunConfig]] = []
    for seed in SEEDS if seeds is None else seeds:
        arms += [(f"{task.short_name}: random", random_start(task, seed)) for task in (HAYSTACK, REVERSED_ADDITION)]
        for cell in cells():
            where = f"{cell.task.short_name}: {cell.name}"
            arms += [(f"{where}, {steps:,} steps, {arm}", run) for arm, steps, run in cell.probes(seed)]
    return Study("transferable", arms, question=(__doc__ or "").splitlines()[0])
