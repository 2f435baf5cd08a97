"""The command line: light to load, one line for each mistake, nothing lost."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mechproc.cli import main
from mechproc.procedures import Set
from mechproc.studies.set_to_haystack import Sizes, donor

TINY = Sizes(d_model=8, n_heads=2, n_symbols=8, longest_list=4, donor_steps=4, batch_size=4)


def write_config(path: Path, **changes) -> Path:
    plain = donor(0, TINY).to_dict()
    plain["training"] |= changes
    path.write_text(json.dumps(plain))
    return path


@pytest.mark.parametrize(
    "code", ["import mechproc", "import mechproc.procedures", "from mechproc.cli import main; main(['--help'])"]
)
def test_neither_torch_nor_transformer_lens_is_loaded_before_it_is_needed(code):
    check = "import sys\ntry:\n    exec(sys.argv[1])\nexcept SystemExit:\n    pass\n"
    check += "heavy = {'torch', 'transformer_lens', 'pandas', 'scipy'} & sys.modules.keys()\n"
    check += "sys.exit(str(heavy) if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", check, code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", [["procedure", "list"], ["procedure", "show", "language"], ["procedure", "show", "nothing\u2423"]]
)
def test_a_console_that_lacks_a_character_gets_a_question_mark(command):
    """Windows's cp1252 has no open box, which stands for the space of text procedures."""
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-m", "mechproc", *command], capture_output=True, env=environment)
    assert b"Traceback" not in done.stderr and b"?" in done.stdout + done.stderr
    assert done.returncode == (1 if command[-1].endswith("\u2423") else 0)


def test_run_trains_once_and_says_the_score(tmp_path, capsys):
    config = write_config(tmp_path / "set.json")
    assert main(["run", str(config), "--store", str(tmp_path / "runs")]) == 0
    first = capsys.readouterr().out
    assert "4 steps" in first and "ceiling 1.0000" in first
    assert main(["run", str(config), "--store", str(tmp_path / "runs")]) == 0
    again = capsys.readouterr().out
    assert "steps" not in again and again.splitlines()[-1] == first.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "does not hold a JSON object"),
        ("{}", "procedure is missing"),
        ('{"procedure": {"kind": "sett"}}', "did you mean 'set'"),
        ('{"procedur": 1}', "did you mean 'procedure'"),
    ],
)
def test_a_malformed_config_is_one_clear_line(tmp_path, capsys, text, says):
    path = tmp_path / "config.json"
    path.write_text(text)
    assert main(["run", str(path), "--store", str(tmp_path / "runs")]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("mechproc: ") and err.count("\n") == 1 and says in err
    assert not (tmp_path / "runs").exists()


def test_an_impossible_size_is_one_clear_line(tmp_path, capsys):
    path = write_config(tmp_path / "set.json", batch_size=0)
    assert main(["run", str(path), "--store", str(tmp_path / "runs")]) == 1
    assert "batch_size = 0 is not allowed: at least 1" in capsys.readouterr().err


def test_an_engine_or_device_that_is_not_there_is_said_before_anything_starts(tmp_path, capsys):
    path = write_config(tmp_path / "set.json")
    for option, value in [("--engine", "gpu"), ("--device", "nowhere")]:
        assert main(["run", str(path), "--store", str(tmp_path / "runs"), option, value]) == 1
        out, err = capsys.readouterr()
        assert out == "" and f"{option[2:]} = '{value}' is not allowed" in err
    assert not (tmp_path / "runs").exists()


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path, capsys):
    path = write_config(tmp_path / "set.json")
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert main(["run", str(path), "--store", str(tmp_path / "runs")]) == 1
    err = capsys.readouterr().err
    assert "cannot be written" in err and err.count("\n") == 1


def test_a_pickle_is_not_read_unless_told_to(tmp_path, capsys):
    import torch

    (tmp_path / "config.json").write_text(
        json.dumps({"n_layer": 1, "n_head": 1, "n_embd": 4, "n_positions": 4, "vocab_size": 5})
    )
    torch.save({"wte.weight": torch.zeros(5, 4)}, tmp_path / "pytorch_model.bin")
    assert main(["model", "import", str(tmp_path), str(tmp_path / "out.safetensors")]) == 1
    err = capsys.readouterr().err
    assert "is a pickle" in err and err.count("\n") == 1


