"""What the README shows runs as it stands."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import torch

import mechproc
from analyses import ANALYSES
from mechproc.cli import main
from mechproc.procedures import Procedure, builtin_procedures
from mechproc.runs.catalogue import entries
from mechproc.runs.config import RunConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def python(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


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


def test_the_pretrained_models_are_ready_to_be_looked_into(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = python(README)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert Path("heads.html").exists() and Path("map.html").exists()
    assert "estimate" in names["layers"].axes
    assert names["lost"].values.shape[1] == 3 and (names["lost"].values > 0.3).any()


def test_the_config_is_one_that_trains(tmp_path):
    (text,) = re.findall(r"```json\n(.*?)```", page("training"), flags=re.DOTALL)
    plain = json.loads(text)
    short = {"steps": 2, "batch_size": 8, "warmup_steps": 0, "n_validation": 8, "n_test": 8}
    for one in (plain, plain["donors"]["mine"]):
        assert RunConfig.from_dict(one).model.n_ctx == RunConfig.from_dict(one).procedure.n_ctx
        one["training"] |= short
    (tmp_path / "run.json").write_text(json.dumps(plain))
    assert main(["run", str(tmp_path / "run.json"), "--store", str(tmp_path / "runs")]) == 0
    assert [entry.recipe for entry in entries(tmp_path / "runs")[0]] == ["attn of mine (set)", "random"]


def test_a_model_of_transformers_has_the_same_logits_here():
    (code,) = [block for block in python(page("importing")) if "from_gpt2" in block]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.allclose(names["ours"](tokens), names["theirs"](tokens).logits, rtol=0, atol=1e-5)


def test_every_command_is_on_its_page_and_the_other_way_round():
    from mechproc.cli import NOUNS

    nouns = {noun.__name__.rsplit(".", 1)[-1] for noun in NOUNS}
    assert nouns == set(re.findall(r"^\| `mechproc (\w+)", page("commands"), flags=re.MULTILINE))


def test_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_examples_of_the_pages_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [*python(page("tutorial")), *(b for b in python(page("importing")) if "own_items" in b)]
    for code in blocks:
        exec(compile(code, "docs", "exec"), {})
    assert len(blocks) == 3 and Path("map.html").exists()


def test_the_growth_with_width_is_that_of_the_results_file():
    record = json.loads((ROOT / "results" / "benchmarks.json").read_text())
    width = record["growth"]["measured"]["width"]["64"]
    assert f"at 64 the kernel is {width['torch'] / width['cpu']:.1f} times" in page("training")


def test_every_notebook_is_in_the_readme_and_on_its_page():
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(re.findall(r"\(notebooks/(\w+)\.ipynb\)", README)) == names
    assert set(re.findall(r"^notebooks/(\w+)$", page("notebooks"), flags=re.MULTILINE)) == names


def test_every_public_module_of_the_packages_named_is_in_the_reference():
    """Rooms whose modules users call; what is inside them is reached from these."""
    listed = set(re.findall(r"automodule:: (\S+)", page("reference")))
    for name in listed:
        assert importlib.util.find_spec(name), name
    functions = {f"analyses.{where.split('.')[0]}" for where in ANALYSES.values()}
    assert functions <= listed, sorted(functions - listed)
    homes = set(mechproc._HOME.values()) - {"mechproc.result", "mechproc.procedures"}
    assert homes <= listed, sorted(homes - listed)


def test_it_is_short():
    """Without the claims, which grow with what is decided."""
    written = re.sub(r"(?<=<!-- findings:begin -->).*?(?=<!-- findings:end -->)", "", README, flags=re.DOTALL)
    assert len(written) < len(README) and len(written.split()) <= 1200
