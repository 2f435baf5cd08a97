"""The rules of planted models: examples, oracle and pairs, as for every procedure."""

import numpy as np
import pytest

from analyses.planted.rules.dyck import BoundedDyck
from analyses.planted.rules.lookup import Lookup
from analyses.planted.rules.modsum import ModSum
from analyses.planted.rules.offset import Offset
from mechproc.errors import ConfigError
from mechproc.procedures.base import UNDEFINED
from mechproc.procedures.lengths import Fixed, Uniform

RULES = [Offset, Lookup, ModSum, BoundedDyck]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_examples(rule):
    for example in rule.examples:
        procedure = rule.small_version(**example.settings)
        block = procedure.encode([example.text])
        assert procedure.token_names[block.targets[block.scored][0]] == example.scored
        for name, values in example.latents.items():
            assert tuple(block.latents[name][0, : len(values)]) == values, name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
@pytest.mark.parametrize("small", [True, False])
def test_the_oracle_agrees_with_every_item(rule, small):
    procedure = rule.small_version() if small else rule()
    block = procedure.items(50)
    for text in procedure.decode(block):
        *question, answer = text.split()
        assert procedure.oracle(question) == [answer]
    assert procedure.ceiling(block) == 1.0


def test_lengths_may_vary():
    for procedure in (Offset(lengths=Uniform(6, 9)), BoundedDyck(lengths=Uniform(6, 9))):
        block = procedure.items(60)
        assert len(set(block.n_tokens)) == 4
        for text in procedure.decode(block):
            *question, answer = text.split()
            assert procedure.oracle(question) == [answer]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_pairs_change_what_they_say(rule):
    procedure = rule()
    for kind, what in procedure.pair_kinds.items():
        clean, corrupt = procedure.minimal_pairs(kind, 40)
        for name in what.changes:
            assert (clean.latents[name] != corrupt.latents[name]).any(axis=1).all(), (kind, name)
        for name in what.holds:
            assert np.array_equal(clean.latents[name], corrupt.latents[name]), (kind, name)
        assert set(what.changes) | set(what.holds) <= set(procedure.latent_names)


def test_dyck_is_bounded_and_open_at_the_end():
    block = BoundedDyck().items(300)
    depth = block.latents["depth"][:, :-1]
    assert depth.min() >= 0 and depth.max() == 3
    assert set(depth[:, -1]) == {1, 3}
    assert (block.latents["depth"][:, -1] == UNDEFINED).all()


def test_masks_point_to_the_answer():
    offset, dyck = Offset().items(20), BoundedDyck().items(20)
    for procedure, block, name, plus in ((Offset(), offset, "answer", 0), (BoundedDyck(), dyck, "innermost", 3)):
        item, query, key = np.nonzero(procedure.attention_targets(block)[name])
        assert np.array_equal(block.tokens[item, key] + plus, block.targets[item, query])


@pytest.mark.parametrize(
    "make, field",
    [
        (lambda: Offset(offset=8), "offset = 8"),
        (lambda: Lookup(table=(0, 0)), "table"),
        (lambda: ModSum(offset=6), "offset = 6"),
        (lambda: BoundedDyck(depth=1, lengths=Fixed(4)), "depth = 1"),
    ],
)
def test_settings_are_checked(make, field):
    with pytest.raises(ConfigError, match=field):
        make()
