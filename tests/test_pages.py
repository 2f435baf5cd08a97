"""Tables of pages, and text between marks."""

from __future__ import annotations

import pytest

from mechproc.errors import StoreError
from mechproc.pages import between, table, write_between


def test_a_table():
    assert table(("arm", "n"), [["set", 1], ["none", ""]]) == "| arm | n |\n| --- | --- |\n| set | 1 |\n| none |  |"


def test_marks_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- x:begin -->\nold\n<!-- x:end -->\nend\n")
    write_between(page, "x", "new\nlines")
    assert page.read_text() == "# A\n<!-- x:begin -->\nnew\nlines\n<!-- x:end -->\nend\n"
    assert between(page, "x") == "new\nlines"
    with pytest.raises(StoreError, match="y:begin"):
        between(page, "y")
    with pytest.raises(StoreError, match="cannot be read"):
        between(tmp_path / "none.md", "x")


@pytest.mark.parametrize(
    "text",
    [
        "<!-- x:begin -->\na\n<!-- x:end -->\n" * 2,
        "<!-- x:begin -->\na\n<!-- x:begin -->\nb\n<!-- x:end -->\n",
        "<!-- x:begin -->\na\n",
        "a\n<!-- x:end -->\n",
    ],
)
def test_marks_that_do_not_stand_once_are_refused(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(StoreError, match="once, each on a line of its own"):
        write_between(page, "x", "new")
    assert page.read_text() == text
