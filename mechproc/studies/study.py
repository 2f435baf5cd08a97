"""A study: runs planned by a loop, and the comparisons to draw from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechproc.errors import ConfigError, require
from mechproc.provenance import PROVENANCE_FIELDS
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import Report, run_all
from mechproc.runs.store import Store
from mechproc.statistics.comparisons import Family, Verdict
from mechproc.statistics.survival import crossing_steps


@dataclasses.dataclass(frozen=True)
class Study:
    """Arms by seeds. ``runs`` is a plain list of (arm, run); asking for ten seeds after five runs five.

    Every arm has the same seeds, and within a seed all arms share the fresh weights, the order of the data and the
    test items, so that their differences are paired.
    """

    name: str
    runs: Sequence[tuple[str, RunConfig]]
    family: Family
    """The comparisons, fixed before anything runs."""

    def __post_init__(self) -> None:
        require(len(self.runs) > 0, "runs", self.runs, "at least one (arm, run)")
        by_arm: dict[str, list[int]] = {}
        for arm, run in self.runs:
            by_arm.setdefault(arm, []).append(run.seed)
        for arm, seeds in by_arm.items():
            require(len(set(seeds)) == len(seeds), f"seeds of arm {arm!r}", sorted(seeds), "each once")
            require(
                set(seeds) == set(self.seeds),
                f"seeds of arm {arm!r}",
                sorted(seeds),
                f"those of every arm: {list(self.seeds)}",
            )
        for pair in self.family.pairs:
            for arm in pair:
                require(arm in by_arm, "family.pairs", pair, f"arms of the study: {', '.join(by_arm)}")

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, in the order of ``runs``."""
        return tuple(dict.fromkeys(arm for arm, _ in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(sorted({run.seed for _, run in self.runs}))

    def run_of(self, arm: str, seed: int) -> RunConfig:
        """The run of one arm and seed."""
        for name, run in self.runs:
            if (name, run.seed) == (arm, seed):
                return run
        raise ConfigError(f"study {self.name!r} has no arm {arm!r} with seed {seed}")

    def complete(self, store: Store, workers: int | None = None, report: Report | None = None) -> None:
        """Run whatever is missing in ``store``; see ``run_all``."""
        run_all([run for _, run in self.runs], store, workers, report)

    def scores(self, store: Store) -> Result:
        """Test token accuracy of every run, axes (arm, seed)."""
        return self._result(
            [[store.test(self.run_of(arm, seed))["accuracy"] for seed in self.seeds] for arm in self.arms],
            store,
            name=f"{self.name}: test accuracy",
            direction="higher: more of the scored tokens are predicted",
            what_it_does_not_show="whether more training would have closed the gap: it is a speed at a fixed budget",
        )

    def crossings(self, store: Store, threshold: float) -> Result:
        """First validation step at which token accuracy was at least ``threshold``, axes (arm, seed).

        A run that never got there has no step: its cell is undefined, with the number of steps it was given.
        """
        steps, never = [], []
        for arm in self.arms:
            row = []
            for seed in self.seeds:
                run = self.run_of(arm, seed)
                metrics = store.metrics(run)
                crossing = crossing_steps(metrics["step"].to_numpy(), metrics["token_accuracy"].to_numpy(), threshold)
                row.append(crossing.step if crossing.crossed else float("nan"))
                if not crossing.crossed:
                    never.append(({"arm": arm, "seed": seed}, f"not within {run.training.last_step} steps"))
            steps.append(row)
        return self._result(
            steps,
            store,
            name=f"{self.name}: steps to {threshold:.0%}",
            unit="steps",
            direction="lower: learned sooner",
            what_it_does_not_show="anything finer than the distance between two validations",
            undefined=never,
        )

    def curves(self, store: Store) -> Result:
        """Validation token accuracy along training, axes (arm, seed, step); missing after a run has stopped."""
        rows = {(arm, run.seed): store.metrics(run).set_index("step")["token_accuracy"] for arm, run in self.runs}
        steps = sorted({int(step) for curve in rows.values() for step in curve.index})
        values = [[rows[arm, seed].reindex(steps).tolist() for seed in self.seeds] for arm in self.arms]
        return self._result(
            values,
            store,
            name=f"{self.name}: validation accuracy",
            direction="higher: more of the scored tokens are predicted",
            what_it_does_not_show="test accuracy: these items steer nothing here, but they are fewer",
            axes=("arm", "seed", "step"),
            coordinates={"arm": self.arms, "seed": self.seeds, "step": steps},
        )

    def donors(self, store: Store) -> pd.DataFrame:
        """One row for each donor and seed: its own accuracy on its rule, the ceiling, and the best trivial baseline."""
        rows = {}
        for _, run in self.runs:
            for name, donor in ((name, needed) for name, origin in run.donors.items() for needed in origin.needs):
                test = store.test(donor)
                best = max(test["baselines"], key=test["baselines"].get)
                rows[donor.identity] = {
                    "donor": name,
                    "seed": donor.seed,
                    "accuracy": test["accuracy"],
                    "ceiling": test["ceiling"],
                    "baseline": test["baselines"][best],
                    "baseline_name": best,
                    "steps": test["steps"],
                }
        return pd.DataFrame(list(rows.values())).sort_values(["donor", "seed"], ignore_index=True)

    def judge(self, store: Store, *, allow_mixed_provenance: bool = False) -> list[Verdict]:
        """The verdict of each comparison of the family, on test accuracy."""
        return self.family.judge(self.scores(store), allow_mixed_provenance=allow_mixed_provenance)

    def _result(self, values: list, store: Store, **fields: Any) -> Result:
        where = [
            ({"arm": arm, "seed": run.seed}, {k: store.provenance(run).get(k, "unknown") for k in PROVENANCE_FIELDS})
            for arm, run in self.runs
        ]
        defaults = {
            "unit": "fraction",
            "axes": ("arm", "seed"),
            "coordinates": {"arm": self.arms, "seed": self.seeds},
            "metadata": {"study": self.name},
        }
        return Result(values=np.array(values, dtype=np.float64), provenance=where, **(defaults | fields))
