"""Every declared claim with its word, as a table in Markdown, kept between two marks of a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mechproc import pages
from mechproc.runs.store import Store
from mechproc.statistics.claim_verdicts import ClaimVerdict
from mechproc.studies import STUDIES
from mechproc.studies.registry import SCALES, load, scales

NAME = "claims"
"""The name of the marks between which the table stands."""


def verdicts(store: Store, allow_mixed_provenance: bool = False) -> Iterator[tuple[str, ClaimVerdict]]:
    """(study and scale, verdict) of every claim of the project's studies, the paper's scale first."""
    for scale in reversed(SCALES):
        for name in STUDIES:
            if scales(name):
                study = load(name, scale)
            elif scale == SCALES[0]:  # those of one scale, once
                study = load(name)
            else:
                continue
            judged = study.judge_claims(store, allow_mixed_provenance=allow_mixed_provenance)
            yield from ((study.name, verdict) for verdict in judged)


def summary(found: Sequence[ClaimVerdict]) -> str:
    """How many claims there are, how many are decided, and how many wrong words are to be expected."""
    complete = sum(verdict.n_seeds == verdict.claim.n_seeds and not verdict.withheld for verdict in found)
    decided = sum(verdict.word in ("supported", "refuted") for verdict in found)
    return (
        f"claims declared: {len(found)}, with all of their seeds: {complete}, decided: {decided}. A wrong word is said "
        f"of a claim with a probability of at most 5 %: at most {0.05 * complete:.2g} wrong words are to be expected."
    )


def markdown(found: Sequence[tuple[str, ClaimVerdict]]) -> str:
    """The claims of which runs exist, with their contrasts; then the names of those that were not run."""
    rows, waiting = [], []
    for study, verdict in found:
        if verdict.n_seeds == 0:
            waiting.append(f"{verdict.claim.name} ({study})")
            continue
        contrasts = "; ".join(verdict.contrast_lines()) or "none"
        rows.append([verdict.claim.name, study, verdict.claim.statement, f"**{verdict.word}**", contrasts])
    text = summary([verdict for _, verdict in found])
    lines = [
        f"{text[0].upper()}{text[1:]}",
        "",
        pages.table(("claim", "study", "statement", "word", "contrasts"), rows),
    ]
    if notes := dict.fromkeys(note for _, verdict in found for note in verdict.notes):
        lines += ["", "What to know of their donors:", "", *(f"- {note}." for note in notes)]
    if mixed := [
        f"- {verdict.claim.name} ({study}): {'; '.join(verdict.mixed_provenance)}."
        for study, verdict in found
        if verdict.mixed_provenance
    ]:
        said = "Claims for which runs of one seed differ in their rounding (processor, or version of the optimizer):"
        lines += ["", said, "", *mixed]
    if waiting:
        lines += ["", f"No seed is complete in all arms of: {', '.join(waiting)}."]
    return "\n".join(lines)


def findings(found: Sequence[tuple[str, ClaimVerdict]]) -> str:
    """The claims that are decided, a sentence each with the effect of the first contrast that has the claim's word."""
    lines = []
    for study, verdict in found:
        if verdict.word in ("supported", "refuted"):
            effect = next(line for line in verdict.contrast_lines() if line.endswith(f": {verdict.word}"))
            effect = effect.rpartition(": ")[0]
            lines.append(f"- {verdict.claim.statement} **{verdict.word.capitalize()}** ({study}): {effect}.")
    return "\n".join(lines) if lines else "No claim is decided so far."


BLOCKS = {NAME: markdown, "findings": findings}
"""What stands between which marks of a page."""


def write(path: Path, found: Sequence[tuple[str, ClaimVerdict]]) -> None:
    """Fill each of ``BLOCKS`` whose marks a page has. Errors: ``StoreError`` where there is none, or no page."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for name in [name for name in BLOCKS if f"<!-- {name}:begin -->" in text] or [NAME]:
        pages.write_between(path, name, BLOCKS[name](found))
