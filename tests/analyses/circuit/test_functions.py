"""Heads named by what they attend to, and circuits compared by these names."""

from __future__ import annotations

import pytest

from analyses import attention, circuit
from analyses.circuit.compare import compare
from analyses.circuit.functions import by_function, head_functions, similarity
from analyses.planted.family import families
from analyses.planted.planting import plant
from mechproc.errors import ConfigError


@pytest.fixture(scope="module")
def two():
    """Two plantings of the haystack: the same functions in heads of other places, found along the same pairs."""
    planted = [plant(families()["haystack"](n_items=32), seed) for seed in (1, 2)]
    models = {seed: each.model for seed, each in enumerate(planted)}
    pairs = planted[0].contrast("keys").pairs
    task = planted[0].procedure
    scores = attention.scores(models, pairs.clean, task.attention_targets(pairs.clean))
    return planted, circuit.run(models, pairs), scores


def test_planted_heads_have_the_names_of_what_they_do(two):
    planted, _, scores = two
    names = head_functions(scores)
    for seed, each in enumerate(planted):
        first, second = each.variables
        assert names[seed][first] == f"{first[:2]} previous"
        assert names[seed][second] == f"{second[:2]} answer"


def test_circuits_of_other_heads_are_one_by_function(two):
    planted, found, scores = two
    assert list(planted[0].variables) != list(planted[1].variables)
    result = by_function(found, scores)
    edges = {"embed → L0 previous, v", "L0 previous → L1 answer, k", "L1 answer → logits"}
    assert set(result.coordinates["edge"]) == edges and set(result.metadata["seeds"].values()) == {2}
    assert result.values == pytest.approx(1, abs=0.2)
    assert similarity(result, result) == 1
    other = by_function(circuit.run({0: planted[0].model}, planted[0].contrast("answer").pairs), scores)
    assert 0.2 < similarity(result, other) < 0.8


def test_what_does_not_fit_is_refused(two):
    _, found, scores = two
    with pytest.raises(ConfigError, match="seeds of scores"):
        by_function(found, scores.select(seed=[0]))
    with pytest.raises(ConfigError, match="profile"):
        similarity(found, found)


def test_groups_are_compared_by_function(two):
    """The second group has one model of the first, under another label: equal circuits at other heads."""
    planted, _, _ = two
    models = {seed: each.model for seed, each in enumerate(planted)}
    groups = {"both": models, "one": {7: models[1]}}
    rules = dict.fromkeys(groups, planted[0].procedure)
    found = compare(groups, rules, ["answer"], threshold=1.0, n_items=4)
    assert found.coordinates["edge"] == ("L1 answer → logits", "embed → L1 answer, v")
    assert found.metadata["seeds"] == {"both": dict.fromkeys(found.coordinates["edge"], 2),
                                       "one": dict.fromkeys(found.coordinates["edge"], 1)}  # fmt: skip
    assert found.select(group="both", seed=[0, 1]).values == pytest.approx(1, abs=0.1)
    assert (found.select(group="one", seed=7).values == found.select(group="both", seed=1).values).all()
    assert not found.is_missing.any() and found.is_undefined.sum() == 2 * 3
    similar = found.metadata["similarity"]
    assert similar["both"]["one"] == similar["one"]["both"] > 0.9 and "one" not in similar["one"]
    assert "in 2 of 2" in found.metadata["sentences"][1]


@pytest.mark.parametrize(
    ("pairs", "rules", "message"),
    [
        (["answer", "query"], ["a", "b", "c"], "one kind, or one for each of a, b, c"),
        (["answer"], ["a", "b"], "procedure of c = None is not allowed"),
        (["answr"], ["a", "b", "c"], "pair kind 'answr' of haystack"),
    ],
)
def test_groups_that_do_not_fit_are_refused(two, pairs, rules, message):
    planted, _, _ = two
    groups = {group: {0: planted[0].model} for group in "abc"}
    with pytest.raises(ConfigError, match=message):
        compare(groups, dict.fromkeys(rules, planted[0].procedure), pairs, n_items=4)
