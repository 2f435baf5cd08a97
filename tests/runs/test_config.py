"""What decides a run's identity, and what does not."""

import json

import pytest

from mechproc.errors import ConfigError, PartError
from mechproc.procedures import Haystack, Set
from mechproc.studies.set_to_haystack import donor, transfer
from mechproc.runs.config import RunConfig
from mechproc.transfer import Recipe, attention_only


def test_a_config_survives_json(tiny):
    run = transfer("attention", 0, tiny)
    again = RunConfig.from_dict(json.loads(json.dumps(run.to_dict())))
    assert again == run
    assert again.identity == run.identity


def test_every_setting_decides_the_identity(tiny):
    run = transfer("attention", 0, tiny)
    changed = [
        run.replace(seed=1),
        run.replace(training=run.training.replace(learning_rate=1e-4)),
        run.replace(procedure=run.procedure.replace(n_values=9), model=run.model.replace(d_vocab=20)),
        run.replace(recipe=run.recipe.replace(freeze="attn")),
        run.replace(donors={"set": run.donors["set"].replace(seed=5)}),
    ]
    identities = [run.identity, *(c.identity for c in changed)]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("where", ["model", "recipe", "procedure", "the donor's procedure"])
def test_a_new_semantic_version_is_a_new_identity(tiny, monkeypatch, where):
    run = transfer("attention", 0, tiny)
    before = run.identity
    if where == "model":
        monkeypatch.setattr("mechproc.runs.config.MODEL_VERSION", "99.0.0")
    elif where == "recipe":
        monkeypatch.setattr("mechproc.runs.config.RECIPE_VERSION", "99.0.0")
    else:
        monkeypatch.setattr(Haystack if where == "procedure" else Set, "version", "99.0.0")
    assert run.identity != before


def test_what_a_run_cannot_do_is_said_before_it_starts(tiny):
    run = transfer("attention", 0, tiny)
    with pytest.raises(ConfigError, match=r"model\.d_vocab = 5"):
        run.replace(model=run.model.replace(d_vocab=5))
    with pytest.raises(ConfigError, match="donors"):
        run.replace(donors={})
    with pytest.raises(ConfigError, match="donors"):
        run.replace(recipe=Recipe())
    with pytest.raises(PartError, match="donor"):
        run.replace(model=run.model.replace(d_model=16, d_head=None, d_mlp=None))


def test_a_typo_names_the_nearest_setting(tiny):
    plain = transfer("random", 0, tiny).to_dict()
    plain["training"]["learning_rte"] = 1
    with pytest.raises(ConfigError, match=r"training\.learning_rte .* did you mean 'learning_rate'"):
        RunConfig.from_dict(plain)


def test_donors_come_first_and_once(tiny):
    first = donor(0, tiny)
    run = transfer("attention", 0, tiny)
    task = run.replace(recipe=attention_only("a"), donors={"a": first})
    both = task.replace(recipe=Recipe(parts={"attn": "a", "mlp": "b"}), donors={"a": first, "b": first})
    assert both.with_donors() == [first, both]
