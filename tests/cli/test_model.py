"""``mechproc model list`` and ``show``."""

from mechproc.cli import main
from mechproc.model.io import save_model
from mechproc.pretrained import card, pretrained_weights, shipped


def test_list_has_a_line_for_each_rule(capsys):
    assert main(["model", "list"]) == 0
    title, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == shipped() and "ceiling" in title


def test_show_knows_rules_shipped_models_and_files(tmp_path, capsys):
    assert main(["model", "show", "sort"]) == 0
    assert capsys.readouterr().out.startswith("# Donors of sort ")
    assert main(["model", "show", "sort:3"]) == 0
    shown = capsys.readouterr().out
    (donor,) = [donor for donor in card("sort")["donors"] if donor["seed"] == 3]
    assert "2 layers, 4 heads" in shown and str(donor["accuracy"]) in shown
    file = save_model(tmp_path / "mine.safetensors", *pretrained_weights("sort", 3), {"imported_from": "elsewhere"})
    assert main(["model", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "2 layers, 4 heads" in shown and "imported_from       elsewhere" in shown


def test_show_names_what_there_is(capsys):
    for name, says in (("sort:99", "seed = 99 is not allowed"), ("sot:1", "did you mean 'sort'"), ("x.st", "exist")):
        assert main(["model", "show", name]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and says in err
