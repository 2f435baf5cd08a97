"""``FILE.py:Class`` wherever a procedure's name stands."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.procedures import Fixed, Procedure, Set, Shuffled, get, procedures
from mechproc.procedures.from_file import load
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.training.config import TrainingConfig

EXAMPLE = 'Example("a b c | c", "c")'


@pytest.fixture
def file(own_procedure, tmp_path, monkeypatch) -> Path:
    """The procedure of the README, in a file of the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("rules").mkdir()
    Path("rules/last.py").write_text(own_procedure)
    return Path("rules/last.py")


def changed(file: Path, old: str, new: str) -> None:
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new))


def run_of(procedure: Procedure, seed: int = 0) -> RunConfig:
    model = ModelConfig(1, 2, 8, procedure.n_ctx, procedure.d_vocab)
    training = TrainingConfig(steps=2, batch_size=8, warmup_steps=0, n_validation=8, n_test=16)
    return RunConfig(procedure, model, training, seed)


def test_a_file_stands_where_a_name_does(file):
    Last = get("rules/last.py:Last")
    assert Last is load("rules/last.py:Last") and Last is get(f"{file.resolve()}:Last")
    procedure = Procedure.from_dict({"kind": "rules/last.py:Last", "lengths": {"kind": "fixed", "length": 4}})
    assert type(procedure) is Last and procedure.lengths == Fixed(4)
    assert Procedure.from_dict(procedure.to_dict()) == procedure
    assert procedure.to_dict()["kind"] == "rules/last.py:Last"
    assert procedure.encode(["a b c d | d"]).scored.sum() == 1 and procedure.ceiling(procedure.items(50)) == 1.0
    assert Shuffled(Fixed(4), procedure).version.endswith(procedure.version)


def test_what_a_file_defines_gets_no_short_name(file):
    before = procedures()
    load("rules/last.py:Last")
    assert procedures() == before
    with pytest.raises(ConfigError, match="procedure = 'last' is not allowed"):
        get("last")


def test_a_run_of_it_has_a_name_that_is_a_folder_and_comes_back(file):
    run = run_of(get("rules/last.py:Last")())
    assert run.name == f"Last-{run.identity[:12]}"
    assert RunConfig.from_dict(run.to_dict()).identity == run.identity


def test_another_file_is_another_run_and_other_data(file):
    before = run_of(get("rules/last.py:Last")())
    changed(file, "# the prediction", "# prediction")
    assert run_of(get("rules/last.py:Last")()).identity == before.identity, "only a comment"
    changed(file, "rng.integers(2,", "rng.integers(3,")
    after = run_of(get("rules/last.py:Last")())
    assert before.to_dict() == after.to_dict() and before.identity != after.identity
    assert not np.array_equal(before.procedure.items(20).tokens, after.procedure.items(20).tokens)
    with pytest.raises(ConfigError, match="the file has changed while it was in use"):
        pickle.loads(pickle.dumps(before))
    assert pickle.loads(pickle.dumps(after)) == after


def test_the_same_file_in_another_folder_gives_the_same_data(file, own_procedure):
    here = get("rules/last.py:Last")().items(20)
    Path("copy.py").write_text(own_procedure)
    copy = get("copy.py:Last")()
    assert np.array_equal(here.tokens, copy.items(20).tokens)
    original = get("rules/last.py:Last")()
    shuffled = [Shuffled(procedure=p, lengths=Fixed(5)).items(20).tokens for p in (original, copy)]
    assert np.array_equal(*shuffled)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (EXAMPLE, 'Example("a b c | c", "b")', "'a b c | c' does not hold: scored is c, not b"),
        (EXAMPLE, 'Example("a b c | b", "b")', "breaks the rule of rules/last.py:Last: 'b' may not stand"),
        (EXAMPLE, 'Example("a b c | c", "c", {"sum": (1,)})', "does not hold: the latents are , not sum"),
        (
            EXAMPLE,
            'Example("a b c | c", "c", settings={"length": 3})',
            "Last.length is not a setting; did you mean 'lengths'",
        ),
        ("return question[-2:-1]", "return question[0:1]", "'c' may not stand at position 4"),
        (f"({EXAMPLE},)", "()", "Last has no worked example"),
        ("    def oracle", "    def orakel", "Last does not define oracle"),
        ("import numpy as np", "import numpy as np\nimport nupmy", "ModuleNotFoundError: No module named 'nupmy'"),
        ("import numpy as np", "import numpy as np\n)", "last.py cannot be imported: SyntaxError: unmatched"),
        ('"last"', '"set"', "Last.kind = 'set' is not allowed: Set of mechproc has it"),
        ("import numpy as np", "import numpy as np\nraise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("class Last(", "class First(", "one of the procedures that it defines: First; did you mean 'First'"),
    ],
)
def test_a_file_that_does_not_hold_is_refused_at_load(file, old, new, said):
    changed(file, old, new)
    before = procedures()
    name = "rules/last.py:" + ("Firts" if "First" in new else "Last")
    for _ in range(2):  # refused again when asked for again
        with pytest.raises(ConfigError, match=re.escape(said)) as caught:
            get(name)
    assert str(caught.value).startswith(f"procedure = '{name}' is not allowed: ") and "\n" not in str(caught.value)
    assert procedures() == before


def test_a_file_that_is_not_there_is_refused(file):
    with pytest.raises(ConfigError, match=r"procedure = 'rules/lost.py:Last'.*cannot be read: No such file"):
        get("rules/lost.py:Last")
    Path("folder.py").mkdir()
    for name in ("folder.py:Last", "~nobody-of-that-name/last.py:Last", "a\0.py:Last"):
        with pytest.raises(ConfigError, match="cannot be read"):
            get(name)


def test_a_subclass_without_a_kind_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"Mine\.kind is missing: without one its settings would read as Set"):

        class Mine(Set):
            pass


@pytest.mark.slow
def test_other_processes_train_on_it(file, tmp_path):
    procedure = get("rules/last.py:Last")()
    from mechproc.runs.executors import run_all

    runs, store = [run_of(procedure, seed) for seed in (0, 1)], Store(tmp_path / "runs")
    run_all(runs, store, workers=2)
    assert all(store.test(run)["n_items"] == 16 for run in runs)
