"""``mechproc runs`` on a store with two donors and what was made from them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from mechproc.cli import main
from mechproc.config import digest
from mechproc.files import read_json, write_json
from mechproc.model.config import ModelConfig
from mechproc.procedures import Fixed, Identity, Set, Shuffled
from mechproc.runs.catalogue import Entry, entry, remove
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.runs.executors import run_all
from mechproc.runs.folder import RunFolder, describe
from mechproc.runs.store import Store
from mechproc.training.config import TrainingConfig
from mechproc.transfer.arms import attention_only, body, full
from mechproc.transfer.perturb import Permute

TRAINING = TrainingConfig(
    steps=3, batch_size=4, warmup_steps=0, evaluate_every=3, n_validation=5, n_test=5, checkpoints_per_decade=None
)
CFG = ModelConfig(1, 1, 4, 7, 14)
DONOR = RunConfig(Identity(lengths=Fixed(3), n_symbols=12), CFG, TRAINING, 0)
RUN = RunConfig(Set(lengths=Fixed(3), n_symbols=12), CFG, TRAINING, 1, attention_only("d"), {"d": DONOR})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run_all([RUN], Store(root), workers=1)
    return root


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_list_has_a_line_for_each_run_and_says_what_is_none(store: Path, capsys):
    (store / "holiday").mkdir()
    (store / RUN.name / "test.json").unlink()
    assert main(["runs", "--store", str(store), "list"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[1].startswith(DONOR.name) and "complete" in lines[1] and lines[1].endswith("random")
    assert lines[2].startswith(RUN.name) and "interrupted" in lines[2] and lines[2].endswith("attn of d (identity)")
    assert lines[-1] == f"2 runs in {store}"
    assert shown.err.startswith(f"mechproc: {store / 'holiday'} is not a run: ") and shown.err.count("\n") == 1
    assert main(["runs", "list", "--store", str(store), "--procedure", "set", "--status", "complete"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 runs")


def test_a_start_is_told_from_its_controls():
    control = RUN.replace(recipe=RUN.recipe.replace(perturb={"L0.attn": Permute()}))
    shuffled = RUN.replace(donors={"d": DONOR.replace(procedure=Shuffled(procedure=DONOR.procedure))})
    whole, moved = (RUN.replace(recipe=recipe) for recipe in (full("d"), body("d")))
    frozen = RUN.replace(recipe=RUN.recipe.replace(freeze="attn"))
    at_step = RUN.replace(donors={"d": RunAtStep(DONOR.replace(training=TrainingConfig(steps=10, warmup_steps=0)), 10)})
    runs = (RUN, control, shuffled, DONOR, whole, moved, frozen, at_step)
    assert [Entry(RunFolder(""), "", run.to_dict(), "complete", {}).recipe for run in runs] == [
        "attn of d (identity)",
        "attn of d (identity), L0.attn permute",
        "attn of d (shuffled identity)",
        "random",
        "body of d (identity) + embedding mean of d (identity) + positions donor of d (identity)"
        " + layernorm donor of d (identity)",
        "body of d (identity)",
        "attn of d (identity), attn frozen",
        "attn of d (identity at step 10)",
    ]


def test_show_says_what_was_run_and_how_it_ended(store: Path, capsys):
    assert main(["runs", "--store", str(store), "show", RUN.identity[:8]]) == 0
    shown = capsys.readouterr().out
    for expected in (RUN.identity, '"kind": "set"', "last validations:", "test: accuracy", "engine "):
        assert expected in shown


@pytest.mark.parametrize("name", ["", "zzzz", RUN.identity[:3]])
def test_a_name_of_none_or_several_is_refused(store: Path, name: str, capsys):
    assert main(["runs", "--store", str(store), "show", name]) == 1
    assert "is not allowed: the name of a run, or the beginning (4 digits or more)" in capsys.readouterr().err


def test_rm_asks_first(store: Path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["runs", "--store", str(store), "rm", RUN.name]) == 1
    assert (store / RUN.name).exists() and "nothing was removed" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["runs", "--store", str(store), "rm", RUN.name]) == 0
    assert not (store / RUN.name).exists() and (store / DONOR.name).exists()


def test_rm_refuses_a_donor_unless_forced_and_a_run_that_is_written(store: Path, capsys):
    assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes"]) == 1
    assert f"is a donor of {RUN.name}" in capsys.readouterr().err
    with FileLock(store / DONOR.name / "lock", timeout=0):
        assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes", "--force"]) == 1
        assert "is being written by another process" in capsys.readouterr().err
    assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes", "--force"]) == 0
    assert not (store / DONOR.name).exists()


@pytest.mark.parametrize("spoil", ["other version", "no scores"])
def test_rm_refuses_a_donor_whatever_became_of_the_runs_that_have_it(store: Path, spoil: str, capsys):
    if spoil == "other version":
        config = store / RUN.name / "config.json"
        config.write_text(config.read_text().replace('"seed"', '"sed"', 1).replace('"batch_size"', '"items"', 1))
    else:
        (store / RUN.name / "test.json").write_text("{")
    assert main(["runs", "--store", str(store), "rm", DONOR.name, "--yes"]) == 1
    assert f"is a donor of {RUN.name}" in capsys.readouterr().err


def test_rm_refuses_the_donor_of_a_donor(store: Path, capsys):
    grandchild = RUN.replace(seed=RUN.seed + 1, donors={"d": RUN})
    shutil.rmtree(store / RUN.name)
    (store / "later").mkdir()
    write_json(store / "later" / "config.json", {"identity": grandchild.identity, "config": grandchild.to_dict()})
    assert main(["runs", "rm", DONOR.name, "--yes", "--store", str(store)]) == 1
    assert "is a donor of later" in capsys.readouterr().err


def test_rm_runs_no_code_that_a_config_names(store: Path, tmp_path: Path):
    (tmp_path / "trap.py").write_text("raise SystemExit('sprung')")
    other = store / "other"
    other.mkdir()
    text = (store / RUN.name / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"kind": "set"', f'"kind": "{tmp_path / "trap.py"}:X"'))
    assert main(["runs", "--store", str(store), "rm", RUN.name, "--yes"]) == 0


def test_a_copy_is_removed_by_its_own_name(store: Path):
    shutil.copytree(store / RUN.name, store / "copy")
    assert main(["runs", "--store", str(store), "rm", "copy", "--yes"]) == 0
    assert not (store / "copy").exists() and (store / RUN.name).exists()


def test_what_is_interrupted_in_its_removal_does_not_pass_for_complete(store: Path, monkeypatch):
    def broken(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", broken)
    with pytest.raises(KeyboardInterrupt):
        remove(entry(store, RUN.name))
    assert not Store(store).has_weights(RUN) and (store / RUN.name / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"kind": "set"', '"kind": 3', "config.procedure.kind in {config} is 3"),
        ('"identity"', '"identiti"', "identity in {config} is None"),
        ('"parts": {', '"partz": {', "config.recipe.parts in {config} is None"),
        ('"donors": {', '"donorz": {', "config.donors in {config} is None"),
    ],
)
def test_a_malformed_config_costs_its_own_folder_only(store: Path, old: str, new: str, said: str, capsys):
    config = store / RUN.name / "config.json"
    config.write_text(config.read_text().replace(old, new))
    (store / DONOR.name / "lock").unlink(missing_ok=True)
    (store / DONOR.name / "lock").mkdir()  # a lock that cannot be opened, as in a folder that may only be read
    (store / DONOR.name / "test.json").unlink()
    assert main(["runs", "--store", str(store), "list"]) == 0
    shown = capsys.readouterr()
    assert f"{store / RUN.name} is not a run: {said.format(config=config)}" in shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == [DONOR.name, "1"]


@pytest.mark.parametrize("spoil", ["scores", "weights"])
def test_a_damaged_run_is_listed_shown_and_can_be_removed(store: Path, spoil: str, capsys):
    test, model = store / RUN.name / "test.json", store / RUN.name / "model.safetensors"
    if spoil == "scores":
        test.write_text('{"accuracy": "high"}')
    else:
        model.write_bytes(model.read_bytes()[:-1])
    assert main(["runs", "--store", str(store), "list", "--status", "damaged"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [RUN.name, "1"]
    assert main(["runs", "--store", str(store), "show", RUN.name]) == 0
    problem = f"accuracy in {test} is 'high'" if spoil == "scores" else f"a file that {test} lists"
    assert f"damaged: {problem}" in capsys.readouterr().out
    assert main(["runs", "--store", str(store), "rm", RUN.name, "--yes"]) == 0
    assert not test.parent.exists()


def test_a_store_that_is_not_there_is_said(tmp_path: Path, capsys):
    assert main(["runs", "--store", str(tmp_path / "none"), "list"]) == 1
    assert "does not exist: there is no such folder of runs" in capsys.readouterr().err


def test_an_engine_asked_for_on_a_finished_run_is_not_ignored(store: Path, tmp_path: Path, capsys):
    config = tmp_path / "run.json"
    write_json(config, RUN.to_dict())
    made_by = Store(store).provenance(RUN)["engine"].split(",")[0].split()[0]
    other = "reference" if made_by != "reference" else "torch"
    assert main(["run", str(config), "--store", str(store), "--engine", other]) == 1
    assert f"engine = '{other}' is not allowed" in capsys.readouterr().err
    assert main(["run", str(config), "--store", str(store), "--engine", made_by]) == 0
    assert f"complete: it was computed by the engine {made_by}" in capsys.readouterr().out
    environment = store / RUN.name / "environment.json"
    test = store / RUN.name / "test.json"
    write_json(environment, read_json(environment) | {"device": "a GPU"})
    scores = read_json(test)
    scores["files"]["environment.json"] = describe(environment)
    write_json(test, scores | {"checksum": digest({key: scores[key] for key in scores if key != "checksum"})})
    assert main(["run", str(config), "--store", str(store), "--device", "cpu:0"]) == 1
    assert "device = 'cpu:0' is not allowed: 'a GPU'" in capsys.readouterr().err


def test_verify_ends_with_an_error_when_anything_is_damaged(store: Path, tmp_path: Path, capsys):
    assert main(["runs", "verify", "--store", str(store)]) == 0
    assert capsys.readouterr().out == f"2 runs in {store}, no damages\n"
    (store / RUN.name / "model.safetensors").unlink()
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "set.jsonl").write_text("no record\n")
    assert main(["runs", "verify", "--store", str(store), "--records", str(tmp_path / "records")]) == 1
    shown = capsys.readouterr()
    assert shown.out == f"2 runs in {store}, 2 damages\n" and shown.err.count("mechproc: ") == 2
