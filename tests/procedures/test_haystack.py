"""``haystack`` against plain Python, counts made by hand and the floor derived for the paper's sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures.haystack import ANSWER, KEY, QUERY, VALUE, Haystack
from mechproc.procedures.items import UNDEFINED
from mechproc.procedures.lengths import Fixed, Uniform

WIDE = Haystack(lengths=Uniform(1, 7), n_keys=9, n_values=5)


@st.composite
def questions(draw: st.DrawFn) -> list[str]:
    keys = draw(st.lists(st.integers(0, 8), min_size=1, max_size=7, unique=True))
    values = draw(st.lists(st.integers(0, 4), min_size=len(keys), max_size=len(keys)))
    asked = draw(st.sampled_from(keys))
    context = [name for key, value in zip(keys, values, strict=True) for name in (f"k{key}", f"v{value}")]
    return [*context, f"q{asked}"]


def test_the_default_sizes_are_those_of_the_paper():
    procedure = Haystack()
    assert (procedure.n_ctx, procedure.d_vocab) == (62, 1 + 30 + 127 + 30)
    block = procedure.items(4096, split="train")
    n_pairs = block.latents["n_pairs"].max(axis=1)
    assert np.array_equal(block.n_tokens, 2 * n_pairs + 2)
    counts = np.bincount(n_pairs, minlength=31)[1:]
    assert (abs(counts - 4096 / 30) < 5 * np.sqrt(4096 / 30)).all()


@given(questions())
@settings(deadline=None, max_examples=200)
def test_latents_as_plain_python_has_them(question):
    answer = WIDE.oracle(question)
    block = WIDE.encode([" ".join([*question, *answer])])
    names, n_pairs = [*question, *answer], len(question) // 2
    number = [int(name[1:]) for name in names]
    at = names.index(f"k{number[-2]}")
    expected = {name: [UNDEFINED] * WIDE.n_ctx for name in WIDE.latent_names}
    for p in range(2 * n_pairs):
        expected["role"][p] = KEY if names[p][0] == "k" else VALUE
        expected["pair"][p] = p // 2
        expected["key"][p] = number[p] if names[p][0] == "k" else number[p - 1]
        expected["value"][p] = number[p] if names[p][0] == "v" else UNDEFINED
    query = 2 * n_pairs
    expected["role"][query], expected["role"][query + 1] = QUERY, ANSWER
    at_query = {"n_pairs": n_pairs, "asked_key": number[query], "asked_pair": at // 2, "answer": number[at + 1]}
    at_query |= {"copies": names[1:query:2].count(names[at + 1]), "key_position": at, "value_position": at + 1}
    for name, value in at_query.items():
        expected[name][query] = value
    for name, values in block.latents.items():
        assert values[0].tolist() == expected[name], name
    assert np.flatnonzero(block.scored[0]).tolist() == [query]
    assert np.argwhere(WIDE.legal_next(block)[0]).tolist() == [[query, WIDE.token_names.index(answer[0])]]


@given(questions())
@settings(deadline=None, max_examples=50)
def test_a_prompt_knows_its_answer_and_scores_nothing(question):
    block = WIDE.encode([" ".join(question)])
    query = len(question) - 1
    assert f"v{block.latents['answer'][0, query]}" == WIDE.oracle(question)[0]
    assert not block.scored.any()


def test_contents_are_drawn_uniformly_and_keys_are_distinct():
    procedure = Haystack(lengths=Fixed(3), n_keys=5, n_values=4)
    block = procedure.annotate(*procedure.draw(np.random.default_rng(0), np.full(20_000, 3)))
    keys, values = block.latents["key"][:, 0:6:2], block.latents["value"][:, 1:6:2]
    assert all(len(set(row)) == 3 for row in keys.tolist())
    for drawn, kinds in ((keys, 5), (values, 4), (block.latents["asked_pair"].max(axis=1)[:, None], 3)):
        for column in drawn.T:
            share = np.bincount(column, minlength=kinds) / len(column)
            assert np.allclose(share, 1 / kinds, atol=5 * 0.5 / np.sqrt(len(column)))
    both = np.bincount(4 * values[:, 0] + values[:, 1], minlength=16) / len(values)
    assert np.allclose(both, 1 / 16, atol=0.01), "values are independent"


# ---- baselines ------------------------------------------------------------------------------------------------------


def test_some_value_of_the_context_scores_what_was_derived():
    procedure = Haystack()
    block = procedure.items(16_384, split="train")
    right_pair = sum(1 / n for n in range(1, 31)) / 30
    assert right_pair == pytest.approx(0.133, abs=5e-4), "the number of the literature"
    assert (1 / block.latents["n_pairs"].max(axis=1)).mean() == pytest.approx(right_pair, abs=0.006)
    some_value = right_pair + (1 - right_pair) / 127
    assert some_value == pytest.approx(0.140, abs=5e-4)
    baselines = procedure.baselines(block)
    assert baselines["a value of the context"] == pytest.approx(some_value, abs=0.006)
    assert baselines["the last value"] == pytest.approx(some_value, abs=0.011)
    assert baselines["a value at random"] == 1 / 127
    assert procedure.ceiling(block) == 1.0


def test_baselines_worked_out_by_hand():
    block = WIDE.encode(["k0 v1 k1 v1 k2 v4 q1 v1", "k0 v3 k5 v2 q0 v3", "k0 v0 k1 v0 k2 v3 k3 v3 k4 v1 q4 v1"])
    assert WIDE.baselines(block) == {
        "a value at random": 1 / 5,
        "a value of the context": pytest.approx((2 / 3 + 1 / 2 + 1 / 5) / 3),
        "the most frequent value of the context": pytest.approx((1 + 1 / 2 + 0) / 3),
        "the last value": pytest.approx((0 + 0 + 1) / 3),
    }


# ---- masks and pairs ------------------------------------------------------------------------------------------------


def test_masks_worked_out_by_hand():
    block = WIDE.encode(["k4 v1 k0 v2 q0 v2"])
    cells = {name: np.argwhere(mask[0]).tolist() for name, mask in WIDE.attention_targets(block).items()}
    assert cells == {
        "answer": [[4, 3]],
        "key": [[4, 2]],
        "previous": [[1, 0], [3, 2]],
        "any value": [[4, 1], [4, 3]],
    }


def pairs_in_names(kind: str) -> list[tuple[list[str], list[str]]]:
    clean, corrupt = (WIDE.decode(block) for block in WIDE.minimal_pairs(kind, 100))
    return [(a.split(), b.split()) for a, b in zip(clean, corrupt, strict=True)]


def test_pairs_differ_in_the_tokens_that_they_name():
    for clean, corrupt in pairs_in_names("answer"):
        key = clean.index(clean[-2].replace("q", "k"))
        assert [p for p in range(len(clean)) if clean[p] != corrupt[p]] == [key + 1, len(clean) - 1]
        assert corrupt[-1] not in clean
    for clean, corrupt in pairs_in_names("query"):
        assert clean[:-2] == corrupt[:-2] and clean[-2] != corrupt[-2] and clean[-1] != corrupt[-1]
    for clean, corrupt in pairs_in_names("distractor value"):
        (p,) = [p for p in range(len(clean)) if clean[p] != corrupt[p]]
        assert p % 2 == 1 and clean[p - 1] != clean[-2].replace("q", "k") and corrupt[p] not in clean


def test_order_swaps_the_pair_asked_for_with_another():
    for clean, corrupt in pairs_in_names("order"):
        as_pairs = [list(zip(item[:-2:2], item[1:-2:2], strict=True)) for item in (clean, corrupt)]
        moved = [i for i, pair in enumerate(as_pairs[0]) if as_pairs[1][i] != pair]
        assert clean[-2:] == corrupt[-2:] and sorted(as_pairs[0]) == sorted(as_pairs[1]) and len(moved) == 2
        assert clean.index(clean[-2].replace("q", "k")) // 2 in moved


def test_the_other_pair_of_a_partner_is_any_other():
    procedure = Haystack(lengths=Fixed(4), n_keys=6, n_values=9)
    clean, corrupt = (block.latents["asked_pair"].max(axis=1) for block in procedure.minimal_pairs("query", 2000))
    counts = np.bincount((corrupt - clean) % 4, minlength=4)
    assert counts[0] == 0 and (abs(counts[1:] - 2000 / 3) < 120).all()


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "k0 v1 q2 v1",  # a key that is not there
        "k0 v1 k0 v2 q0 v1",  # a key that is there twice
        "k0 v1 k1 v2 q0 v2",  # the value of another key
        "v1 k0 v1 q0 v1",  # a key in the place of a value
        "k0 v1 q0 v1 q0 v1",  # two queries
    ],
)
def test_items_that_break_the_rule_are_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of haystack"):
        WIDE.encode([text])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_keys": 0}, "n_keys = 0"),
        ({"n_values": 1}, "n_values = 1"),
        ({"lengths": Uniform(1, 31)}, "at most n_keys = 30 pairs"),
    ],
)
def test_impossible_sizes_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Haystack(**setting)
