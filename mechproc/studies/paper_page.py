"""Ours beside the paper's as a table in Markdown, kept between two marks of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mechproc import pages
from mechproc.studies.compare_paper import Compared

NAME = "compare-paper"
"""The name of the marks between which the table stands."""


def summary(compared: Sequence[Compared]) -> str:
    """How many cells got which word."""
    counts = Counter(each.word for each in compared)
    return f"{len(compared)} reported accuracies: " + ", ".join(f"{n} {word}" for word, n in counts.most_common())


def markdown(compared: Sequence[Compared]) -> str:
    """The table, one row for each cell, and what differs between theirs and ours."""
    head = ("start", "task", "theirs", "ours [95 % interval]", "minus random start", "every seed of ours", "")
    rows: list[list[str]] = []
    notes: list[str] = []
    for each in compared:
        cell, seeds, mark = each.cell, "", ""
        if cell.note:
            notes += [cell.note] if cell.note not in notes else []
            mark = f" ({notes.index(cell.note) + 1})"
        if each.seeds:
            first, last = min(each.seeds), max(each.seeds)
            named = f"{first} to {last}" if last > first else f"{first}"
            seeds = f"{named}: " + ", ".join(f"{100 * a:.1f}" for a in each.accuracies)
        gain = gained(each)
        theirs, word = f"{100 * cell.accuracy:.1f}", f"**{each.word}**"
        rows.append([f"{cell.initialisation}{mark}", cell.task, theirs, ours(each), gain, seeds, word])
    lines = [f"{summary(compared)}.", "", pages.table(head, rows), ""]
    lines += [*(f"{number}. {note[0].upper()}{note[1:]}." for number, note in enumerate(notes, 1))]
    return "\n".join(lines)


def ours(each: Compared) -> str:
    """Our mean with its interval, in percent; empty before there is a seed."""
    if each.mean is None:
        return ""
    mean = f"{100 * each.mean:.1f}"
    if each.interval is None or not each.interval.bounded:
        return mean
    return f"{mean} [{100 * each.interval.low:.1f}, {100 * each.interval.high:.1f}]"


def table(compared: Sequence[Compared]) -> pd.DataFrame:
    """One row for each cell and seed of ours; a cell without a seed has one row without."""
    rows = []
    for each in compared:
        cell, interval = each.cell, each.interval
        bounded = interval is not None and interval.bounded
        about = {
            "initialisation": cell.initialisation,
            "task": cell.task,
            "source": cell.source,
            "theirs": cell.accuracy,
            "study": cell.study,
            "arm": each.arm,
            "mean": each.mean,
            "low": interval.low if bounded and interval else None,
            "high": interval.high if bounded and interval else None,
            "n_seeds": len(each.seeds),
            "word": each.word,
            "note": cell.note,
        }
        scored = list(zip(each.seeds, each.accuracies, strict=True)) or [(None, None)]
        rows += [about | {"seed": seed, "accuracy": accuracy} for seed, accuracy in scored]
    return pd.DataFrame(rows)


def write(path: Path, compared: Sequence[Compared]) -> None:
    """Put the table between the marks of a page. Errors: ``StoreError`` where the page or its marks are missing."""
    pages.write_between(path, NAME, markdown(compared))


def gained(each: Compared) -> str:
    """Our mean gain over the random start with its interval, in points; empty for the random start itself."""
    if each.gain is None or each.cell.initialisation == "random":
        return ""
    mean = sum(each.gains) / len(each.gains)
    ends = f" [{100 * each.gain.low:+.1f}, {100 * each.gain.high:+.1f}]" if each.gain.bounded else ""
    return f"{100 * mean:+.1f}{ends}"
