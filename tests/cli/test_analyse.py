"""``mechproc analyse`` on shipped models."""

import dataclasses
import json
from pathlib import Path

import pytest

from analyses import ANALYSES
from mechproc.cli import main

FEW = ["--n-items", "20"]


def test_list_has_a_line_for_each_analysis(capsys):
    assert main(["analyse", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ANALYSES) and all(len(line) > 30 for line in lines)


def test_a_result_is_printed_and_kept(tmp_path, capsys):
    command = ["analyse", "ablation", "sort:0..1", "--ablation", "mean", "--parts", "L0.H0", "L0.mlp", *FEW]
    assert main([*command, "--out", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    (path,) = tmp_path.rglob("*.json")
    assert "accuracy lost by mean ablation [fraction]: 2 part x 2 seed" in first and f"kept as {path}" in first
    request = json.loads(path.read_text())["metadata"]["request"]
    assert request["command"].split() == ["mechproc", *command[:3], *request["command"].split()[4:]]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert f"read from {path}" in capsys.readouterr().out


def test_the_command_of_a_result_asks_for_the_same(tmp_path, capsys):
    assert main(["analyse", "attention", "sort:0", *FEW, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.rglob("*.json")
    command = json.loads(path.read_text())["metadata"]["request"]["command"].split()
    assert main([*command[1:], "--out", str(tmp_path)]) == 0
    assert f"read from {path}" in capsys.readouterr().out


def test_a_rule_with_settings(tmp_path, capsys):
    rule = '{"kind": "sort", "n_symbols": 5}'
    assert main(["analyse", "ablation", "sort:0", "--procedure", rule, *FEW, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())["metadata"]["procedure"]["n_symbols"] == 5


def test_seeds_of_a_study_that_are_not_trained_are_said(tmp_path, capsys, monkeypatch):
    from analyses import sources

    found = sources.groups(["sort:0"])
    changed = [dataclasses.replace(found[0], missing=(1, 2))]
    monkeypatch.setattr("analyses.kept.groups", lambda *_, **__: changed)
    assert main(["analyse", "attention", "sort:0", *FEW, "--out", str(tmp_path)]) == 0
    assert "Not trained yet: seeds 1, 2." in capsys.readouterr().out


def test_positions_are_numbers_or_a_word(tmp_path, capsys):
    command = ["analyse", "patching", "sort:0", "--pair", "rank", "--parts", "L0.H0", *FEW, "--out", str(tmp_path)]
    assert main([*command, "--positions", "each"]) == 0
    assert " position x 1 seed" in capsys.readouterr().out
    assert main([*command, "--positions", "2", "3"]) == 0
    assert "position" not in capsys.readouterr().out.splitlines()[1]
    with pytest.raises(SystemExit):
        main([*command, "--positions", "every"])
    assert "'every' is not allowed: 'each', or whole numbers" in capsys.readouterr().err


def test_the_runs_of_a_study(tmp_path, capsys):
    command = ["analyse", "transfer-map", "transfer-map", "--scale", "laptop", "--seeds", "11", "--store", "none"]
    records = str(Path(__file__).parents[2] / "results" / "records")
    assert main([*command, "--records", records, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Warning: 0 of 11 seeds are complete" in out and "Not trained yet: seeds 20." in out
    with pytest.raises(SystemExit):
        main(["analyse", "transfer-map", "--help"])
    assert "mechproc analyse transfer-map STUDY..." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["transfer-map", "transfer-mop"], "did you mean 'transfer-map'"),
        (["ablation", "sorr"], "did you mean 'sort'"),
        (["ablation", "sort:0", "--ablation", "maen"], "one of zero, mean"),
        (["ablation", "sort:0", "--procedure", "{"], "procedure = '{' is not allowed"),
        (["ablation", "sort:0", "--procedure", "haystac"], "did you mean 'haystack'"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, tmp_path, capsys):
    assert main(["analyse", *arguments, "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err
