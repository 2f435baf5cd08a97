"""What a study refuses to compare, and how that is asked for."""

from __future__ import annotations

import pytest

from mechproc.errors import ConfigError
from mechproc.model.io import save_model
from mechproc.model.state import init_state
from mechproc.procedures import Haystack, Identity, Set, Uniform
from mechproc.runs.config import RunConfig
from mechproc.runs.donors import ModelFile
from mechproc.statistics.claims import Claim, Contrast, against
from mechproc.statistics.comparisons import Family
from mechproc.studies.shape import Shape
from mechproc.studies.study import Study
from mechproc.training.config import TrainingConfig
from mechproc.transfer import Recipe, attention_only, fresh

SHAPE = Shape(n_layers=1, n_heads=2, d_model=8)
SHORT = TrainingConfig(steps=3, batch_size=4, warmup_steps=0, evaluate_every=3, n_validation=5, n_test=20)
TASK, OTHER = Haystack(n_keys=4, n_values=8, lengths=Uniform(1, 3)), Identity(lengths=Uniform(2, 4), n_symbols=8)
RULE = Set(lengths=Uniform(2, 4), n_symbols=8)
SEEDS, RANDOM = range(3), fresh()


def run(seed, task=TASK, training=SHORT, recipe=RANDOM, donors=None, shape=SHAPE) -> RunConfig:
    return RunConfig(task, shape.model_for(task), training, seed, recipe, donors or {})


def arms(**settings) -> list[tuple[str, RunConfig]]:
    return [(name, run(seed, **changes)) for name, changes in settings.items() for seed in SEEDS]


def donor(seed: int) -> RunConfig:
    return RunConfig(RULE, SHAPE.model_for(RULE), SHORT, seed)


PAIR = (Family("x", (("a", "b"),)),)


@pytest.mark.parametrize(
    ("changes", "setting", "field"),
    [
        ({"task": OTHER}, "procedure", "procedure ('haystack' and 'identity')"),
        ({"training": SHORT.replace(steps=6)}, "training", "training.steps (3 and 6)"),
        ({"shape": SHAPE.replace(d_model=16)}, "model", "model.d_model (8 and 16)"),
    ],
)
def test_arms_that_differ_in_more_than_their_start_are_refused_unless_asked_for(changes, setting, field):
    runs = arms(a={}, b=changes)
    with pytest.raises(ConfigError) as error:
        Study("mixed", runs, PAIR)
    assert field in str(error.value) and f"may_differ=({setting!r},)" in str(error.value)
    with pytest.raises(ConfigError, match="'a' and 'b', which differ in"):
        Study("mixed", runs, claims=(Claim("x", "A statement.", (against("a", "b", 0.1),)),))
    allowed = {"procedure": ("procedure", "model", "start")}.get(setting, (setting,))
    assert Study("mixed", runs, PAIR, may_differ=allowed).families == PAIR
    assert Study("not compared", runs).arms == ("a", "b")
    with pytest.raises(ConfigError, match="may_differ = 'seed'"):
        Study("mixed", runs, may_differ=("seed",))  # type: ignore[arg-type]


def test_differences_of_differences_between_tasks_are_allowed():
    runs = arms(a={}, b={}, c={"task": OTHER}, d={"task": OTHER})
    between = Contrast("interaction", {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}, 0.1)
    assert Study("x", runs, claims=(Claim("x", "s", (between,)),)).claims[0].arms == ("a", "b", "c", "d")
    across = Contrast("a task against another", {"a": 1.0, "b": 1.0, "c": -1.0, "d": -1.0}, 0.1)
    with pytest.raises(ConfigError, match=r"procedure \('haystack' and 'identity'\)"):
        Study("x", runs, claims=(Claim("x", "s", (across,)),))


def test_one_donor_for_several_seeds_is_refused_unless_asked_for_and_then_noted(store):
    recipe = attention_only("set")
    own = [("own", run(s, recipe=recipe, donors={"set": donor(s)})) for s in SEEDS]
    shared = [("shared", run(s, recipe=recipe, donors={"set": donor(0)})) for s in SEEDS]
    Study("x", own)
    with pytest.raises(ConfigError, match="donor 'set' of arm 'shared' is set, seed 0 for seed 0 and for seed 1"):
        Study("x", shared)
    study = Study("x", own + shared, shared_donors=True)
    assert study.notes(store, "own") == ()
    assert study.notes(store, "shared") == (
        "all seeds of shared share donors named set: verdicts are about these models, not about their rule",
    )


def test_one_model_file_for_several_seeds_is_one_donor(tmp_path):
    cfg = SHAPE.model_for(RULE)
    save_model(tmp_path / "model.safetensors", cfg, init_state(cfg, 0))
    file = ModelFile(str(tmp_path / "model.safetensors"))
    runs = [("x", run(s, recipe=attention_only("d"), donors={"d": file})) for s in SEEDS]
    with pytest.raises(ConfigError, match="give each seed a donor of its own"):
        Study("x", runs)


def test_compared_arms_have_the_same_seeds_and_others_need_not():
    runs = [*arms(a={}), ("b", run(0)), ("b", run(1))]
    with pytest.raises(ConfigError, match="seeds of arms 'a' and 'b'"):
        Study("x", runs, PAIR)
    assert Study("x", runs).seeds == (0, 1, 2)
    with pytest.raises(ConfigError, match="seeds of arm 'b' = 1"):
        Study("x", [*runs, ("b", run(1, recipe=Recipe()))])
