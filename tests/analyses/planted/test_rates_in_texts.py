"""What analyses say of their rates on planted models is what was measured."""

from pathlib import Path

import pytest

from analyses import patching, path_patching
from analyses.ablation.kinds import OF_THE_KIND
from mechproc.result import Result

MEASURED = Result.load(Path(__file__).parents[3] / "results" / "calibration.json")
SAME_IN_BOTH = ("modsum / second", "haystack / answer", "haystack / query", "dyck / kind")
STATED = {
    "zeros and twins": (
        OF_THE_KIND["zero"], "of planted parts whose twin does the same they flag {} %",
        ["zero ablation / twins / any item"], "flagged: redundant",
    ),
    "means and twins": (
        OF_THE_KIND["mean"], "of planted parts whose twin does the same it flags {} %",
        ["mean ablation / twins / any item"], "flagged: redundant",
    ),
    "means and constants": (
        OF_THE_KIND["mean"], "(of planted parts whose constant is needed it flags {} %)",
        ["mean ablation / constant / any item"], "flagged: constant",
    ),
    "other items and constants": (
        OF_THE_KIND["resample"], "(of planted parts whose constant is needed it flags {} %)",
        ["resample ablation / constant / any item"], "flagged: constant",
    ),
    "patching and what is needed": (
        patching.DOES_NOT_SHOW, "(of planted parts that are needed and do so, {} % are flagged)",
        [f"activation patching / {cell}" for cell in SAME_IN_BOTH], "flagged: needed",
    ),
    "paths and what is needed": (
        path_patching.DOES_NOT_SHOW, "(of planted parts that are needed and do so, {} % are flagged)",
        [f"exact path patching / {cell}" for cell in SAME_IN_BOTH], "flagged: needed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_the_rate_in_a_text_is_the_rate_in_the_file(name):
    text, phrase, cells, quantity = STATED[name]
    shares = [float(MEASURED.select(cell=cell, quantity=quantity).values) for cell in cells]
    rates = sorted({f"{100 * share:.0f}" for share in shares}, key=int)
    assert phrase.format(" to ".join([rates[0], rates[-1]] if len(rates) > 1 else rates)) in text


def test_every_cell_names_a_commit_and_was_measured_on_100_plantings():
    assert set(MEASURED.metadata["commits"]) == set(MEASURED.coordinates["cell"])
    assert not [c for c in MEASURED.metadata["commits"].values() if len(c) != 40]
    assert MEASURED.metadata["n_plantings"] == 100