def test_show_names_the_nearest_procedure(capsys):
    assert main(["procedure", "show", "haystak"]) == 1
    assert "did you mean 'haystack'" in capsys.readouterr().err
    assert main(["procedure", "list"]) == 0
    assert main(["procedure", "show", "set"]) == 0
    assert "Best attainable token accuracy: 1.000" in capsys.readouterr().out


def test_the_page_of_procedures_is_what_the_command_writes(capsys):
    """The documentation reads the same worked examples as the generator and its tests."""
    assert main(["procedure", "list", "--markdown"]) == 0
    page = Path(__file__).parents[2] / "docs" / "procedures.md"
    assert capsys.readouterr().out == page.read_text(), "mechproc procedure list --markdown > docs/procedures.md"


def test_a_procedure_of_a_file_is_shown_and_trained_on(own_procedure, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("last.py").write_text(own_procedure)
    assert main(["procedure", "show", "last.py:Last"]) == 0
    out = capsys.readouterr().out
    assert "    scored       c" in out and "Best attainable token accuracy: 1.000" in out
    assert "Latents" not in out and "Minimal pairs" not in out  # it has none
    plain = donor(0, TINY).to_dict() | {"procedure": {"kind": "last.py:Last"}}
    plain["model"] |= {"n_ctx": 8, "d_vocab": 10}
    Path("run.json").write_text(json.dumps(plain))
    assert main(["run", "run.json", "--allow-code", "last.py"]) == 0
    assert "runs/Last-" in capsys.readouterr().out
    assert main(["procedure", "show", "last.py"]) == 1
    assert "a procedure of a file is last.py:CLASS" in capsys.readouterr().err
    Path("last.py").write_text(
        own_procedure.replace("    lengths: LengthDistribution = Uniform(2, 6)", "    lengths: LengthDistribution")
    )
    assert main(["procedure", "show", "last.py:Last"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("mechproc: procedure = 'last.py:Last'") and err.count("\n") == 1


def test_a_run_whose_procedure_has_changed_is_not_taken_for_another(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "set.json")
    assert main(["run", str(config), "--store", str(tmp_path / "runs")]) == 0
    (kept,) = (tmp_path / "runs").glob("*/config.json")
    assert json.loads(kept.read_text())["procedure_versions"] == {kept.parent.name: Set.version}
    assert main(["run", str(kept), "--store", str(tmp_path / "runs")]) == 0
    monkeypatch.setattr(Set, "version", "9.9.9")
    capsys.readouterr()
    assert main(["run", str(kept), "--store", str(tmp_path / "runs")]) == 1
    assert f"identity = {kept.parent.name[4:]}... in {kept} is not allowed: that is set-" in capsys.readouterr().err


def test_the_loss_of_text_is_said_in_bits(tmp_path, capsys):
    plain = donor(0, TINY).to_dict() | {"procedure": {"kind": "language", "lengths": {"kind": "fixed", "length": 12}}}
    plain["model"] |= {"n_ctx": 12, "d_vocab": 98}
    (tmp_path / "run.json").write_text(json.dumps(plain))
    assert main(["run", str(tmp_path / "run.json"), "--store", str(tmp_path / "runs")]) == 0
    accuracy, bits = capsys.readouterr().out.splitlines()[-2:]
    assert "ceiling unknown, best baseline 0." in accuracy
    said = [float(x) for x in re.findall(r"([\d.]+) bits per character", bits)]
    test = json.loads(next((tmp_path / "runs").glob("*/test.json")).read_text())
    assert said[0] == pytest.approx(test["loss"] / math.log(2), abs=1e-3)
    assert said[1] == pytest.approx(test["baseline_losses"]["trigram"] / math.log(2), abs=1e-3) and said[1] < said[0]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_keeps_what_was_computed_and_the_same_command_goes_on(tmp_path):
    config = write_config(tmp_path / "set.json", steps=4_000, evaluate_every=50)
    command = [sys.executable, "-m", "mechproc", "run", str(config), "--store", str(tmp_path / "runs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (rows := list(tmp_path.glob("runs/*/metrics.jsonl"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("\n") == 1 and "stopped" in err
    n_rows = len(rows[0].read_text().splitlines())
    assert rows[0].with_name("resume.safetensors").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(rows[0].read_text().splitlines()) == 81 > n_rows
