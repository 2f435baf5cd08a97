"""Verdicts of comparisons: the test, the interval, the correction, and the reasons for no verdict."""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mechproc.result import Label
from mechproc.statistics.paired import EXACT_SEEDS, Interval

if TYPE_CHECKING:
    import pandas as pd

    from mechproc.statistics.comparisons import Family

DESCRIPTIVE = "no verdict"
"""In place of a word, for comparisons that are described only."""
BELOW_BASELINE = "below the baseline"
"""The word where a typical run of neither arm beats a predictor that does not know the task."""
NEAR_CEILING = 0.005
"""An accuracy this far below the best attainable one, or less, leaves no room for a difference."""


@dataclasses.dataclass(frozen=True)
class Levels:
    """What the scores of a task are held against: the floor and the ceiling of its test items."""

    baseline: float
    """The best accuracy of a predictor that does not know the task."""
    baseline_name: str
    ceiling: float | None = None
    """The best attainable accuracy; None where it is not known."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Treatment against control, paired by the seed's label."""

    treatment: str
    control: str
    seeds: tuple[Label, ...]
    differences: np.ndarray
    """float64 [seed]: treatment minus control."""

    @property
    def mean(self) -> float:
        """The mean difference."""
        return float(self.differences.mean())


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
    """The outcome of one comparison. ``print`` shows its notes and its sentence, ``repr`` its sentence alone."""

    family: Family
    comparison: Comparison
    interval: Interval
    """Of this comparison alone, not widened for the family."""
    p: float
    """Of the sign-flip test, two-sided, before the correction."""
    adjusted_p: float
    """After Holm over the family."""
    mixed_provenance: tuple[str, ...] = ()
    """What the runs of one seed differ in, where that was allowed."""
    below_baseline: bool = False
    """The median score of neither arm is above the best predictor that does not know the task."""
    notes: tuple[str, ...] = ()
    """What a reader must know before the word: floors, ceilings, donors."""

    @property
    def n_seeds(self) -> int:
        """Paired seeds."""
        return len(self.comparison.seeds)

    @property
    def word(self) -> str:
        """``"helps"`` or ``"hurts"`` when the adjusted p is at most alpha *and* the interval excludes zero, else
        ``"undecided"``. ``"too few seeds (5 of 8)"`` before all planned seeds are there; ``"below the baseline"`` when
        the median of neither arm is above the task's best baseline, whatever the test says; ``"no verdict"`` in a
        descriptive family."""
        if self.family.descriptive:
            return DESCRIPTIVE
        if self.n_seeds < self.family.n_seeds:
            return f"too few seeds ({self.n_seeds} of {self.family.n_seeds})"
        if self.below_baseline:
            return BELOW_BASELINE
        if self.adjusted_p > self.family.alpha or not self.interval.excludes_zero:
            return "undecided"
        better = (self.comparison.mean > 0) == self.family.higher_is_better
        return "helps" if better else "hurts"

    def sentence(self) -> str:
        """The verdict in words, no stronger than the interval, and what its numbers leave open."""
        return "; ".join([self._finding(), *self.remarks()])

    def _finding(self) -> str:
        treatment, control, name = self.comparison.treatment, self.comparison.control, self.family.name
        if self.word in ("helps", "hurts"):
            head = f"{treatment} {self.word} {name}"
        elif self.word == "undecided":
            head = f"undecided whether {treatment} helps or hurts {name}"
        elif self.word == BELOW_BASELINE:
            head = f"no verdict on {treatment} for {name}, as neither arm is above the baseline"
        elif self.word == DESCRIPTIVE:
            head = f"{treatment} on {name}, described without a verdict"
        else:
            head = f"{treatment} on {name}: {self.word} for a verdict"
        mixed = f"; mixed provenance, {self.mixed_provenance[0]}" if self.mixed_provenance else ""
        return (
            f"{head}: {self._signed(self.comparison.mean)} {self._unit} against {control} "
            f"({self._interval_text()}, {self.n_seeds} paired seeds, {self._test_text()}{mixed})"
        )

    def row(self) -> dict[str, Any]:
        """The verdict as one row of a table or one JSON object; an end of an unbounded interval is None."""
        low, high = (x if math.isfinite(x) else None for x in (self.interval.low, self.interval.high))
        return {
            "family": self.family.name,
            "measure": self.family.measure,
            "treatment": self.comparison.treatment,
            "control": self.comparison.control,
            "mean_difference": self.comparison.mean,
            "low": low,
            "high": high,
            "level": self.interval.level,
            "unit": self.family.unit,
            "p": self.p,
            "adjusted_p": self.adjusted_p,
            "n_seeds": self.n_seeds,
            "word": self.word,
            "notes": list(self.notes),
            "mixed_provenance": list(self.mixed_provenance),
        }

    def __repr__(self) -> str:
        return f"<Verdict: {self._finding()}>"

    def __str__(self) -> str:
        return "\n".join([*(f"Note: {note}." for note in self.notes), f"{self.sentence()}."])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p><em>Note: {html.escape(note)}.</em></p>" for note in self.notes)
        return f"{notes}<p>{html.escape(self.sentence())}.</p>"

    @property
    def _unit(self) -> str:
        return "points" if self.family.unit == "fraction" else self.family.unit

    def _interval_text(self) -> str:
        if not self.interval.bounded:
            return f"{100 * self.interval.level:.3g} % interval unbounded"
        low, high = self._signed(self.interval.low), self._signed(self.interval.high)
        return f"{100 * self.interval.level:.3g} % interval {low} to {high}"

    def _test_text(self) -> str:
        exact = "exact " if self.n_seeds <= EXACT_SEEDS else ""
        m = len(self.family.pairs)
        if m == 1 or self.family.descriptive:
            return f"{exact}sign-flip p = {self.p:.2g}"
        return f"{exact}sign-flip p = {self.adjusted_p:.2g} after Holm over {m}"

    def remarks(self) -> list[str]:
        """What the numbers in the brackets leave open."""
        remarks = []
        if self.interval.has_no_width:
            remarks.append(
                f"all {self.n_seeds} differences are equal, so that the interval has no width and says nothing of how "
                "far another seed may differ"
            )
        alpha = self.family.alpha
        if self.word == "undecided" and self.interval.excludes_zero and self.p <= alpha < self.adjusted_p:
            remarks.append(
                f"the interval of this comparison alone excludes zero (p = {self.p:.2g}), the correction for "
                f"{len(self.family.pairs)} comparisons raises p above {alpha:g}"
            )
        if self.word == "undecided" and self.adjusted_p <= alpha and not self.interval.excludes_zero:
            remarks.append("the test rejects and the interval includes zero, and a word needs both")
        return remarks

    def _signed(self, difference: float) -> str:
        if self.family.unit == "fraction":
            return f"{100 * difference:+.1f}"
        return f"{difference:+,.0f}" if abs(difference) >= 100 else f"{difference:+.3g}"


