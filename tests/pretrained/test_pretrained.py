"""Donors are packed as they were trained, and those that come along are what their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import mechproc
from mechproc import pretrained
from mechproc.errors import ConfigError
from mechproc.model.config import ModelConfig
from mechproc.model.state import init_state
from mechproc.procedures import Procedure, Set
from mechproc.runs.store import Store
from mechproc.studies import masters, packing
from mechproc.studies.registry import load
from mechproc.training.config import TrainingConfig
from mechproc.training.data import evaluation_batches, evaluation_items
from mechproc.training.evaluate import evaluate

ROOT = Path(__file__).parents[2]
SHORT = TrainingConfig(
    steps=20,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    evaluate_every=5,
    n_validation=20,
    n_test=30,
    checkpoints_per_decade=1,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two seeds of two rules, trained for a moment, in the place of those that come along."""
    monkeypatch.setattr(masters, "TRAINING", SHORT)
    monkeypatch.setattr(masters, "KEPT", (0, 10))
    monkeypatch.setattr(packing, "CURVE", (0, 10, 20))
    monkeypatch.setattr(packing, "MIDDLE", 0.5)
    monkeypatch.setattr(masters, "LONGER", {"eca-vectors": 20})
    packing.build(["set", "eca-vectors"], Store(tmp_path / "runs"), tmp_path / "data", seeds=[0, 1], workers=1)
    monkeypatch.setattr(pretrained, "DATA", tmp_path / "data")
    return tmp_path


def test_a_donor_is_the_model_of_its_run(small: Path):
    store, run = Store(small / "runs"), masters.recipe("set", 1)
    cfg, last = pretrained.pretrained_weights("set", seed=1)
    assert cfg == run.model and all(torch.equal(last[name], t) for name, t in store.model(run)[1].items())
    start = pretrained.pretrained_weights("set", seed=1, step=0)[1]
    assert all(torch.equal(start[name], t) for name, t in init_state(cfg, 1, "set").items())
    middle = pretrained.pretrained_weights("set", seed=1, step=10)[1]
    assert all(torch.equal(middle[name], t) for name, t in store.checkpoint(run, 10)[1].items())
    assert not torch.equal(middle["embed.W_E"], last["embed.W_E"])


def test_the_same_trainings_pack_into_the_same_bytes(small: Path):
    packing.build(["set"], Store(small / "other"), small / "again", seeds=[0, 1], workers=1)
    names = sorted(path.name for path in (small / "again" / "set").iterdir())
    assert names == ["card.json", "card.md", "seed_0.safetensors", "seed_1.safetensors"]
    for name in names:
        one, other = (json.loads((small / d / "set" / "card.json").read_text()) for d in ("data", "again"))
        one["provenance"].pop("date"), other["provenance"].pop("date")
        assert one == other
        if name.endswith("safetensors"):
            assert (small / "data" / "set" / name).read_bytes() == (small / "again" / "set" / name).read_bytes()


def test_the_card_says_what_was_not_mastered_and_why(small: Path):
    card, page = pretrained.card("set"), (small / "data" / "set" / "card.md").read_text()
    assert card["mastered"] == [] and card["n_test"] == 30 and card["ceiling"] == 1.0
    for donor in card["donors"]:
        missing = 100 * (1 - donor["accuracy"])
        assert f"- Seed {donor['seed']}: {missing:.1f} points below the ceiling" in page
    assert "points after step 10: more steps may help" in page or "did not rise after step 10" in page


def test_mastered_is_who_comes_near_enough_to_the_ceiling(small: Path, monkeypatch: pytest.MonkeyPatch):
    scores = {d["seed"]: d["accuracy"] for d in pretrained.card("eca-vectors")["donors"]}
    better = max(scores, key=lambda seed: scores[seed])
    assert len(set(scores.values())) == 2
    monkeypatch.setattr(packing, "MASTERED", 1 - sum(scores.values()) / 2)
    packing.build(["eca-vectors"], Store(small / "runs"), small / "data", seeds=[0, 1], workers=1)
    assert pretrained.card("eca-vectors")["mastered"] == [better]


