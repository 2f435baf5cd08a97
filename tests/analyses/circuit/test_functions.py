"""Heads named by what they attend to, and circuits compared by these names."""

from __future__ import annotations

import pytest

from analyses import attention, circuit
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
