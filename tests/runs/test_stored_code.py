"""A config that is read never has the file executed that it names, whichever command reads it, until it is allowed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mechproc.cli import main
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.procedures import Procedure, allow, from_file, get
from mechproc.runs.config import RunConfig
from mechproc.runs.execute import execute
from mechproc.runs.store import Store
from mechproc.studies.set_to_haystack import donor
from mechproc.threads import one_thread
from mechproc.training.config import TrainingConfig

MARK = "\nfrom pathlib import Path\nPath('executed').touch()\n"
RULE = {"kind": "last.py:Last"}


@pytest.fixture
def folder(own_procedure, tmp_path, monkeypatch) -> Path:
    """The folder of a complete run on a procedure of a file that has changed since; the working folder holds both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(from_file, "_ALLOWED", set())
    Path("last.py").write_text(own_procedure)
    rule, store = get("last.py:Last")(), Store("runs", records="records")
    training = TrainingConfig(steps=2, batch_size=8, warmup_steps=0, n_validation=8, n_test=16)
    run = RunConfig(rule, ModelConfig(1, 2, 8, rule.n_ctx, rule.d_vocab), training, 0)
    with one_thread():
        execute(run, store)
    Path("last.py").write_text(own_procedure + MARK)
    for name, empty in (("_ALLOWED", set()), ("_LOADED", {})):  # as in a new process
        monkeypatch.setattr(from_file, name, empty)
    return store.folder(run).path


@pytest.fixture
def damaged(folder: Path) -> Path:
    """The same, its config damaged and its record as well."""
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    return folder


REFUSED = "a config that is read does not have last.py executed; if you know that file, say --allow-code last.py"


@pytest.mark.parametrize("name", ["{folder}", "{folder}/model.safetensors"])
def test_an_analysis_of_a_run_does_not_execute_it(folder, name, capsys):
    command = ["analyse", "ablation", name.format(folder=folder), "--out", "out"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and not Path("executed").exists()
    if "safetensors" not in name:  # the file of the weights says nothing of the rule
        assert REFUSED in said
        assert main([*command, "--allow-code", "last.py", "--n-items", "8"]) == 0 and Path("executed").exists()


def test_who_names_it_as_the_procedure_has_named_it(folder):
    nested = {"kind": "shuffled", "lengths": {"kind": "fixed", "length": 7}, "procedure": RULE}
    for named in ("last.py:Last", json.dumps(nested)):
        Path("executed").unlink(missing_ok=True)
        from_file._LOADED.clear()
        assert main(["analyse", "ablation", str(folder), "--procedure", named, "--n-items", "8", "--out", "o"]) == 0
        assert Path("executed").exists()


def test_a_config_that_is_run_does_not_execute_it_until_it_is_allowed(folder, capsys):
    Path("run.json").write_text(json.dumps(json.loads((folder / "config.json").read_text())["config"]))
    assert main(["run", "run.json"]) == 1
    assert REFUSED in capsys.readouterr().err and not Path("executed").exists()
    assert main(["run", "run.json", "--allow-code", "lost.py"]) == 1
    assert "file = 'lost.py' is not allowed: a Python file that exists" in capsys.readouterr().err
    assert main(["run", "run.json", "--allow-code", "last.py"]) == 0 and Path("executed").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["runs", "list"],
        ["runs", "verify", "--records", "records"],
        ["runs", "show", "{folder.name}"],
        ["runs", "gc"],
        ["runs", "copy", "copied", "--records", "records"],
        ["runs", "repair", "--records", "records"],
        ["model", "show", "{folder}"],
        ["study", "results", "set-to-haystack", "--records", "records"],
    ],
)
def test_no_other_command_executes_it(damaged, command, capsys):
    main([part.format(folder=damaged) for part in command])
    capsys.readouterr()
    assert not Path("executed").exists()


def test_repair_says_why_the_config_cannot_be_restored_and_restores_it_when_it_may(damaged, capsys):
    before = (damaged / "config.json").read_bytes()
    assert main(["runs", "repair", "--records", "records"]) == 1
    assert REFUSED in capsys.readouterr().err and not Path("executed").exists()
    assert (damaged / "config.json").read_bytes() == before
    assert main(["runs", "repair", "--records", "records", "--allow-code", "last.py"]) == 0
    assert (damaged / "config.json").read_bytes() == before.replace(b'"seed": 1', b'"seed": 0')


def test_a_damaged_record_is_restored_from_the_run_without_it(folder, capsys):
    (shard,) = Path("records").glob("*.jsonl")
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b'"accuracy"', b'"acuracy"', 1))
    assert main(["runs", "repair", "--records", "records"]) == 0
    assert shard.read_bytes() == whole and not Path("executed").exists()


def test_a_record_that_names_a_file_is_not_taken_for_the_run_that_has_its_identity(folder, tiny):
    from mechproc.runs.records import line_of

    run, store = donor(0, tiny), Store("other", records="records-2")
    with one_thread():
        execute(run, store)
    (shard,) = Path("records-2").glob("*.jsonl")
    record = json.loads(shard.read_text())
    del record["checksum"]
    record["run"]["procedure"] = RULE
    shard.write_bytes(line_of(record))
    with pytest.raises(OSError, match="its config is that of another run"):
        Store("other", records="records-2").test(run)
    assert not Path("executed").exists()


def test_from_python_a_config_is_read_once_its_file_is_allowed(folder):
    with pytest.raises(ConfigError, match=re.escape(f"{REFUSED}, in Python mechproc.procedures.allow('last.py')")):
        Procedure.from_dict(RULE)
    with pytest.raises(ConfigError, match=r"donors\.d: procedure|procedure = 'last.py:Last'"):
        RunConfig.from_dict(json.loads((folder / "config.json").read_text())["config"])
    assert not Path("executed").exists()
    allow(folder.parents[1] / "last.py")
    assert Procedure.from_dict(RULE).kind == "last.py:Last" and Path("executed").exists()


def test_a_folder_with_such_a_name_is_no_file_that_can_be_allowed(folder):
    Path("folder.py").mkdir()
    for name in ("folder.py", "a\0.py", "~nobody-of-that-name/last.py"):
        with pytest.raises(ConfigError, match="a Python file that exists"):
            allow(name)
        with pytest.raises(ConfigError, match="does not have"):
            Procedure.from_dict({"kind": f"{name}:Last"})
