"""``Study.transfer`` and what follows from procedures."""

from __future__ import annotations

import pytest

from mechproc.errors import ConfigError, PartError
from mechproc.model.config import ModelConfig
from mechproc.model.io import save_model
from mechproc.model.state import init_state
from mechproc.procedures import EcaVectors, Haystack, Reverse, Set, Uniform
from mechproc.runs.config import RunConfig
from mechproc.runs.donors import ModelFile, ShippedModel
from mechproc.studies.pretraining import RULES, pretrained, pretraining, shuffled
from mechproc.studies.shape import PAPER, Shape
from mechproc.studies.study import Study
from mechproc.training.config import TrainingConfig
from mechproc.transfer import attention_only, composition, fresh

TASK, RULE = Haystack(n_keys=4, n_values=8, lengths=Uniform(1, 3)), Reverse(lengths=Uniform(2, 4), n_symbols=8)
SHAPE = Shape(n_layers=2, n_heads=2, d_model=8)
SHORT = TrainingConfig(
    steps=4, batch_size=4, warmup_steps=0, evaluate_every=2, n_validation=5, n_test=20, checkpoints_per_decade=None
)
USUAL = {"task": TASK, "model": SHAPE, "training": SHORT, "donor_training": SHORT}


def test_the_usual_arms_of_one_donor():
    study = Study.transfer("reverse to haystack", donors={"reverse": RULE}, seeds=range(8), **USUAL)
    assert study.arms == ("random", "full", "attention", "MLPs", "permuted attention")
    (family,) = study.families
    assert family.pairs == tuple((arm, "random") for arm in study.arms[1:]) and family.n_seeds == 8
    run = study.run_of("attention", 3)
    assert (run.model.n_ctx, run.model.d_vocab) == (TASK.n_ctx, TASK.d_vocab)
    donor = run.donors["reverse"]
    assert isinstance(donor, RunConfig)
    assert (donor.seed, donor.procedure, donor.training) == (3, RULE, SHORT)
    assert (donor.model.n_ctx, donor.model.d_vocab, donor.model.tied_embeddings) == (RULE.n_ctx, RULE.d_vocab, True)
    assert not run.model.tied_embeddings


def test_a_study_in_small(store):
    study = Study.transfer("x", donors={"reverse": RULE}, seeds=range(2), smallest_effect=0.1, **USUAL)
    study.complete(store, workers=1)
    verdicts = study.judge(store)
    assert {verdict.word for verdict in verdicts} == {"too few seeds (2 of 8)"}
    notes = " ".join(verdicts.notes())
    assert "runs of random are above" in notes and "donors reverse are above" in notes
    assert str(verdicts).startswith("Note: ")
    table = study.table(store)
    assert len(table) == 10 and set(table["seed"]) == {0, 1} and (table["baseline"] > 0).all()
    more = Study.transfer("x", donors={"reverse": RULE}, seeds=range(3), **USUAL)
    scores = more.scores(store)
    assert scores.is_missing[:, 2].all() and not scores.is_missing[:, :2].any()
    assert len(more.judge(store)) == 4  # on the two seeds that are complete
    steps = more.scores(store, "steps to 0.5").select(seed=[0, 1])
    assert (steps.values == 4).all() and steps.unit == "steps"
    assert (more.scores(store, "loss area").select(seed=0).values > 0).all()


def test_arms_comparisons_and_donors_are_checked_before_anything_runs():
    def transfer(**settings):
        return Study.transfer("x", **({"donors": {"reverse": RULE}, "seeds": range(8)} | USUAL | settings))

    for settings, text in (
        ({"against": "radnom"}, "did you mean 'random'"),
        ({"arms": {"random": fresh(), "a": attention_only("revers")}}, "donors.revers is missing"),
        ({"donors": {"a": RULE, "b": Set()}}, "arms = None"),
        ({"donors": {}}, "donors = {}"),
        ({"seeds": ()}, "seeds = ()"),
        ({"donors": {"reverse": "reverze"}}, "donors.reverse = 'reverze'"),
        ({"donors": {"reverse": 3}}, "donors.reverse = 3"),
        ({"donors": {"reverse": pretraining("reverse", 0, SHAPE)}}, "shared_donors=True"),
    ):
        with pytest.raises(ConfigError) as error:
            transfer(**settings)
        assert text in str(error.value)


