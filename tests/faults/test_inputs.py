"""A few inputs of every kind; ``make chaos`` tries many."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

MODULES = ("inputs", "bench", "mutations", "small_study")
"""Of this folder; other tests import files with the same names."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no alarm that stops an input which takes too long")


@pytest.fixture
def inputs(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import inputs

    yield inputs
    for name in MODULES:
        sys.modules.pop(name)


def test_inputs_of_every_kind_end_as_they_may(inputs, tmp_path):
    counts = inputs.tried(tmp_path / "place", 5, chosen_seed=1)
    assert len(counts) == 10 and all(count["inputs"] for count in counts.values())


@pytest.fixture
def bench(inputs, tmp_path):
    """Where inputs are tried, without a study."""
    import bench

    found = bench.Bench.__new__(bench.Bench)
    found.place, found.work = tmp_path, tmp_path / "work"
    found.work.mkdir()
    (tmp_path / "precious").write_text("precious")
    return found


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda bench: (bench.place / "precious").write_text("changed"), "a file outside the store was changed"),
        (lambda bench: (bench.work / "executed").touch(), "the code of a file was executed"),
        (lambda bench: (bench.place / "new").touch(), "files outside the store were touched"),
    ],
)
def test_what_an_input_must_not_do_is_seen(bench, fault, said):
    assert bench.attempt(lambda _: None, None)
    with pytest.raises(Exception, match=said):
        bench.attempt(lambda _: fault(bench), None)


def test_an_input_that_takes_too_long_is_stopped(bench, monkeypatch):
    monkeypatch.setattr(sys.modules["bench"], "SECONDS", 0.05)

    def forever(_):
        while True:
            pass

    with pytest.raises(BaseException, match=r"took more than 0\.05 seconds"):
        bench.attempt(forever, None)


@pytest.mark.parametrize(("code", "said"), [(1, "mechproc: one\ntwo\n"), (3, ""), (1, "")])
def test_an_error_of_more_than_a_line_and_a_strange_exit_code_are_seen(bench, monkeypatch, code, said):
    def main(argv):
        sys.stderr.write(said)
        return code

    monkeypatch.setattr("mechproc.cli.main", main)
    with pytest.raises(Exception, match=r"'parts'"):
        bench.command(["parts"])
