"""The shuffled control keeps what a rule's items have and drops their order, for every rule."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.procedures import EcaVectors, Fixed, Haystack, Language, Procedure, Set, Shuffled, builtin_procedures, get

SHIPPED = list(builtin_procedures())
RULES = SHIPPED[: SHIPPED.index("shuffled")]


@pytest.mark.parametrize("kind", RULES)
def test_each_rule_can_be_shuffled(kind: str):
    inner = get(kind).small_version()
    procedure = Shuffled(procedure=inner)
    lengths = inner.lengths.draw(np.random.default_rng(1), 300)
    tokens, n_tokens = inner.draw(np.random.default_rng(3), lengths)
    shuffled, n_shuffled = procedure.draw(np.random.default_rng(3), lengths)  # the rule's draws come first
    assert np.array_equal(n_tokens, n_shuffled)
    assert all(Counter(a) == Counter(b) for a, b in zip(tokens.tolist(), shuffled.tolist(), strict=True))
    separators = [i for i, name in enumerate(inner.token_names) if name in ("|", ",")]
    for separator in separators:
        assert np.array_equal(tokens == separator, shuffled == separator)
    assert np.array_equal(inner.scored(tokens, n_tokens), procedure.scored(shuffled, n_shuffled))
    assert not np.array_equal(tokens, shuffled)
    block = procedure.items(40)
    assert 0 < procedure.ceiling(block) < 1
    assert Procedure.from_dict(procedure.to_dict()) == procedure


def test_every_order_is_as_likely():
    """Of ``a b | a b`` the four symbols may come in six orders."""
    procedure = Shuffled(procedure=Set(lengths=Fixed(2), n_symbols=2))
    tokens, _ = procedure.draw(np.random.default_rng(0), np.full(40_000, 2))
    both = tokens[(tokens == 2).sum(axis=1) == 2]
    both = both[(both == 3).sum(axis=1) == 2]
    orders = np.unique(both, axis=0, return_counts=True)[1]
    assert len(orders) == 6
    assert np.abs(orders / len(both) - 1 / 6).max() < 4 * np.sqrt(5 / 36 / len(both))


def test_probabilities_are_the_shares_of_what_is_still_to_come():
    procedure = Shuffled.small_version()
    block = procedure.items(60)
    probabilities = procedure.next_probabilities(block)
    for i, (row, n) in enumerate(zip(block.tokens.tolist(), block.n_tokens.tolist(), strict=True)):
        for p in np.flatnonzero(block.scored[i]).tolist():
            left = Counter(row[p + 1 : n])
            expected = np.zeros(procedure.d_vocab)
            for token, count in left.items():
                expected[token] = count / (n - p - 1)
            assert np.allclose(probabilities[i, p], expected)


def test_lengths_are_those_of_the_rule_and_other_lengths_become_them():
    assert Shuffled(procedure=Set(lengths=Fixed(4))).lengths == Fixed(4)
    assert Shuffled(lengths=Fixed(3)).procedure == Set(lengths=Fixed(3))


def test_another_rule_brings_its_own_lengths():
    assert Shuffled().replace(procedure=Set(Fixed(9))).lengths == Fixed(9)
    assert Shuffled().replace(procedure=Set(Fixed(9)), lengths=Fixed(3)).procedure.lengths == Fixed(3)


def test_scores_of_cells_have_a_ceiling_of_cells():
    """All orders of the states that are still to come, counted for one item."""
    procedure = Shuffled(procedure=EcaVectors(Fixed(2), width=4, number=30))
    block = procedure.annotate(np.array([[1, 4, 16]]), np.array([3]))
    # after 0000 come 0011 and 1111 in either order: a dead cell of one and a live one of the other are a toss-up
    first, last = [0.5, 0.5, 1.0, 1.0], [1.0] * 4
    assert procedure.ceiling(block) == pytest.approx(np.mean(first + last))
    dead = procedure.annotate(np.array([[16, 4, 1]]), np.array([3]))  # 0011 and 0000 to come: dead cells are known too
    assert procedure.ceiling(dead) == pytest.approx(np.mean([1.0, 1.0, 0.5, 0.5, *last]))
    items = procedure.items(300)
    assert max(procedure.baselines(items).values()) < procedure.ceiling(items) < 1


def test_another_version_of_the_rule_is_another_version_of_its_control(monkeypatch):
    before = Shuffled().version
    monkeypatch.setattr(Set, "version", "9.9.9")
    assert Shuffled().version != before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"procedure": Haystack()}, "procedure = 'haystack' is not allowed.*do not depend on the order"),
        ({"procedure": Shuffled()}, "procedure = 'shuffled' is not allowed: a rule that is not shuffled already"),
        ({"procedure": Language(Fixed(8))}, "procedure = 'language' is not allowed: a rule: text is held out"),
    ],
)
def test_what_cannot_be_shuffled_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Shuffled(**settings)
