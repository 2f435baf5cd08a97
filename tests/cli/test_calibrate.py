"""``mechproc calibrate`` on one small family."""

import pytest

from mechproc.cli import main
from mechproc.result import Result

COMMAND = ["calibrate", "--families", "lookup", "--methods", "mean ablation", "--calibration", "1"]


def test_the_table_is_printed_and_the_result_kept(tmp_path, capsys):
    out = tmp_path / "results" / "calibration.json"
    command = [*COMMAND, "--plantings", "1", "--shape", "n_items=32", "margin=9", "--out", str(out)]
    assert main(command) == 0
    assert "| mean ablation | lookup | any item | 100 " in capsys.readouterr().out
    assert Result.load(out).metadata["settings"] == {"n_items": 32, "margin": 9}
    page = tmp_path / "page.md"
    page.write_text("<!-- calibration:begin -->\nold\n<!-- calibration:end -->\n")
    assert main([*command, "--page", str(page)]) == 0
    assert "2 measurements of the same code are there" in capsys.readouterr().out
    assert "| mean ablation | lookup |" in page.read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shape", "d_model"], "NAME=VALUE"),
        (["--shape", "d_modl=32"], "did you mean 'd_model'"),
        (["--shape", "n_heads=1"], "n_heads = 1"),
        (["--plantings", "0"], "n_plantings = 0"),
    ],
)
def test_a_mistake_is_one_line(options, says, tmp_path, capsys):
    assert main([*COMMAND, *options, "--out", str(tmp_path / "c.json")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err
