"""Analyses by name: their signatures are read from the source, and are those of the functions."""

import inspect
import shutil

import pytest

from analyses import ANALYSES, registry
from mechproc.errors import ConfigError


@pytest.mark.parametrize("name", ANALYSES)
def test_a_signature_is_that_of_the_function(name):
    called, parameters = registry.signature(name), inspect.signature(registry.function(name)).parameters
    assert called.takes and next(iter(parameters)) == called.models
    passes_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = inspect.signature(registry.function("ablation")).parameters | parameters if passes_on else parameters
    for option in called.options:
        default = known[option.name].default
        assert option.required == (default is inspect.Parameter.empty)
        assert option.default == default or option.default == registry.UNREADABLE or option.required
    if called.procedure is not None:
        assert "Procedure" in parameters[called.procedure].annotation
        assert called.needs_procedure == (parameters[called.procedure].default is inspect.Parameter.empty)
    assert called.about and called.about == registry.about(name) and "\n" not in called.about


def test_options_have_the_types_and_the_texts_of_the_parameters():
    options = {option.name: option for option in registry.signature("ablation").options}
    assert {"reference", "partners", "items"}.isdisjoint(options)  # nothing that can be written on a command line
    assert (options["parts"].kind, options["parts"].many) == (str, True)
    assert (options["n_items"].kind, options["n_items"].many, options["n_items"].default) == (int, False, None)
    assert options["ablation"].default == "zero" and "resample" in options["ablation"].text
    assert registry.signature("ablation").procedure == "items"
    kinds = {option.name: option for option in registry.signature("ablation-kinds").options}
    shapley = {option.name: option for option in registry.signature("ablation-shapley").options}
    assert (
        not shapley["parts"].required and shapley["ablation"].default == "mean" and shapley["metric"].default == "loss"
    )
    assert kinds["ablations"].many and kinds["pair"] == options["pair"]  # what compare passes on to run
    pairs = {option.name: option for option in registry.signature("ablation-pairs").options}
    assert pairs["n_items"] == options["n_items"] and pairs["metric"].default == "loss"


SOURCE = '''
from typing import Literal
from analyses.models import Models

Way = Literal["there", "back"]
N = 7

def run(models: Models, rule: Procedure | None = None, way: Way = "there", *, n: int = N, on: bool = True,
        others: Models | None = None, share: float = 0.5, must: str) -> Result:
    """Asks: axes ``part``.

    - ``way``, ``n``: said of
      both; and more.
    """
'''


def test_every_kind_of_option(tmp_path, monkeypatch):
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "own.py").write_text(SOURCE)
    monkeypatch.setattr(registry, "PACKAGES", tmp_path)
    monkeypatch.setitem(ANALYSES, "own", "own.run")
    called = registry.signature.__wrapped__("own")
    assert (called.takes, called.procedure, called.needs_procedure) == ({"seeds"}, "rule", False)
    assert called.about == "Asks"
    options = {option.name: option for option in called.options}
    assert options["way"].choices == ("there", "back") and options["way"].text == "said of both"
    assert options["n"].default == 7 and options["n"].text == "said of both"
    assert options["on"].kind is bool and options["share"].kind is float
    assert options["others"].models and options["others"].many and options["must"].required


def test_the_code_of_an_analysis_is_what_it_imports_and_what_it_stands_on():
    texts = registry.sources("ablation")
    assert {"analyses.ablation.run", "analyses.interventions.sweep", "analyses.models"} <= set(texts)
    assert {"mechproc.model.hooked", "mechproc.procedures.lists", "mechproc.statistics.shapley"} <= set(texts)
    assert "analyses.attention.analysis" not in texts and "mechproc.cli.main" not in texts


@pytest.mark.parametrize("changed", ["model/hooked.py", "procedures/lists.py", "statistics/shapley.py"])
def test_a_change_of_the_model_or_of_a_rule_is_a_change_of_the_code(changed, tmp_path, monkeypatch):
    for package in ("analyses", "mechproc"):
        shutil.copytree(registry.PACKAGES / package, tmp_path / package, ignore=shutil.ignore_patterns("data", "*.pyc"))
    before = registry.sources("ablation")
    monkeypatch.setattr(registry, "PACKAGES", tmp_path)
    assert registry.sources("ablation") == before
    with (tmp_path / "mechproc" / changed).open("a") as file:
        file.write("# changed\n")
    assert registry.sources("ablation") != before


def test_unknown_names_are_said(monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'ablation'"):
        registry.signature("ablatoin")
    monkeypatch.setitem(ANALYSES, "none", "ablation.nothing")
    with pytest.raises(ConfigError, match=r"analyses\.ablation\.nothing is not allowed"):
        registry.about("none")
