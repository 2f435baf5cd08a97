"""What decides a run's identity, and what does not."""

import itertools
import json
import pickle

import pytest
import torch

from mechproc.errors import ConfigError, PartError, StoreError
from mechproc.model.io import save_model
from mechproc.model.state import init_state, weights_digest
from mechproc.procedures import Haystack, Identity, Set, Shuffled, Uniform
from mechproc.runs.config import RunAtStep, RunConfig
from mechproc.runs.donors import ModelFile, ShippedModel
from mechproc.runs.execute import execute
from mechproc.studies.set_to_haystack import donor, transfer
from mechproc.transfer import Recipe, assemble, attention_only, composition


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
    assert pickle.loads(pickle.dumps(run)).identity != before  # as a worker with other code reads it
    assert transfer("attention", 0, tiny).identity != before


def test_the_identity_is_computed_once(tiny, monkeypatch):
    """A study reports its progress many times, and looks all of its runs up by their identities each time."""
    run = transfer("attention", 0, tiny)
    before = run.identity
    monkeypatch.setattr("mechproc.runs.config.digest", None)
    assert run.identity == before and [each.name for each in run.with_donors()][-1] == run.name


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


def test_fresh_weights_belong_to_rule_and_seed(tiny):
    task, rule = transfer("attention", 0, tiny), donor(0, tiny)
    other = RunConfig(Identity(), rule.model.replace(n_ctx=41, d_vocab=22), rule.training, 0)
    starts = [assemble(Recipe(), run.model, run.seed, {}, run.start) for run in (task, rule, other)]
    for one, two in itertools.combinations(starts, 2):
        for name in one.keys() & two.keys():
            if name.rsplit(".", 1)[-1].startswith("W_") and one[name].shape == two[name].shape:
                assert not torch.equal(one[name], two[name]), name
    assert task.start == "haystack" and rule.start == "set"
    shuffled = RunConfig(Shuffled(), other.model, rule.training, 0)
    assert shuffled.start == "shuffled set"


def test_a_shared_start_is_refused_unless_it_is_asked_for(tiny):
    task = transfer("attention", 0, tiny)
    same = task.replace(recipe=Recipe(), donors={})
    with pytest.raises(ConfigError, match=r"donors\.set\.seed = 0"):
        task.replace(donors={"set": same})
    slower = donor(0, tiny).replace(training=donor(0, tiny).training.replace(learning_rate=1e-4))
    with pytest.raises(ConfigError, match=r"donors\.b\.seed = 0"):
        task.replace(recipe=composition("a", "b"), donors={"a": donor(0, tiny), "b": slower})
    shared = task.replace(donors={"set": donor(0, tiny).replace(start="haystack")})
    assert shared.donors["set"].start == shared.start and shared.identity != task.identity


def test_a_donor_may_be_a_run_at_a_step(tiny, store):
    rule, task = donor(0, tiny), transfer("attention", 0, tiny)
    early = task.replace(donors={"set": RunAtStep(rule, 1)})
    assert early.identity != task.identity and early.with_donors() == [rule, early]
    assert RunConfig.from_dict(json.loads(json.dumps(early.to_dict()))) == early
    with pytest.raises(ConfigError, match=r"step = 2 is not allowed: one of those that are kept"):
        RunAtStep(rule, 2)
    execute(rule, store)
    execute(early, store)
    before = store.checkpoint(early, 0)[1]
    assert torch.equal(before["blocks.0.attn.W_Q"], store.checkpoint(rule, 1)[1]["blocks.0.attn.W_Q"])
    assert not torch.equal(before["blocks.0.attn.W_Q"], store.model(rule)[1]["blocks.0.attn.W_Q"])


def test_a_donor_may_be_a_file_and_is_known_by_its_weights(tiny, tmp_path):
    task, cfg = transfer("attention", 0, tiny), donor(0, tiny).model
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_model(one, cfg, init_state(cfg, 5))
    save_model(other, cfg, init_state(cfg, 5))
    runs = [task.replace(donors={"set": ModelFile(str(path))}) for path in (one, other)]
    assert runs[0].identity == runs[1].identity != task.identity and runs[0].with_donors() == [runs[0]]
    again = RunConfig.from_dict(json.loads(json.dumps(runs[0].to_dict())))
    assert again == runs[0]
    save_model(one, cfg, init_state(cfg, 6))
    assert task.replace(donors={"set": ModelFile(str(one))}).identity != runs[0].identity
    with pytest.raises(StoreError, match="has changed since"):
        runs[0].donors["set"].weights()
    with pytest.raises(StoreError, match="weights_sha256"):
        RunConfig.from_dict(runs[0].to_dict())
    with pytest.raises(ConfigError, match="file = ''"):
        ModelFile("")


def test_a_donor_may_be_a_model_that_ships(tiny):
    shipped = ShippedModel("set", 3)
    cfg, state = shipped.weights()
    model = cfg.replace(n_ctx=tiny.most_pairs * 2 + 2, d_vocab=50, tied_embeddings=False)
    task = RunConfig(
        Haystack(n_keys=4, n_values=8, lengths=Uniform(1, 3)),
        model,
        donor(0, tiny).training,
        0,
        attention_only("set"),
        {"set": shipped},
    )
    assert task.donors["set"].identity == weights_digest(cfg, state) and task.with_donors() == [task]
    assert ShippedModel("set", 3, step=100).identity != shipped.identity != ShippedModel("set", 4).identity
    with pytest.raises(ConfigError, match="rule = 'sett' has no donors"):
        ShippedModel("sett", 3)


def test_a_run_shows_what_it_is(tiny):
    shown = transfer("attention", 3, tiny).summary()
    assert shown["starts from"] == "attn (set)" and shown["donors"] == "set: set, seed 3"
    assert shown["model"] == "2 layers, 2 heads, width 8, MLPs of 32" and shown["training"] == "12 updates of 4 items"
    page = transfer("random", 3, tiny)._repr_html_()
    assert "<th>starts from</th><td>random</td>" in page and "donors" not in page
