"""A study at a glance: its arms, how many seeds are complete, and the verdict of each comparison and claim."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mechproc import notebook
from mechproc.errors import MechprocError
from mechproc.runs.store import Store
from mechproc.transfer.arms import arm as start_of

if TYPE_CHECKING:
    from mechproc.studies.study import Study


@dataclasses.dataclass(frozen=True, repr=False)
class Overview:
    """What a study plans, and, where a store is given, what its runs say so far. ``print`` it, or show it in a
    notebook."""

    study: Study
    store: Store | None = None

    def heading(self) -> str:
        """Name, arms, seeds, comparisons and claims, in one line."""
        study = self.study
        comparisons, claims = sum(len(family.pairs) for family in study.families), len(study.claims)
        counts = [_count(len(study.arms), "arm"), _count(len(study.seeds), "seed")]
        counts += [_count(comparisons, "comparison")] + [_count(claims, "claim")] * bool(claims)
        return f"{study.name}: {', '.join(counts)}"

    def arms(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: each arm, what it starts from, and of runs in the store how many are complete and their mean
        score."""
        head, rows = ["arm", "starts from"], []
        head += ["seeds"] if self.store is None else ["seeds complete", "mean test accuracy"]
        for arm, runs in self.study.by_arm.items():
            row = [arm, start_of(next(iter(runs.values())).recipe)]
            if self.store is None:
                row.append(str(len(runs)))
            else:
                known = [self.store.test(run)["accuracy"] for run in runs.values() if self.store.has_scores(run)]
                row += [f"{len(known)} of {len(runs)}", f"{100 * float(np.mean(known)):.1f} %" if known else "not run"]
            rows.append(row)
        return head, rows

    def statements(self) -> list[str]:
        """Each comparison and claim: its verdict, or that it is planned."""
        study, said = self.study, []
        if self.store is not None:
            try:
                verdicts = study.judge(self.store)
                said += [f"Note: {note}." for note in verdicts.notes()]
                said += [f"{verdict.sentence()}." for verdict in verdicts]
                judged = {verdict.family for verdict in verdicts}
                claims = [" ".join(str(verdict).splitlines()) for verdict in study.judge_claims(self.store)]
            except MechprocError as error:
                return [f"No verdicts: {error}"]
        else:
            judged, claims = set(), [f"Claim {claim.name}: {claim.statement}" for claim in study.claims]
        planned = [
            f"{one} against {other} on {family.name}: planned, {family.n_seeds} seeds."
            for family in study.families
            if family not in judged
            for one, other in family.pairs
        ]
        return [*said, *planned, *claims]

    def __repr__(self) -> str:
        return f"<Overview of {self.heading()}>"

    def __str__(self) -> str:
        head, rows = self.arms()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        question = [self.study.question] if self.study.question else []
        return "\n".join([self.heading(), *question, *(line.rstrip() for line in lines), *self.statements()])

    def _repr_html_(self) -> str:
        heading = notebook.paragraph(self.study.question, f"{self.heading()}.")
        return heading + notebook.table(*self.arms()) + notebook.points(self.statements())


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'s' if n != 1 else ''}"
