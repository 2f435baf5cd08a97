"""The tables of ``docs/questions/weights-of-rules.md``, from what ``analyses.weights.of_rules`` wrote.

    python -m analyses.weights.page

Each table stands between marks in the page; the sentences around them are written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mechproc.files import read_json
from mechproc.pages import table, write_sections

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results" / "analyses" / "weights" / "of_rules.json"
OF_DONORS = ROOT / "results" / "analyses" / "weights" / "of_donors.json"
RATES = ROOT / "results" / "analyses" / "weights" / "error_rates.json"
PAGE = ROOT / "docs" / "questions" / "weights-of-rules.md"
SHOWN = ("within a rule", "between rules", "same start", "untrained", "to untrained", "own rule nearest", "adjusted p")


def sections(measured: dict[str, Any], donors: dict[str, Any], rates: dict[str, Any]) -> dict[str, str]:
    """The tables by the name of their marks, as Markdown."""
    main = measured["comparisons"]["spectrum"]
    return {
        "standing": _standing(measured["standing"]),
        "spectrum": _comparison(main),
        "measures": _measures(measured["comparisons"]),
        "early": _comparison(measured["early comparison"]),
        "shape": _comparison(measured["with another shape"]),
        "pairs": _by_part(measured["own rule nearest in pairs"], "pair of rules"),
        "spectra": _spectra(measured["spectra"]),
        "change": _change(measured["change"]),
        "barriers": _barriers(measured["barriers"]["median, smallest, largest"]),
        "donors-standing": _standing(donors["standing"]),
        "donors-spectrum": _comparison(donors["comparison"]),
        "donors-spectra": _spectra(donors["spectra"]),
        "donors-change": _change(donors["change"]),
        "rates": _rates(rates["rates"]),
    }


def every_section() -> dict[str, str]:
    """All tables of the page, from the files that were measured. Errors: ``StoreError``."""
    return sections(*map(read_json, (MEASURED, OF_DONORS, RATES)))


def write(page: Path = PAGE) -> None:
    """Put every table into the page. Errors: ``StoreError``."""
    write_sections(page, every_section())


def _number(value: float | None, spec: str = ".3g") -> str:
    return "" if value is None else format(value, spec)


def _standing(rows: dict[str, Any]) -> str:
    head = ["rule", "lowest accuracy", "median", "best predictor without the rule", "mastered", "updates"]
    return table(
        head,
        [
            [rule, f"{row['lowest']:.3f}", f"{row['median']:.3f}", f"{row['baseline']:.3f} ({row['baseline name']})",
             f"{row['mastered']} of 10", " to ".join(f"{n:,}" for n in row["updates"])]
            for rule, row in rows.items()
        ],
    )  # fmt: skip


def _comparison(compared: dict[str, Any]) -> str:
    rows = [
        [
            part,
            *(_number(row[q], ".2g" if q == "adjusted p" else ".3f") for q in SHOWN),
            compared["words"].get(part, ""),
        ]
        for part, row in compared["rows"].items()
    ]
    return table(["part", *SHOWN, "word"], rows)


def _measures(comparisons: dict[str, Any]) -> str:
    parts = list(next(iter(comparisons.values()))["rows"])
    rows = []
    for name, compared in comparisons.items():
        cells = []
        for part in parts:
            row = compared["rows"][part]
            ratio = None if row["excess"] is None else row["between rules"] / row["within a rule"]
            cells.append("not defined" if ratio is None else f"{ratio:.2f} ({row['own rule nearest']:.0%})")
        rows.append([name, *cells])
    return table(["measure", *parts], rows)


def _by_part(rows: dict[str, dict[str, float]], name: str) -> str:
    parts = list(next(iter(rows.values())))
    return table([name, *parts], [[label, *(f"{row[p]:.0%}" for p in parts)] for label, row in rows.items()])


def _spectra(spectra: dict[str, Any]) -> str:
    rules = list(spectra)
    rows = []
    for matrix, quantities in spectra[rules[0]].items():
        for quantity in quantities:
            rows.append([matrix, quantity, *(_number(spectra[rule][matrix][quantity]) for rule in rules)])
    return table(["matrix", "median of", *rules], rows)


def _change(change: dict[str, Any]) -> str:
    rules = list(change)
    rows = []
    for part, quantities in change[rules[0]].items():
        for quantity in quantities:
            rows.append([part, quantity, *(_number(change[rule][part][quantity]) for rule in rules)])
    return table(["part", "median of", *rules], rows)


def _barriers(groups: dict[str, Any]) -> str:
    rows = []
    for group, row in groups.items():
        cells = [
            f"{row[kind][0]:.2f} ({row[kind][1]:.2f} to {row[kind][2]:.2f})" for kind in ("as they are", "matched")
        ]
        rows.append([group, str(row["n_pairs"]), *cells])
    return table(["pairs", "n", "as they are", "matched"], rows)


def _rates(rates: list[dict[str, Any]]) -> str:
    rows = []
    for row in rates:
        interval = f"{row['low']:.0%} to {row['high']:.0%}"
        rows.append([row["question"], row["setting"], row["quantity"], f"{row['rate']:.0%}", interval, str(row["n"])])
    return table(["question", "setting", "quantity", "rate", "95 % interval", "n"], rows)


if __name__ == "__main__":
    write()
    sys.exit(0)
