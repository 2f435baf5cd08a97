"""The page of the worked question is what its measured files make; pairs that ask for a skip are what they say."""

from __future__ import annotations

import pytest

from analyses.circuit import of_rules
from analyses.circuit.of_rules import CONTRASTS, N_PAIRS, OF_DONORS, SEEDS, SEEDS_OF_DONORS, skipped
from analyses.circuit.page import OF_THE_DONORS, PAGE, every_section, load, write
from mechproc.errors import ConfigError
from mechproc.pages import between
from mechproc.procedures import get


def test_every_table_is_the_measured_one():
    for name, text in every_section().items():
        assert between(PAGE, name) == text, name


def test_writing_restores_a_table(tmp_path):
    copy = tmp_path / "page.md"
    right = PAGE.read_text()
    copy.write_text(right.replace("| contrast |", "| CONTRAST |"))
    assert copy.read_text() != right
    write(copy)
    assert copy.read_text() == right


@pytest.mark.parametrize(
    "found, rules, seeds", [(load(), CONTRASTS, SEEDS), (load(OF_THE_DONORS, OF_DONORS), OF_DONORS, SEEDS_OF_DONORS)]
)
def test_every_contrast_was_measured_in_eight_models(found, rules, seeds):
    for rule, of_rule in found.items():
        for contrast in rules[rule]:
            assert list(of_rule[contrast].coordinates["seed"]) == list(seeds) and len(seeds) == 8
            assert of_rule[contrast].metadata["n_pairs"] == N_PAIRS


def test_one_item_skips_what_the_other_writes():
    rule = get("set")()
    pairs = skipped(rule, 24)
    assert len(pairs) == 24 and (pairs.clean.scored.sum(1) == 1).all()
    sides = zip(pairs.clean.tokens.tolist(), pairs.corrupt.tokens.tolist(), strict=True)
    for row, (clean, corrupt) in enumerate(sides):
        n, place = int(pairs.clean.n_tokens[row]), int(pairs.clean.scored[row].argmax())
        for tokens in (clean[:n], corrupt[:n]):
            separator = tokens.index(1)
            assert list(dict.fromkeys(tokens[:separator])) == tokens[separator + 1 :]
        right, wrong, given = clean[place + 1], corrupt[place + 1], clean[: clean.index(1)]
        assert clean[place] == corrupt[place] and given.count(wrong) == 2 and right in given
        assert right in corrupt[: corrupt.index(1)] and corrupt.index(wrong) > clean.index(wrong)


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(of_rules, "MAX_BLOCKS", 1)
    with pytest.raises(ConfigError, match="n = 257"):
        skipped(get("set")(), of_rules.BLOCK + 1)
