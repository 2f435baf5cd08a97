"""A study: runs planned by a loop, and the comparisons and claims drawn from them, all fixed before the first run."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mechproc.errors import ConfigError, require
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import Executor, Report, run_all
from mechproc.runs.store import Store
from mechproc.statistics.claims import Claim, ClaimVerdict
from mechproc.statistics.comparisons import Family
from mechproc.statistics.verdicts import Verdicts
from mechproc.studies import readings
from mechproc.studies.comparable import SETTINGS, Setting, check_contrast, check_donors, share_a_donor
from mechproc.studies.overview import Overview


@dataclasses.dataclass(frozen=True, repr=False)
class Study:
    """Arms by seeds. ``runs`` is a plain list of (arm, run); asking for ten seeds after five runs five.

    Within a seed, the arms that are compared share the task, the fresh weights, the order of the data and the test
    items, so that their differences are paired. ``Study.transfer`` builds the usual one.

    Errors: ``ConfigError`` when a comparison or claim names an arm that does not exist, arms with other seeds, or arms
    that differ in more than what they start from and ``may_differ``; and when one donor feeds several seeds of an arm
    without ``shared_donors``.
    """

    name: str
    runs: Sequence[tuple[str, RunConfig]]
    families: Sequence[Family] = ()
    """The comparisons, fixed before anything runs; those of a family share one correction."""
    claims: Sequence[Claim] = ()
    """The statements that the runs were planned to test."""
    may_differ: Sequence[Setting] = ()
    """What compared arms may differ in beside recipe and donors: ``"procedure"``, ``"model"``, ``"training"``,
    ``"start"``."""
    shared_donors: bool = False
    """Whether several seeds may have the same donor: verdicts are about this one donor then."""
    question: str = ""
    """What the study asks, in one sentence."""

    by_arm: Mapping[str, Mapping[int, RunConfig]] = dataclasses.field(init=False, repr=False, compare=False)
    """The runs by arm and seed."""

    def __post_init__(self) -> None:
        require(len(self.runs) > 0, "runs", self.runs, "at least one (arm, run)")
        by_arm: dict[str, dict[int, RunConfig]] = {}
        for arm, run in self.runs:
            seeds = by_arm.setdefault(arm, {})
            require(run.seed not in seeds, f"seeds of arm {arm!r}", run.seed, "each seed once")
            seeds[run.seed] = run
        object.__setattr__(self, "by_arm", by_arm)
        given = self.families
        require(not isinstance(given, Family), "families", given, "a list of families")
        for setting in self.may_differ:
            require(setting in SETTINGS, "may_differ", setting, f"some of {', '.join(SETTINGS)}")
        known = ", ".join(by_arm)
        for family in self.families:
            for one, other in family.pairs:
                name = f"family {family.name!r}"
                check_contrast(name, {one: 1.0, other: -1.0}, by_arm, self.may_differ, known)
        for claim in self.claims:
            for contrast in claim.contrasts:
                name = f"claim {claim.name!r}"
                check_contrast(name, contrast.weights, by_arm, self.may_differ, known)
        check_donors(by_arm, self.shared_donors)

    @classmethod
    def transfer(cls, name: str, **settings: Any) -> Study:
        """Parts of donors moved into fresh models, which are trained on a task; see ``studies.transfer.transfer``."""
        from mechproc.studies.transfer import transfer

        return transfer(name, **settings)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order of ``runs``."""
        return tuple(self.by_arm)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(sorted({run.seed for _, run in self.runs}))

    def run_of(self, arm: str, seed: int) -> RunConfig:
        """The run of one arm and seed."""
        run = self.by_arm.get(arm, {}).get(seed)
        if run is None:
            raise ConfigError(f"study {self.name!r} has no arm {arm!r} with seed {seed}")
        return run

    def only(self, pattern: str, seeds: Sequence[int] | None = None) -> list[RunConfig]:
        """The runs of the arms whose names match ``pattern``, in which ``*`` stands for any text; of ``seeds``, or all.

        Errors: ``ConfigError`` for a pattern that no arm matches, and for a seed that the study does not have.
        """
        for seed in seeds or ():
            require(seed in self.seeds, "only_seeds", seed, f"some of {', '.join(map(str, self.seeds))}")
        chosen = [run for arm, run in self.runs if fnmatch.fnmatchcase(arm, pattern)]
        require(
            bool(chosen), "only", pattern, f"the name of an arm, or a pattern such as 'set*': {', '.join(self.arms)}"
        )
        return [run for run in chosen if seeds is None or run.seed in seeds]

    def complete(
        self,
        store: Store,
        workers: int | None = None,
        report: Report | None = None,
        only: str = "*",
        executor: Executor | None = None,
        only_seeds: Sequence[int] | None = None,
    ) -> None:
        """Train the runs that are missing in ``store``; see ``run_all``, and ``only`` for which they are."""
        run_all(self.only(only, only_seeds), store, workers, report, executor=executor)

    # ---- what was measured so far; see ``mechproc.studies.readings`` -------------------------------------------------

    def scores(self, store: Store, measure: str = "accuracy") -> Result:
        """One measure of every run, test token accuracy by default, axes (arm, seed)."""
        return readings.measured(self, store, measure)

    def crossings(self, store: Store, threshold: float) -> Result:
        """First validation step at which token accuracy was at least ``threshold``, axes (arm, seed)."""
        return readings.crossings(self, store, threshold)

    def curves(self, store: Store) -> Result:
        """Validation token accuracy along training, axes (arm, seed, step)."""
        return readings.curves(self, store)

    def donors(self, store: Store) -> pd.DataFrame:
        """One row for each donor: its accuracy on its own rule, the ceiling, and the best trivial baseline."""
        return readings.donors(self, store)

    def table(self, store: Store) -> pd.DataFrame:
        """One row for each complete run."""
        return readings.table(self, store)

    def overview(self, store: Store) -> Overview:
        """All of it at a glance: arms, seeds that are complete, mean scores, verdicts and claims; for ``print`` and for
        notebooks."""
        return Overview(self, store)

    # ---- what follows from it ----------------------------------------------------------------------------------------

    def judge(self, store: Store, *, allow_mixed_provenance: bool = False) -> Verdicts:
        """The verdict of each comparison, family by family, on the seeds that are complete in all arms of the family.

        Notes on floors, ceilings and donors stand with the verdicts. A family without a complete seed has none.
        """
        verdicts = Verdicts()
        for family in self.families:
            seeds = self.complete_seeds(store, family.arms)
            if not seeds:
                continue
            scores = self.scores(store, family.measure).select(arm=family.arms, seed=seeds)
            first = self.run_of(family.arms[0], seeds[0])
            floor = family.measure == "accuracy" and "procedure" not in self.may_differ
            verdicts += family.judge(
                scores,
                levels=readings.levels(first, store) if floor else None,
                notes={arm: self.notes(store, arm) for arm in family.arms},
                allow_mixed_provenance=allow_mixed_provenance,
            )
        return verdicts

    def judge_claims(self, store: Store, *, allow_mixed_provenance: bool = False) -> list[ClaimVerdict]:
        """The verdict on each claim, from the seeds that are complete in all of its arms.

        Where the runs of a seed differ in provenance and that is not allowed, the claim has no word; the others do.
        """
        verdicts = []
        for claim in self.claims:
            seeds = self.complete_seeds(store, claim.arms)
            scores = self.scores(store, claim.measure).select(arm=claim.arms, seed=seeds) if seeds else {}
            notes = {arm: self.notes(store, arm) for arm in claim.arms}
            verdict = claim.judge(scores, notes=notes, allow_mixed_provenance=True)
            refused = verdict.mixed_provenance and not allow_mixed_provenance
            verdicts.append(verdict.without_word() if refused else verdict)
        return verdicts

    def complete_seeds(self, store: Store, arms: Sequence[str]) -> list[int]:
        """The seeds for which every one of ``arms`` has a complete run."""
        first, *others = (
            {seed for seed, run in self.by_arm[arm].items() if readings.is_known(store, run)} for arm in arms
        )
        return sorted(first.intersection(*others))

    def minutes_per_seed(self, store: Store, arms: Sequence[str]) -> float | None:
        """Minutes of one core that one seed of ``arms`` takes with its donors, as the complete runs took; None before
        every one of them has been run once."""
        total = 0.0
        for seed in self.complete_seeds(store, arms)[:1]:
            needed = {r.identity: r for arm in arms for r in self.run_of(arm, seed).with_donors()}
            total = sum(store.test(run)["seconds"] for run in needed.values() if readings.is_known(store, run))
        return total / 60 if total else None

    def notes(self, store: Store, arm: str) -> tuple[str, ...]:
        """What must be known of an arm before its verdicts: donors that do not know their rule, shared donors."""
        shared = [
            f"all seeds of {arm} share donors named {name}: verdicts are about these models, not about their rule"
            for name in share_a_donor(self.by_arm[arm].values())
        ]
        return (*readings.donor_notes(self, store, arm), *shared)

    # ---- shown -------------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Study {Overview(self).heading()}>"

    def _repr_html_(self) -> str:
        return Overview(self)._repr_html_()
