"""What a calibration has measured is kept, and is not measured again."""

import pytest

from analyses.planted import calibrate, journal, methods, page
from analyses.planted.journal import FileJournal
from mechproc.errors import StoreError
from mechproc.pages import between

SMALL = {"n_calibration": 1, "settings": {"n_items": 32}}


@pytest.fixture
def counted(monkeypatch):
    calls = []
    zero = methods.METHODS["zero ablation"]

    def measure(planting, contrast):
        calls.append(planting.seed)
        return zero.measure(planting, contrast)

    monkeypatch.setitem(methods.METHODS, "zero ablation", methods.Method(zero.name, zero.kind, measure))
    return calls


def run(path, n_plantings):
    return calibrate.run(["zero ablation"], ["lookup"], n_plantings=n_plantings, journal=FileJournal(path), **SMALL)


def test_a_run_goes_on_where_it_was_stopped(tmp_path, counted, monkeypatch):
    path = tmp_path / "results" / "calibration.jsonl"
    first = run(path, 1)
    assert counted == [0, 1]
    assert run(path, 1) == first and counted == [0, 1]
    with path.open("a") as file:
        file.write('{"key": "cut o')
    longer = run(path, 2)
    assert counted == [0, 1, 2]
    assert longer == calibrate.run(["zero ablation"], ["lookup"], n_plantings=2, **SMALL)
    assert len(FileJournal(path)) == 3
    monkeypatch.setattr(journal, "sources_of", lambda module: {"analyses.ablation": "other"})
    assert len(FileJournal(path)) == 0


def test_other_settings_are_measured_anew(tmp_path, counted):
    path = tmp_path / "c.jsonl"
    run(path, 1)
    calibrate.run(["zero ablation"], ["lookup"], n_plantings=1, n_calibration=1, settings={"n_items": 16},
                  journal=FileJournal(path))  # fmt: skip
    assert counted == [0, 1, 0, 1]


def test_the_table_stands_between_the_marks_of_a_page(tmp_path):
    result = run(tmp_path / "c.jsonl", 2)
    file = tmp_path / "page.md"
    file.write_text("# Title\n\n<!-- calibration:begin -->\n<!-- calibration:end -->\n")
    with pytest.raises(StoreError):
        page.write(file, result)
    file.write_text("# Title\n\n<!-- calibration:begin -->\nold\n<!-- calibration:end -->\n\nEnd\n")
    page.write(file, result)
    text = between(file, page.NAME)
    assert text.splitlines()[2].startswith("| zero ablation | lookup | any item | 100 (34 to 100) | 0 (0 to 66) |")
    assert "Plantings in each cell: 2" in text and file.read_text().endswith("\n\nEnd\n")