class Verdicts(list[Verdict]):
    """Verdicts that print as sentences, each note once and before the sentences that it concerns."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "<Verdicts: none>"

    def table(self) -> pd.DataFrame:
        """One row for each verdict."""
        import pandas as pd

        return pd.DataFrame([verdict.row() for verdict in self])

    def notes(self) -> list[str]:
        """The notes of all verdicts, each once."""
        return list(dict.fromkeys(note for verdict in self for note in verdict.notes))

    def __str__(self) -> str:
        return "\n".join([*(f"Note: {note}." for note in self.notes()), *(f"{v.sentence()}." for v in self)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p><em>Note: {html.escape(note)}.</em></p>" for note in self.notes())
        return notes + "<ul>" + "".join(f"<li>{html.escape(v.sentence())}.</li>" for v in self) + "</ul>"


def level_notes(scores: dict[str, np.ndarray], levels: Levels) -> tuple[bool, tuple[str, ...]]:
    """Whether the median of no arm is above the baseline, and what to say of arms at the floor or the ceiling.

    ``scores``: accuracies float64 [seed] by arm.
    """
    notes = []
    for arm, values in scores.items():
        above = int((values > levels.baseline).sum())
        if 2 * above < len(values) or above == 0:
            notes.append(
                f"{above} of {len(values)} runs of {arm} are above the best predictor that does not know the task "
                f"({levels.baseline_name}, {100 * levels.baseline:.1f} %)"
            )
    ceiling = levels.ceiling
    if ceiling is not None and all(bool((values >= ceiling - NEAR_CEILING).all()) for values in scores.values()):
        notes.append(
            f"every run of {' and '.join(scores)} is at the ceiling ({100 * ceiling:.1f} %), where no difference shows"
        )
    below = all(float(np.median(values)) <= levels.baseline for values in scores.values())
    return below, tuple(notes)
