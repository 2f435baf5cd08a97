"""The page of the worked question is what its measured numbers make."""

from __future__ import annotations

import pytest

from analyses.weights.page import MEASURED, PAGE, every_section, write
from mechproc.files import read_json
from mechproc.pages import between


def test_every_table_is_the_measured_one():
    for name, text in every_section().items():
        assert between(PAGE, name) == text, name


def test_writing_restores_a_table(tmp_path):
    copy = tmp_path / "page.md"
    right = PAGE.read_text()
    copy.write_text(right.replace("| part |", "| PART |"))
    assert copy.read_text() != right
    write(copy)
    assert copy.read_text() == right


def test_the_measured_words_follow_from_the_numbers():
    for compared in read_json(MEASURED)["comparisons"].values():
        for part, word in compared["words"].items():
            row = compared["rows"][part]
            assert (word == "different") == (row["adjusted p"] <= 0.05 and row["untrained p"] > 0.05)
            assert row["excess"] == pytest.approx(row["between rules"] - row["within a rule"], abs=1e-4)
