"""Runs packed before and after their training, and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mechproc.errors import ConfigError, StoreError
from mechproc.model.io import read_tensors
from mechproc.runs.executors import run_all
from mechproc.runs.store import Store
from mechproc.studies import trained
from mechproc.studies.set_to_haystack import transfer
from mechproc.studies.trained import ARMS, load_trained, pack, runs_to_pack, trained_weights

ROOT = Path(__file__).parents[2]


def test_what_ships_are_ten_seeds_of_three_arms_and_one_composition():
    runs = runs_to_pack()
    assert [len(of_arm) for of_arm in runs.values()] == [10, 10, 10, 1] and list(runs) == list(ARMS)
    assert len({run.identity for of_arm in runs.values() for run in of_arm}) == 31


def test_the_weights_that_ship_are_those_of_the_runs_that_records_tell_of():
    store = Store("none", ROOT / "results" / "records")
    for arm, runs in runs_to_pack().items():
        _, header = read_tensors(trained._path(arm, ROOT / "results" / "weights"))
        assert header["runs"] == {str(run.seed): run.identity for run in runs}, arm
        assert all(store.has_scores(run) for run in runs)
    run = runs_to_pack()["haystack: set, attention"][4]
    items = run.procedure.items(200)
    logits = load_trained("haystack: set, attention", run.seed, folder=ROOT / "results" / "weights")(items.tokens)
    right = logits[torch.from_numpy(items.scored)].argmax(-1).numpy() == items.targets[items.scored]
    assert right.mean() > 0.9 and store.test(run)["accuracy"] > 0.9
    assert sum(path.stat().st_size for path in (ROOT / "results" / "weights").iterdir()) <= trained.MOST_BYTES


def test_both_ends_of_each_training_are_packed_and_read(tiny, tmp_path, monkeypatch):
    store, out = Store(tmp_path / "runs"), tmp_path / "weights"
    arms = {"haystack: random": "random", "haystack: set, attention": "attention"}
    runs = {arm: [transfer(name, seed, tiny) for seed in (0, 1)] for arm, name in arms.items()}
    with pytest.raises(StoreError, match="no weights of 6 of 6 runs"):
        pack(store, out, runs)
    run_all([run for of_arm in runs.values() for run in of_arm], store, 1)
    paths = pack(store, out, runs)
    assert [path.name for path in paths] == ["haystack-random.safetensors", "haystack-set-attention.safetensors"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in pack(store, out, runs)] == first
    run = runs["haystack: set, attention"][1]
    for when, expected in (("before", store.checkpoint(run, 0)[1]), ("after", store.model(run)[1])):
        cfg, state = trained_weights("haystack: set, attention", 1, when, out)
        assert cfg == run.model and all(torch.equal(state[name], expected[name]) for name in expected)
    assert load_trained("haystack: random", 0, folder=out).cfg.d_model == tiny.d_model
    with pytest.raises(ConfigError, match="seed = 7"):
        trained_weights("haystack: random", 7, "after", out)
    with pytest.raises(ConfigError, match="did you mean 'haystack: random'"):
        trained_weights("haystack: randon", 0, "after", out)
    with pytest.raises(StoreError, match="mechproc study pack"):
        trained_weights("haystack: set, full", 0, "after", out)
    monkeypatch.setattr(trained, "MOST_BYTES", 1_000)
    with pytest.raises(ConfigError, match="bytes of weights"):
        pack(store, out, runs)


def test_the_command_says_what_is_missing(capsys, tmp_path):
    from mechproc.cli import main

    assert main(["study", "pack", "--store", str(tmp_path), "--out", str(tmp_path / "weights")]) == 1
    assert "records alone do not have weights" in capsys.readouterr().err and not (tmp_path / "weights").exists()
