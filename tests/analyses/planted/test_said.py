"""The rates that analyses state of themselves are those of the committed calibration."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyses.attention.reading import ON_PLANTINGS as ATTENTION
from analyses.attribution import DOES_NOT_SHOW as ATTRIBUTION
from analyses.probing.causal import DOES_NOT_SHOW as CAUSAL
from analyses.probing.read import DOES_NOT_SHOW as PROBE
from analyses.weights.composition import ON_PLANTINGS as COMPOSITION
from mechproc.result import Result

CALIBRATION = Result.load(Path(__file__).parents[3] / "results" / "calibration.json")


def rate(method: str, quantity: str, *where: str) -> float:
    cell = f"{method} / {' / '.join(where)}"
    return 100 * float(CALIBRATION.select(cell=cell, quantity=quantity).values)


def rates(method: str, quantity: str, without: tuple[str, ...] = ()) -> list[float]:
    cells = [cell.split(" / ") for cell in CALIBRATION.coordinates["cell"]]
    return [rate(*cell[:1], quantity, *cell[1:]) for cell in cells if cell[0] == method and cell[1] not in without]


def spread(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f} %"


@pytest.mark.parametrize(
    "said, rest",
    [
        (ATTRIBUTION, [f"in {rate('attribution patching', 'hit', 'haystack', 'keys'):.0f} %, and of brackets"]),
        (ATTRIBUTION, [f"changes in {rate('attribution patching', 'hit', 'dyck', 'depth'):.0f} %"]),
        (ATTRIBUTION, [f"integrated: {rate('integrated attribution', 'hit', 'haystack', 'keys'):.0f} and "
                       f"{rate('integrated attribution', 'hit', 'dyck', 'depth'):.0f} %"]),
        (ATTRIBUTION, [spread(rates("attribution patching", "alarm")),
                       spread(rates("integrated attribution", "alarm"))]),
        (ATTENTION, [f"{rate('attention on targets', 'flagged: decoy', 'decoy', 'any item'):.0f} %",
                     spread(rates("attention on targets", "alarm", without=("decoy",)))]),
        (PROBE, [f"in {rate('linear probe', 'flagged: decoy', 'decoy', 'any item'):.0f} %",
                 spread(rates("linear probe", "alarm", without=("decoy",)))]),
        (CAUSAL, [f"decoys in {rate('probe direction patched', 'flagged: decoy', 'decoy', 'any item'):.0f} %",
                  spread(rates("probe direction patched", "alarm")),
                  *(f"{text} in {rate('probe direction patched', 'hit', family, 'any item'):.0f} %"
                    for family, text in {"modsum": "of a sum", "dyck": "parts of brackets"}.items()),
                  f"and in {rate('probe direction patched', 'hit', 'haystack', 'any item'):.0f} % both heads",
                  *(f"with the answer in {rate('probe direction patched', 'hit', family, 'any item'):.0f} %"
                    for family in ("offset", "lookup", "decoy", "loud"))]),
        (COMPOSITION, [f"sums ({rate('composition score', 'hit', 'modsum', 'any item'):.0f} %)",
                       f"part ({rate('composition score', 'hit', 'constant', 'any item'):.0f} %)",
                       spread(rates("composition score", "alarm"))]),
    ],
)  # fmt: skip
def test_a_stated_rate_is_the_measured_one(said, rest):
    for part in rest:
        assert part in said
