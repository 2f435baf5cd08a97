"""Tables of the pages are those of their files: ``make tables`` writes them."""

import importlib.util
from pathlib import Path

import pytest

from mechproc.pages import between

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
assert SPEC and SPEC.loader
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_table_is_that_of_its_file(name):
    path, text = tables.TABLES[name]
    assert between(path, name) == text(), "make tables"


def test_every_marked_block_is_written_by_something():
    from mechproc.studies import claims_page, paper_page

    known = {*tables.TABLES, *claims_page.BLOCKS, paper_page.NAME}
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        if page.name in ("README.md", "demo.md", "training.md", "calibration.md", "pretrained.md"):
            lines = page.read_text().splitlines()
            assert {line.split(":begin")[0].removeprefix("<!-- ") for line in lines if ":begin -->" in line} <= known
