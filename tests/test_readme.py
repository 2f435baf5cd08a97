"""What the README shows runs as it stands."""

import json
import re
from pathlib import Path
from typing import Any

import torch

from mechproc import pretrained
from mechproc.cli import main
from mechproc.procedures import Procedure, builtin_procedures
from mechproc.runs.catalogue import entries
from mechproc.runs.config import RunConfig
from mechproc.studies import masters

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_procedure_of_ones_own_runs(own_procedure, monkeypatch, capsys):
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))
    exec(compile(own_procedure, "README.md", "exec"), {"__name__": "__main__"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        *listed, _, answer = line.split()
        assert answer == f"[{listed[-1]}]"


def test_every_procedure_is_in_the_readme_and_the_other_way_round():
    (paragraph,) = re.findall(r"^Rules to pretrain on:.*?\n\n", README, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", paragraph)) == set(builtin_procedures())


def test_the_donors_are_those_of_their_cards():
    for rule in masters.RULES:
        card = pretrained.card(rule)
        scores = [100 * donor["accuracy"] for donor in card["donors"]]
        n, best, baseline = len(scores), 100 * card["ceiling"], 100 * max(card["baselines"].values())
        row = f"| {rule} | {min(scores):.1f} | {sum(scores) / n:.1f} | {max(scores):.1f} | {best:.1f} | {baseline:.1f}"
        assert f"{row} | {len(card['mastered'])} of {n} |" in README


def test_the_pretrained_models_are_ready_to_be_looked_into():
    (code,) = [block for block in BLOCKS if "load_pretrained" in block]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["lost"].values.shape[1] == 3 and (names["lost"].values > 0.3).any()


def test_the_config_is_one_that_trains(tmp_path):
    (text,) = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
    plain = json.loads(text)
    short = {"steps": 2, "batch_size": 8, "warmup_steps": 0, "n_validation": 8, "n_test": 8}
    for one in (plain, plain["donors"]["mine"]):
        assert RunConfig.from_dict(one).model.n_ctx == RunConfig.from_dict(one).procedure.n_ctx
        one["training"] |= short
    (tmp_path / "run.json").write_text(json.dumps(plain))
    assert main(["run", str(tmp_path / "run.json"), "--store", str(tmp_path / "runs")]) == 0
    assert [entry.recipe for entry in entries(tmp_path / "runs")[0]] == ["attn of mine (set)", "random"]


def test_a_model_of_transformers_has_the_same_logits_here():
    (code,) = [block for block in BLOCKS if "from_gpt2" in block]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.allclose(names["ours"](tokens), names["theirs"](tokens).logits, rtol=0, atol=1e-5)


def test_every_command_is_in_the_readme_and_the_other_way_round():
    from mechproc.cli import NOUNS

    nouns = {noun.__name__.rsplit(".", 1)[-1] for noun in NOUNS}
    assert nouns == set(re.findall(r"^\| `mechproc (\w+)", README, flags=re.MULTILINE))


def test_files_that_the_readme_names_exist():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target


def test_the_demo_s_numbers_are_those_of_the_results_file():
    results = json.loads((Path(__file__).parents[1] / "results" / "set_to_haystack.json").read_text())
    for arm, scores in results["accuracy"].items():
        mean = 100 * sum(scores) / len(scores)
        assert f"| {arm} | {mean:.1f} | {results['crossed'][arm]} of {len(scores)} |" in README
    for verdict in results["verdicts"]:
        low, high = 100 * verdict["low"], 100 * verdict["high"]
        assert (
            f"| {verdict['treatment']} against {verdict['control']} | {100 * verdict['mean_difference']:+.1f} "
            f"| {low:+.1f} to {high:+.1f} | {verdict['adjusted_p']:.3f} | {verdict['word']} |"
        ) in README
    for effect in ("accuracy_lost_without_head", "accuracy_lost_without_other_heads"):
        assert f"{100 * sum(results[effect]) / len(results[effect]):.1f}" in README


def test_the_benchmarks_are_those_of_the_results_file():
    record = json.loads((Path(__file__).parents[1] / "results" / "benchmarks.json").read_text())
    for section, suffix in {"steps": "one update", "trainings": "whole training (20 updates)"}.items():
        for task, seconds in record[section]["measured"].items():
            kernel = seconds["cpu"]
            others = ("torch", "transformers GPT-2, sdpa", "TransformerLens 4.3 native")
            ratios = " | ".join(f"{seconds[name] / kernel:.1f}" for name in others)
            assert f"| {task}, {suffix} | {1e3 * kernel:.1f} | {ratios} |" in README
    width = record["growth"]["measured"]["width"]["64"]
    assert f"at 64 the kernel is {width['torch'] / width['cpu']:.1f} times" in README
