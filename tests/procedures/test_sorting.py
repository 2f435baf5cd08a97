"""``sorting`` against Python's ``sorted``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.files import read_json
from mechproc.procedures.copy_rule import FIRST_SYMBOL
from mechproc.procedures.items import UNDEFINED
from mechproc.procedures.lengths import Uniform
from mechproc.procedures.sorting import Sorting
from mechproc.studies import sorting_sizes
from mechproc.training.config import TrainingConfig

TABLE = Path(__file__).parents[2] / "results" / "sorting_sizes.json"


@st.composite
def lists(draw: st.DrawFn) -> tuple[Sorting, list[tuple[int, ...]]]:
    n_digits, base = draw(st.integers(1, 25)), draw(st.sampled_from([2, 3, 12]))  # up to 25: beyond what 64 bits hold
    number = st.tuples(*[st.integers(0, base - 1)] * n_digits)
    numbers = draw(st.lists(number, min_size=1, max_size=5))
    numbers += draw(st.lists(st.sampled_from(numbers), max_size=2))  # duplicates are rare otherwise
    return Sorting(Uniform(1, 7), base, n_digits), numbers


def spelled(numbers: list[tuple[int, ...]]) -> list[str]:
    return [str(digit) if digit < 10 else f"d{digit}" for number in numbers for digit in number]


# ---- items and latents ----------------------------------------------------------------------------------------------


@given(lists())
@settings(deadline=None, max_examples=150)
def test_latents_as_plain_python_has_them(drawn):
    procedure, numbers = drawn
    d, n = procedure.n_digits, len(numbers)
    by_rank = sorted(range(n), key=lambda i: numbers[i])  # stable: equal numbers from left to right
    answer = sorted(numbers)
    names = [*spelled(numbers), "|", *spelled(answer)]
    expected = {name: [UNDEFINED] * procedure.n_ctx for name in procedure.latent_names}
    for p in range(n * d):
        expected["number"][p], expected["place"][p] = divmod(p, d)
        expected["rank"][p] = by_rank.index(p // d)
    for written in range(n * d + 1):
        p = n * d + written
        expected["written"][p], expected["remaining"][p] = written, n * d - written
        if written > 0:
            expected["match"][p] = expected["source"][p - 1]
        if written < n * d:
            rank, place = divmod(written, d)
            number = answer[rank]
            expected["source"][p] = by_rank[rank] * d + place
            expected["next"][p] = FIRST_SYMBOL + number[place]
            expected["next_place"][p] = place
            expected["candidates"][p] = sum(other[:place] == number[:place] for other in answer[rank:])
    block = procedure.encode([" ".join(names)])
    for name, values in block.latents.items():
        assert values[0].tolist() == expected[name], name
    assert procedure.oracle(names[: n * d + 1]) == names[n * d + 1 :]


@given(lists())
@settings(deadline=None, max_examples=60)
def test_the_next_digit_is_the_smallest_of_the_candidates(drawn):
    procedure, numbers = drawn
    block = procedure.encode([" ".join([*spelled(numbers), "|", *spelled(sorted(numbers))])])
    masks, latents = procedure.attention_targets(block), block.latents
    candidates = masks["candidates"][0]
    assert np.array_equal(candidates.sum(axis=1), np.maximum(latents["candidates"][0], 0))
    assert not (masks["source"][0] & ~candidates).any()
    for query in np.flatnonzero(latents["candidates"][0] != UNDEFINED):
        assert block.tokens[0, candidates[query]].min() == block.tokens[0, query + 1]


def test_masks_worked_out_by_hand():
    procedure = Sorting.small_version()
    block = procedure.encode(["4 1 2 5 4 0 | 2 5 4 0 4 1"])
    cells = {name: np.argwhere(mask[0]).tolist() for name, mask in procedure.attention_targets(block).items()}
    assert cells["candidates"] == [[6, 0], [6, 2], [6, 4], [7, 3], [8, 0], [8, 4], [9, 1], [9, 5], [10, 0], [11, 1]]
    assert cells["source"] == [[6, 2], [7, 3], [8, 4], [9, 5], [10, 0], [11, 1]]


def test_digits_are_uniform_and_an_item_has_as_many_numbers_as_its_length_says():
    procedure = Sorting(Uniform(1, 3), n_symbols=4)
    tokens, n_tokens = procedure.draw(np.random.default_rng(0), np.repeat([1, 2, 3], 4_000))
    assert np.array_equal(n_tokens, np.repeat([1, 2, 3], 4_000) * 4 + 1)
    for p in range(6):
        here = tokens[8_000:, p]
        assert np.allclose(np.bincount(here - FIRST_SYMBOL, minlength=4) / 4_000, 0.25, rtol=0, atol=0.03)


# ---- baselines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_digits", [1, 2, 3])
def test_sorting_by_the_leading_digit_as_plain_python_does_it(n_digits):
    procedure = Sorting(Uniform(2, 5), 4, n_digits)
    block = procedure.items(300, split="train")
    right = 0
    for item in procedure.decode(block):
        digits, answer = (part.split() for part in item.split(" | "))
        numbers = [digits[i : i + n_digits] for i in range(0, len(digits), n_digits)]
        guess = [digit for number in sorted(numbers, key=lambda number: number[0]) for digit in number]
        right += sum(x == y for x, y in zip(guess, answer, strict=True))
    accuracy = procedure.baselines(block)["sorts by the leading digit alone"]
    assert accuracy == pytest.approx(right / block.scored.sum())
    assert (accuracy == 1) == (n_digits == 1)


def test_what_the_place_tells_as_a_count_has_it():
    procedure = Sorting(Uniform(1, 2), 3, 1)
    baselines = procedure.baselines(procedure.annotate(*procedure.draw(np.random.default_rng(1), np.full(20_000, 2))))
    pairs = [tuple(sorted((x, y))) for x in range(3) for y in range(3)]
    first, second = Counter(x for x, _ in pairs), Counter(y for _, y in pairs)
    assert baselines["knows the place"] == pytest.approx((first[0] + second[2]) / 18, abs=0.01)
    given = {x: Counter(b for a, b in pairs if a == x) for x in range(3)}
    right = sum(max(counts.values()) for counts in given.values())
    assert baselines["knows the place and the digit before"] == pytest.approx((first[0] + right) / 18, abs=0.01)


# ---- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["digit", "tie", "rank", "swap"])
def test_pairs_as_plain_python_has_them(kind):
    procedure = Sorting(Uniform(2, 4), 6)
    for items in zip(*(procedure.decode(block) for block in procedure.minimal_pairs(kind, 200)), strict=True):
        inputs = [item.split(" | ")[0].split() for item in items]
        clean, corrupt = ([tuple(digits[i : i + 2]) for i in range(0, len(digits), 2)] for digits in inputs)
        changed = [i for i, (x, y) in enumerate(zip(*inputs, strict=True)) if x != y]
        if kind == "swap":
            moved = [i for i, (x, y) in enumerate(zip(clean, corrupt, strict=True)) if x != y]
            assert len(moved) == 2 and sorted(clean) == sorted(corrupt)
            continue
        assert len(changed) == 1
        orders = [sorted(range(len(numbers)), key=lambda i, n=numbers: n[i]) for numbers in (clean, corrupt)]
        assert (orders[0] == orders[1]) == (kind != "rank")
        leading = [sorted(Counter(number[0] for number in numbers).values()) for numbers in (clean, corrupt)]
        if kind == "tie":
            alike = [[x[:p] == y[:p] for p in (1, 2) for x in n for y in n] for n in (clean, corrupt)]
            assert alike[0] != alike[1]
        if kind == "rank":
            assert leading[0] == leading[1]


def test_one_digit_leaves_no_tie_to_change():
    with pytest.raises(ConfigError, match="4 pairs of kind 'tie' cannot be drawn from sorting"):
        Sorting(n_digits=1).minimal_pairs("tie", 4)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "4 1 2 5 | 4 1 2 5",  # not in order
        "4 1 2 5 | 1 2 4 5",  # the digits in order, not the numbers
        "4 1 2 | 2 4 1",  # half a number
    ],
)
def test_items_that_break_the_rule_are_refused(text):
    with pytest.raises(ConfigError, match="breaks the rule of sorting"):
        Sorting.small_version().encode([text])


def test_settings_that_make_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="n_digits = 0 is not allowed: at least 1"):
        Sorting(n_digits=0)
    with pytest.raises(ConfigError, match="n_symbols = 1 is not allowed: at least 2"):
        Sorting(n_symbols=1)
    with pytest.raises(ConfigError, match="did you mean 'n_digits'"):
        Sorting.from_dict({"kind": "sorting", "n_digit": 2})


# ---- how the sizes were chosen --------------------------------------------------------------------------------------


def test_the_defaults_are_the_candidate_that_the_table_says():

    rows = read_json(TABLE)["rows"]
    assert {row["candidate"]: row["task"] for row in rows} == {
        name: task.to_dict() for name, task in sorting_sizes.CANDIDATES.items()
    }
    assert {row["version"] for row in rows} == {"1.0.0"}, "the splits have changed since, the difficulty has not"
    first = {row["candidate"]: row["accuracy"] for row in rows if row["seed"] == sorting_sizes.SEEDS[0]}
    chosen = min(first, key=lambda name: abs(first[name] - sorting_sizes.REPORTED))
    assert sorting_sizes.CANDIDATES[chosen] == Sorting()


def test_a_row_is_added_once_and_never_trained_again(tmp_path, monkeypatch):

    training = TrainingConfig(steps=3, batch_size=8, warmup_steps=0, n_validation=8, n_test=50)
    monkeypatch.setattr(sorting_sizes, "CANDIDATES", {"tiny": Sorting.small_version()})
    for seed in (0, 0, 1):
        sorting_sizes.add_row(tmp_path / "table.json", "tiny", seed, training)
    rows = read_json(tmp_path / "table.json")["rows"]
    assert [(row["candidate"], row["seed"], row["steps"]) for row in rows] == [("tiny", 0, 3), ("tiny", 1, 3)]
    assert all(0 < row["accuracy"] < row["best_baseline"] < 1 for row in rows)
