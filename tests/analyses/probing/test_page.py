"""The page about stack depth is what its measured files make."""

from __future__ import annotations

from analyses.probing.page import PAGE, sections, write
from mechproc.pages import between


def test_every_table_is_the_measured_one():
    for name, text in sections().items():
        assert between(PAGE, name) == text, name


def test_writing_restores_a_table(tmp_path):
    copy, right = tmp_path / "page.md", PAGE.read_text()
    copy.write_text(right.replace("| site |", "| SITE |"))
    assert copy.read_text() != right
    write(copy)
    assert copy.read_text() == right
