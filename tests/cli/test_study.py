"""``mechproc study`` on a tiny study from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mechproc.cli import main

STUDY = '''
from mechproc import Study
from mechproc.procedures import Haystack, Reverse, Uniform
from mechproc.statistics.claims import Claim, against
from mechproc.studies.shape import Shape
from mechproc.training.config import TrainingConfig
from mechproc.transfer import attention_only, fresh

SHORT = TrainingConfig(
    steps=4, batch_size=4, warmup_steps=0, evaluate_every=2, n_validation=5, n_test=20, checkpoints_per_decade=None
)
CLAIM = Claim("1", "The attention helps.", (against("attention", "random", 0.2),))


def study(seeds=None):
    """Small enough for a test."""
    return Study.transfer(
        "small",
        task=Haystack(n_keys=4, n_values=8, lengths=Uniform(1, 3)),
        donors={"reverse": Reverse(lengths=Uniform(2, 4), n_symbols=8)},
        arms={"random": fresh(), "attention": attention_only("reverse")},
        model=Shape(n_layers=1, n_heads=2, d_model=8),
        training=SHORT, donor_training=SHORT, seeds=seeds or range(8), smallest_effect=0.2, claims=[CLAIM],
    )
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "small_study.py").write_text(STUDY)
    assert study(folder, "run", "--seeds", "3", "--workers", "1") == 0
    return folder


def study(place: Path, action: str, *options: str) -> int:
    where = ["--store", str(place / "runs"), "--records", str(place / "records")]
    return main(["study", action, str(place / "small_study.py"), *where, *options])


def test_list_names_every_study(capsys):
    from mechproc.studies import STUDIES

    assert main(["study", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(STUDIES)
    assert all(len(line) > 40 for line in lines)


def test_run_completes_what_is_missing(place, capsys):
    assert study(place, "run", "--seeds", "3", "--workers", "1") == 0
    assert "0 trainings to do" in capsys.readouterr().out
    assert study(place, "run", "--seeds", "4", "--only", "attention", "--workers", "1") == 0
    assert "2 trainings to do" in capsys.readouterr().out  # a donor and what is made of it
    assert study(place, "run", "--seeds", "6", "--only", "attention", "--only-seeds", "5", "--workers", "1") == 0
    assert "2 trainings to do" in capsys.readouterr().out
    assert study(place, "run", "--only-seeds", "2..3,12") == 1
    assert "only_seeds = 12 is not allowed: some of 0, 1, 2" in capsys.readouterr().err
    assert study(place, "plan", "--only-seeds", "3..") == 1
    assert "--only-seeds = '3..' is not allowed: whole numbers such as 3, 0..9" in capsys.readouterr().err
    assert study(place, "run", "--only", "nothing") == 1
    assert "only = 'nothing'" in capsys.readouterr().err


def test_run_trains_as_populations(tmp_path, capsys):
    (tmp_path / "small_study.py").write_text(STUDY)
    assert study(tmp_path, "run", "--seeds", "1", "--executor", "population", "--size", "3", "--device", "cpu") == 0
    assert "3 of 3 trainings done" in capsys.readouterr().out
    assert study(tmp_path, "run", "--seeds", "2", "--executor", "population", "--device", "nowhere") == 1
    assert "device = 'nowhere' is not allowed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("executor", "option", "said"),
    [
        ("population", "workers", "an option of --executor processes"),
        ("processes", "size", "an option of --executor population"),
        ("population", "pack", "an option of --executor ray"),
    ],
)
def test_options_of_another_executor_are_refused(place, capsys, executor, option, said):
    assert study(place, "run", "--executor", executor, f"--{option}", "2") == 1
    assert f"--{option} = 2 is not allowed: {said}" in capsys.readouterr().err


def test_plan_measures_what_is_missing_and_says_how_many_seeds_are_needed(place, capsys):
    assert study(place, "plan", "--seeds", "6", "--workers", "2") == 0
    text = capsys.readouterr().out
    assert "seeds 0 to 5" in text and "of one core" in text and "with 2 workers" in text
    assert "ms an update" in text and "disk: " in text
    (comparison,) = (line for line in text.splitlines() if "attention against random" in line)
    assert "seeds so far; differences vary by" in comparison and "with probability 0.8" in comparison
    assert "claim 1: too few seeds (3 of 10); a decision would probably take" in text


def test_results_show_every_seed_and_export_them(place, capsys, tmp_path):
    files = {"--csv": tmp_path / "x.csv", "--parquet": tmp_path / "x.parquet"}
    options = [text for option, path in files.items() for text in (option, str(path))]
    assert study(place, "results", "--measure", "steps to 0.9", "--measure", "accuracy", *options) == 0
    text = capsys.readouterr().out
    assert "steps to 0.9" in text and "test accuracy, %" in text and "donors on their own rule" in text
    assert "too few seeds (3 of 8)" in text and text.index("Note: ") < text.index("attention on haystack")
    csv, parquet = pd.read_csv(files["--csv"]), pd.read_parquet(files["--parquet"])
    assert list(csv["identity"]) == list(parquet["identity"]) and set(csv["arm"]) == {"random", "attention"}
    assert study(place, "results", "--measure", "speed") == 1
    assert "measure = 'speed'" in capsys.readouterr().err


def test_results_are_there_without_the_weights(place, capsys, tmp_path):
    records = ["--store", str(tmp_path), "--records", str(place / "records")]
    assert main(["study", "results", str(place / "small_study.py"), "--seeds", "3", *records]) == 0
    assert "6 of 6 runs are complete" in capsys.readouterr().out


def test_results_of_nothing(place, capsys, tmp_path):
    empty = ["--store", str(tmp_path), "--records", str(tmp_path / "none")]
    assert main(["study", "results", str(place / "small_study.py"), *empty]) == 0
    assert "0 of 16 runs are complete" in capsys.readouterr().out


def test_claims(place, capsys):
    assert study(place, "claims") == 0
    text = capsys.readouterr().out
    assert "Claim 1: too few seeds (3 of 10). The attention helps." in text
    assert "7 more seeds" in text and "claims declared: 1, with all of their seeds: 0, decided: 0" in text


def test_help_imports_nothing_heavy():
    script = (
        "import sys\nfrom mechproc.cli import main\n"
        "try:\n    main(['study', 'run', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numpy', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
