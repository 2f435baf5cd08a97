"""The accuracies that the paper reports, each with the arms of our studies that measure the same.

The numbers are facts from arXiv 2505.22308 and, of union, from its follow-up arXiv 2601.21725: token accuracy, the mean
of ten seeds. Of sorting the paper gives no sizes. Ours were chosen so that a random start lands near theirs
(``mechproc.studies.sorting_sizes``), so that only directions can be compared there.
"""

from __future__ import annotations

import dataclasses

PAPER = "arXiv 2505.22308"
FOLLOW_UP = "arXiv 2601.21725"
TASKS = ("haystack", "addition", "reversed addition", "sorting", "multiplication")
DIRECTION_ONLY = ("sorting",)
"""Tasks whose sizes the paper does not give."""
RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One reported accuracy."""

    initialisation: str
    task: str
    accuracy: float
    """A fraction."""
    study: str
    """The name of our study that has the arms."""
    arms: tuple[str, ...]
    """What measures the same, without the task. Of several, the one with the highest mean is compared."""
    source: str = PAPER
    note: str = ""
    """In what theirs and ours differ."""


def _row(
    initialisation: str,
    study: str,
    arms: tuple[str, ...],
    reported: dict[str, float],
    source: str = PAPER,
    notes: dict[str, str] | None = None,
) -> list[Cell]:
    """The cells of one row; percent by task."""
    studies = {"multiplication": "multiplication"}
    return [
        Cell(initialisation, task, percent / 100, studies.get(task, study), arms, source, (notes or {}).get(task, ""))
        for task, percent in reported.items()
    ]


CELLS: tuple[Cell, ...] = (
    *_row(
        RANDOM,
        "rules-by-task",
        (RANDOM,),
        {"haystack": 11.3, "addition": 59.1, "reversed addition": 76.4, "sorting": 82.7, "multiplication": 42.7},
        notes={"sorting": "our sizes were chosen so that this cell is near theirs"},
    ),
    *_row("set, full", "rules-by-task", ("set, full",), {"haystack": 18.9, "reversed addition": 44.6}),
    *_row(
        "set, attention",
        "rules-by-task",
        ("set, attention",),
        {"haystack": 88.9, "addition": 81.1, "reversed addition": 54.4, "sorting": 98.1},
    ),
    *_row(
        "eca 110, full",
        "rules-by-task",
        ("eca, full",),
        {"haystack": 10.5, "reversed addition": 91.0, "sorting": 76.9},
        notes={
            "reversed addition": "our models read tokens, and the paper does not say what its models read; the arm "
            "eca-vectors, full has models that read vectors (negative results)"
        },
    ),
    *_row(
        "k-dyck, best",
        "rules-by-task",
        ("k-dyck, full", "k-dyck, attention", "k-dyck, MLPs"),
        {"haystack": 96.9},
        notes={"haystack": "the best of full, attention and MLPs, chosen on the seeds that are shown"},
    ),
    *_row(
        "set attention + eca 110 MLPs",
        "composition",
        ("set attention + eca MLPs",),
        {"haystack": 94.4, "addition": 80.3, "reversed addition": 82.9, "sorting": 99.4},
    ),
    *_row(
        "best rule, its data shuffled",
        "shuffled-data",
        ("shuffled set, full", "shuffled set, attention"),
        {"haystack": 10.3},
        notes={"haystack": "theirs is the best rule of the task, ours is set, the better of full and attention"},
    ),
    *_row("best rule, its data shuffled", "shuffled-data", ("shuffled eca, full",), {"reversed addition": 65.0}),
    *_row("best rule, its data shuffled", "multiplication", ("shuffled union, full",), {"multiplication": 48.4}),
    *_row("union, full", "multiplication", ("union, full",), {"multiplication": 63.5}, source=FOLLOW_UP),
)
"""Every reported accuracy, row by row."""
