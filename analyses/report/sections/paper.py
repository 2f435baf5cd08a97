"""The accuracies that the paper reports, beside those of a study."""

from __future__ import annotations

import pandas as pd

from analyses.report.document import Report
from mechproc.runs.store import Store
from mechproc.studies import paper_page
from mechproc.studies.compare_paper import compare
from mechproc.studies.paper_table import CELLS
from mechproc.studies.study import Study


def add(page: Report, name: str, study: Study, store: Store) -> None:
    """The table of the cells that are compared with this study; none for a study of another scale."""
    cells = [cell for cell in CELLS if cell.study == name and f"{cell.task}: {cell.arms[0]}" in study.by_arm]
    if not cells or not study.name.endswith("(paper)"):
        return
    compared = compare(store, cells, {name: study})
    page.heading("Beside the paper")
    rows = []
    for each in compared:
        rows.append(
            {
                "start": each.cell.initialisation,
                "task": each.cell.task,
                "theirs": f"{100 * each.cell.accuracy:.1f}",
                "ours [95 % interval]": paper_page.ours(each) or "not run",
                "minus random start": paper_page.gained(each),
                "seeds": len(each.seeds),
                "word": each.word,
                "in what they differ": each.cell.note,
            }
        )
    page.table(pd.DataFrame(rows), f"Accuracies in percent. {paper_page.summary(compared)}.")