def test_what_there_is_not_is_said(small: Path):
    with pytest.raises(ConfigError, match=r"rule = 'sett' has no donors: one of eca-vectors, set; did you mean 'set'"):
        pretrained.load_pretrained("sett")
    with pytest.raises(ConfigError, match="seed = 7 is not allowed: one of 0, 1"):
        pretrained.load_pretrained("set", seed=7)
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(ConfigError, match=f"seed = {wrong!r} is not allowed: one of 0, 1"):
            pretrained.load_pretrained("set", seed=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="rule = None has no donors"):
        pretrained.load_pretrained(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="step = 11 is not allowed: one of 0, 10, 20"):
        pretrained.load_pretrained("set", step=11)
    with pytest.raises(ConfigError, match="rule = 'haystack' is not allowed"):
        masters.recipe("haystack", 0)


def test_a_model_of_another_version_of_its_rule_is_named(small: Path, monkeypatch: pytest.MonkeyPatch):
    pretrained.load_pretrained("set", seed=1)
    monkeypatch.setattr(Set, "version", "7.0.0")
    with pytest.warns(UserWarning, match=r"set, seed 1.* version .* of the rule, .* 7\.0\.0"):
        pretrained.load_pretrained("set", seed=1)


def test_every_shipped_model_has_a_recipe():
    for name in pretrained.shipped():
        run = packing.recipe(name, packing.kind_of(name).seeds[0])
        assert pretrained.card(name)["donors"][0]["run"] == run.identity or not name.startswith("transferable/")
    assert {"set", "transferable/set"} <= set(pretrained.shipped())


def test_transferable_models_are_the_donors_of_the_records():
    """A record of a transfer names the run of its donor; the model that ships is that run's, up to the processor's
    rounding."""
    store, study = Store(ROOT / "no-runs", ROOT / "results" / "records"), load("rules-by-task", "paper")
    card = pretrained.card("transferable/set")
    for seed in packing.kind_of("transferable/set").seeds:
        donor = study.run_of("haystack: set, attention", seed).donors["set"]
        entry = next(entry for entry in card["donors"] if entry["seed"] == seed)
        assert entry["run"] == donor.identity
        assert entry["accuracy"] == pytest.approx(store.test(donor)["accuracy"], abs=0.01)


@pytest.mark.filterwarnings("ignore:stack, seed 0 was trained on version 1.0.0")
@pytest.mark.parametrize("rule", pretrained.shipped())
def test_what_comes_along_is_what_its_card_says(rule: str):
    """The first donor, scored again on the first of its test items, is within chance of its card."""
    card = pretrained.card(rule)
    assert [d["seed"] for d in card["donors"]] == list(packing.kind_of(rule).seeds)
    procedure, seed = Procedure.from_dict(card["procedure"]), packing.kind_of(rule).seeds[0]
    trained = packing.recipe(rule, seed)
    assert procedure == trained.procedure and ModelConfig.from_dict(card["model"]) == trained.model
    assert TrainingConfig.from_dict(card["training"]) == trained.training
    cfg, state = pretrained.pretrained_weights(rule, seed)
    accuracy = evaluate(state, cfg, evaluation_batches(evaluation_items(procedure, 500, "test"))).token_accuracy
    assert accuracy == pytest.approx(card["donors"][0]["accuracy"], abs=0.03)
    assert card["mastered"] == [d["seed"] for d in card["donors"] if d["accuracy"] >= card["ceiling"] - 0.01]


def test_a_donor_is_a_model_to_look_into():
    model = mechproc.load_pretrained("set", seed=3)
    logits, cache = model.run_with_cache(torch.tensor([[2, 3, 2, 1]]))
    assert logits.shape == (1, 4, 22) and cache["blocks.0.attn.hook_pattern"].shape == (1, 4, 4, 4)
