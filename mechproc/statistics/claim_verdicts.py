"""The verdict on a claim, and how it is written."""

from __future__ import annotations

import dataclasses
import html
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mechproc.statistics.measures import measure
from mechproc.statistics.paired import Interval
from mechproc.statistics.power import seeds_for, seeds_to_show

if TYPE_CHECKING:
    from mechproc.statistics.claims import Claim, Contrast

Word = Literal["supported", "refuted", "undecided"]


@dataclasses.dataclass(frozen=True, repr=False)
class ContrastVerdict:
    """One contrast of a claim."""

    contrast: Contrast
    values: np.ndarray
    """float64 [seed]: the contrast within each seed; positive is the declared side."""
    interval: Interval
    """Of this contrast alone."""
    joint_interval: Interval
    """At the level 1 - alpha / m for m contrasts, widened by what the seeds may fail to show: it decides on refuted and
    equivalent."""
    p: float
    adjusted_p: float
    """After Holm over the contrasts of the claim; of best of all, ``p``."""
    word: Word

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(self.values.mean())

    def __repr__(self) -> str:
        seeds, p = len(self.values), f"p = {self.adjusted_p:.2g}"
        return f"<ContrastVerdict {self.contrast.name}: {self.word}, mean {self.mean:+.4g}, {seeds} seeds, {p}>"

    def seeds_for_decision(self, alpha: float) -> int | None:
        """Seeds with which an effect of the smallest size that matters would probably be decided, given the spread, and
        with which so many crossings as it takes would probably show; None: more than 1,000."""
        effect = self.contrast.smallest_effect
        needed = seeds_for(self.values, effect, alpha)
        if needed is None or self.contrast.height <= effect:
            return needed
        return max(needed, seeds_to_show(effect / self.contrast.height, alpha / 2))


@dataclasses.dataclass(frozen=True, repr=False)
class ClaimVerdict:
    """A claim with its word. ``print`` shows notes, word, and each contrast."""

    claim: Claim
    contrasts: tuple[ContrastVerdict, ...]
    """Empty before two seeds are complete in every arm."""
    n_seeds: int
    """Seeds that are complete in every arm of the claim."""
    notes: tuple[str, ...] = ()
    mixed_provenance: tuple[str, ...] = ()
    """What the runs of one seed differ in: each field once, with two runs that show it."""
    withheld: bool = False
    """Whether there is no word because provenances are mixed."""

    def without_word(self) -> ClaimVerdict:
        """This verdict without contrasts and word, where mixed provenances are not allowed."""
        return dataclasses.replace(self, contrasts=(), withheld=True)

    @property
    def word(self) -> str:
        """``supported``, ``refuted`` or ``undecided``; ``not run`` and ``too few seeds (5 of 10)`` before that, and
        ``mixed provenance`` where that is not allowed."""
        if self.n_seeds == 0:
            return "not run"
        if self.withheld:
            return "mixed provenance"
        if self.n_seeds < self.claim.n_seeds:
            return f"too few seeds ({self.n_seeds} of {self.claim.n_seeds})"
        words = [contrast.word for contrast in self.contrasts]
        if "refuted" in words:
            return "refuted"
        return "supported" if set(words) == {"supported"} else "undecided"

    def seeds_for_decision(self) -> int | None:
        """Seeds in all that would probably decide what is open, given the spread so far; None: more than 1,000."""
        m = 1 if self.claim.is_best_of_all else len(self.contrasts)
        open_ = [contrast for contrast in self.contrasts if contrast.word == "undecided"]
        needed = [contrast.seeds_for_decision(self.claim.alpha / m) for contrast in open_]
        known = [n for n in needed if n is not None]
        return max([*known, self.claim.n_seeds]) if len(known) == len(needed) else None

    def price(self, minutes_per_seed: float | None = None) -> str:
        """What a decision would probably cost, beside the seeds that there are; empty where there is nothing to decide.

        ``minutes_per_seed``: of one core, for all arms of the claim.
        """
        if self.word in ("supported", "refuted") or len(self.contrasts) == 0:
            return ""
        total = self.seeds_for_decision()
        if total is None:
            return "a decision would take more than 1,000 seeds"
        more = max(total - self.n_seeds, 0)
        cost = "" if minutes_per_seed is None else f", {more * minutes_per_seed:,.0f} minutes of one core"
        if more == 0:
            return "more seeds are not what a decision lacks: the effect lies near an edge of what was declared"
        return f"a decision would probably take {more} more seeds{cost}"

    def rows(self) -> list[dict[str, Any]]:
        """One row of a table for each contrast; one without numbers before there are any."""
        head = {"claim": self.claim.name, "statement": self.claim.statement, "word": self.word, "n_seeds": self.n_seeds}
        if not self.contrasts:
            return [head]
        return [
            head
            | {
                "contrast": c.contrast.name,
                "test": c.contrast.test,
                "contrast_word": c.word,
                "mean": c.mean,
                "low": c.interval.low if math.isfinite(c.interval.low) else None,
                "high": c.interval.high if math.isfinite(c.interval.high) else None,
                "smallest_effect": c.contrast.smallest_effect,
                "unit": measure(self.claim.measure).unit,
                "p": c.p,
                "adjusted_p": c.adjusted_p,
            }
            for c in self.contrasts
        ]

    def __repr__(self) -> str:
        return f"<ClaimVerdict {self.claim.name}: {self.word}. {self.claim.statement}>"

    def __str__(self) -> str:
        lines = [f"Note: {note}." for note in self.notes]
        lines += [f"Note: mixed provenance, {self.mixed_provenance[0]}."] if self.mixed_provenance else []
        lines += [f"Claim {self.claim.name}: {self.word}. {self.claim.statement}"]
        lines += [f"  {line}" for line in self.contrast_lines()]
        return "\n".join(lines)

    def contrast_lines(self) -> list[str]:
        """Each contrast with its effect, interval, p and word."""
        return [self._contrast(c) for c in self.contrasts]

    def _repr_html_(self) -> str:
        return "<br>".join(html.escape(line) for line in str(self).splitlines())

    def _contrast(self, c: ContrastVerdict) -> str:
        unit = measure(self.claim.measure).unit
        factor, name, form = (100.0, "points", "+.1f") if unit == "fraction" else (1.0, unit, "+.4g")
        effect = f"{factor * c.contrast.smallest_effect:.4g}"
        aim = f"equivalent within {effect}" if c.contrast.test == "equivalence" else f"smallest effect {effect}"
        shown = c.joint_interval if c.contrast.test == "equivalence" else c.interval
        ends = f"{factor * shown.low:{form}} to {factor * shown.high:{form}}" if shown.bounded else "unbounded"
        return (
            f"{c.contrast.name}: {factor * c.mean:{form}} {name} ({100 * shown.level:.3g} % interval {ends}, {aim}, "
            f"p = {c.adjusted_p:.2g}, {self.n_seeds} seeds): {c.word}"
        )
