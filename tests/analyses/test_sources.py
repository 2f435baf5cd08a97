"""Models by name."""

import shutil
from pathlib import Path

import pytest
import torch

from analyses.sources import groups, model_digest
from mechproc import load_pretrained
from mechproc.cli import main
from mechproc.errors import ConfigError, StoreError
from mechproc.model.io import save_model
from mechproc.pretrained import pretrained_weights
from mechproc.procedures import get
from mechproc.runs.store import Store
from mechproc.studies.registry import load

STUDY = """
from mechproc import Study
from mechproc.procedures import Haystack, Reverse, Uniform
from mechproc.studies.shape import Shape
from mechproc.training.config import TrainingConfig
from mechproc.transfer import attention_only, fresh

SHORT = TrainingConfig(
    steps=2, batch_size=4, warmup_steps=0, evaluate_every=2, n_validation=5, n_test=20, checkpoints_per_decade=1
)


def study(seeds=None):
    return Study.transfer(
        "tiny", task=Haystack(n_keys=4, n_values=8, lengths=Uniform(1, 3)),
        donors={"reverse": Reverse(lengths=Uniform(2, 4), n_symbols=8)},
        arms={"random": fresh(), "attention": attention_only("reverse")},
        model=Shape(n_layers=1, n_heads=2, d_model=8), training=SHORT, donor_training=SHORT, seeds=seeds or range(2),
    )
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Store]:
    folder = tmp_path_factory.mktemp("study")
    (folder / "tiny_study.py").write_text(STUDY)
    store = Store(folder / "runs")
    load(str(folder / "tiny_study.py")).complete(store, workers=1)
    return str(folder / "tiny_study.py"), store


@pytest.mark.parametrize(
    ("names", "seeds"),
    [(["sort"], list(range(10))), (["sort:0..2,7"], [0, 1, 2, 7]), (["sort:4", "sort:1"], [4, 1])],
)
def test_shipped_models(names, seeds):
    (group,) = groups(names)
    assert (group.name, list(group.models)) == ("sort", seeds) and group.procedure == get("sort")()
    model = load_pretrained("sort", seeds[-1])
    assert torch.equal(group.models[seeds[-1]].W_E, model.W_E) and group.spelled == tuple(names)


def test_shipped_models_on_the_way_are_a_group_of_their_own():
    start, end = groups(["sort:0@0", "sort:0"])
    assert (start.name, end.name) == ("sort at step 0", "sort") and start.digests() != end.digests()


def test_files_are_run_on_the_rule_that_is_named(tmp_path):
    file = save_model(tmp_path / "mine.safetensors", *pretrained_weights("sort", 3))
    (group,) = groups([str(file)])
    assert group.procedure is None and list(group.models) == ["mine"]
    (group,) = groups([str(file), "sort:3"], procedure=get("sort")())[:1]
    assert group.procedure == get("sort")()
    assert group.digests()["mine"] == model_digest(load_pretrained("sort", 3))


def test_a_file_that_knows_its_rule(tmp_path):
    metadata = {"procedure": get("sort")().to_dict()}
    file = save_model(tmp_path / "mine.safetensors", *pretrained_weights("sort", 3), metadata)
    assert groups([str(file)])[0].procedure == get("sort")()


def test_the_arms_of_a_study_are_groups(trained):
    file, store = trained
    random, attention = groups([file], store)
    assert (random.name, attention.name) == ("tiny: random", "tiny: attention")
    assert list(random.models) == [0, 1] and random.missing == () and random.procedure.kind == "haystack"
    (only,) = groups([f"{file}:att*@0"], store, n_seeds=3)
    assert only.name == "tiny: attention at step 0" and only.missing == (2,)
    assert only.digests() != attention.digests()


def test_an_arm_of_which_nothing_is_trained_is_told(trained, tmp_path, capsys):
    file, store = trained
    every = load(file)
    some = Store(tmp_path / "runs")
    shutil.copytree(store.folder(every.run_of("random", 0)).path, some.folder(every.run_of("random", 0)).path)
    (only,) = groups([file], some)
    assert only.name == "tiny: random" and only.missing == (1,) and only.absent == ("attention",)
    command = ["analyse", "spectrum", file, "--store", str(some.root), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Not trained yet: seeds 1." in out and out.endswith("No run is trained yet: attention\n")


def test_a_run_by_its_folder_and_by_its_name(trained):
    file, store = trained
    run = load(file).run_of("attention", 1)
    (by_folder,), (by_name,) = groups([str(store.folder(run))]), groups([run.name], store)
    assert by_folder.digests() == by_name.digests() == {"1": groups([file], store)[1].digests()["1"]}
    assert by_folder.name == "haystack: attn of reverse" and by_folder.procedure == run.procedure


def test_a_run_as_it_began_and_one_that_was_interrupted(trained, tmp_path):
    file, store = trained
    run = load(file).run_of("attention", 1)
    (start,) = groups([f"{run.name}@0"], store)
    assert start.name == "haystack: attn of reverse at step 0"
    assert start.digests() == {"1": groups([f"{file}:attention@0"], store)[0].digests()["1"]}
    with pytest.raises(StoreError, match="step = 7 is not a checkpoint of"):
        groups([f"{store.folder(run).path}@7"])
    shutil.copytree(store.folder(run).path, tmp_path / "begun")
    (tmp_path / "begun" / "test.json").unlink()
    with pytest.raises(ConfigError, match=r"a complete run .*interrupted goes on with"):
        groups([str(tmp_path / "begun")])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "at least one"),
        (["sorr"], "did you mean 'sort'"),
        (["sort:0", "sort:0..1"], "each seed once"),
        (["sort:12"], "seed = 12"),
        (["sort:0@5"], "step = 5"),
        (["set-to-haystack"], "mechproc study run set-to-haystack"),
        (["set-to-haystack:nothing"], "arm = 'nothing'"),
    ],
)
def test_what_stands_for_nothing_is_said(names, says, tmp_path: Path):
    with pytest.raises(ConfigError, match=says):
        groups(names, Store(tmp_path / "runs"))