def test_donors_that_do_not_fit_are_refused_with_both_shapes():
    wide = SHAPE.replace(d_model=16)
    with pytest.raises(PartError, match=r"arm 'full', seed 0: .*\[2, 16, 8\] there and \[2, 8, 4\] in this model"):
        Study.transfer("x", donors={"reverse": RULE}, donor_model=wide, **USUAL)


def test_donors_by_name_function_and_file(tmp_path):
    arms = {"random": fresh(), "both": composition("a", "b")}
    donors = {"a": "set", "b": pretrained("reverse", PAPER, SHORT)}
    study = Study.transfer("x", donors=donors, arms=arms, **(USUAL | {"model": PAPER}))
    run = study.run_of("both", 4)
    assert run.donors["a"] == ShippedModel("set", 4)
    assert run.donors["b"] == pretraining("reverse", 4, PAPER, SHORT)
    with pytest.raises(ConfigError, match=r"seed of donors.a = 11"):
        Study.transfer("x", donors=donors, arms=arms, seeds=[11], **(USUAL | {"model": PAPER}))

    cfg = SHAPE.model_for(RULE)
    save_model(tmp_path / "m.safetensors", cfg, init_state(cfg, 0))
    one = {"file": str(tmp_path / "m.safetensors")}
    study = Study.transfer("x", donors=one, shared_donors=True, **USUAL)
    assert study.run_of("attention", 5).donors["file"] == ModelFile(one["file"])


def test_shapes_follow_the_procedure_unless_given():
    assert SHAPE.model_for(TASK) == ModelConfig(2, 2, 8, TASK.n_ctx, TASK.d_vocab)
    assert SHAPE.replace(n_ctx=50, d_vocab=99).model_for(TASK) == ModelConfig(2, 2, 8, 50, 99)
    assert SHAPE.replace(n_ctx=50).replace(n_ctx=None).model_for(TASK).n_ctx == TASK.n_ctx
    vectors = SHAPE.replace(tied_embeddings=True).model_for(EcaVectors(width=8))
    assert (vectors.input, vectors.d_input, vectors.d_vocab, vectors.tied_embeddings) == ("vectors", 8, 8, False)
    with pytest.raises(ConfigError, match="n_head is not a setting"):
        Shape(n_head=4)
    with pytest.raises(ConfigError, match="n_heads = 3"):
        Shape(n_heads=3, d_model=16)


def test_every_rule_has_a_pretraining_of_its_own():
    runs = [pretraining(rule, 10) for rule in RULES]
    assert len({run.identity for run in runs}) == len(RULES)
    assert pretraining("set", 10).model.tied_embeddings and not pretraining("eca", 10).model.tied_embeddings
    assert pretraining("eca", 10, tied=True, training=SHORT).training == SHORT
    assert pretraining(shuffled("eca"), 10).training == pretraining("eca", 10).training
    with pytest.raises(ConfigError, match="did you mean 'reverse'"):
        pretraining("revers", 0)


def test_digits_are_those_of_the_answer_that_are_predicted(store, monkeypatch):
    """With counts by position where the test scores have them, by stairs where they have not."""
    from mechproc.procedures import Addition, Fixed

    task = Addition(lengths=Fixed(3))
    study = Study.transfer("x", donors={"set": Set()}, arms={"random": fresh()}, seeds=[0], **(USUAL | {"task": task}))
    study.complete(store, workers=1)
    run = study.run_of("random", 0)
    test = store.test(run)
    counts = test["by_position"]
    assert sum(counts["correct"]) / sum(counts["scored"]) == pytest.approx(test["accuracy"])
    assert counts["scored"][:4] == [20] * 4  # three digits and the stop, in every item
    assert study.scores(store, "digits").unit == "digits"

    def digits(**changes) -> float:
        monkeypatch.setattr(store, "test", lambda _: test | changes)
        return float(study.scores(store, "digits").values[0, 0])

    assert digits(by_position={"correct": [20, 18, 17, 3, 0], "scored": counts["scored"]}) == 2
    assert digits(by_position=None, accuracy=1.0) == 3
    with pytest.raises(ConfigError, match="measure = 'digits'"):
        other = Study.transfer("x", donors={"set": Set()}, arms={"random": fresh()}, seeds=[0], **USUAL)
        other.complete(store, workers=1)
        other.scores(store, "digits")
