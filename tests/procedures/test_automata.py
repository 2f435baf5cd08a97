"""Cellular automata beside their definition, cell by cell."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechproc.errors import ConfigError
from mechproc.procedures import SPLITS, UNDEFINED, Eca, EcaVectors, Fixed, Uniform
from mechproc.procedures.automata import CELL_0, TABLE, Automaton, next_state

CELLS = st.lists(st.integers(0, 1), min_size=3, max_size=14)


@given(number=st.integers(0, 255), cells=CELLS)
def test_the_next_state_is_that_of_the_table(number, cells):
    n = len(cells)
    expected = [(number >> (4 * cells[i - 1] + 2 * cells[i] + cells[(i + 1) % n])) & 1 for i in range(n)]
    assert next_state(np.array(cells), number).tolist() == expected
    question = [str(c) for c in cells]
    assert Eca(number=number, width=n).oracle(question) == [str(c) for c in expected]


def test_rule_110_is_the_published_one():
    """Neighbourhoods 111, 110, ..., 000 give 0 1 1 0 1 1 1 0 (Cook 2004)."""
    for code, value in zip(range(7, -1, -1), (0, 1, 1, 0, 1, 1, 1, 0), strict=True):
        cells = np.array([code >> 2, code >> 1 & 1, code & 1, 0, 0])
        assert next_state(cells, 110)[1] == value


@given(number=st.integers(0, 255), width=st.integers(3, 9), seed=st.integers(0, 99))
def test_latents_are_what_a_loop_finds(number, width, seed):
    procedure = Eca(lengths=Uniform(1, 3), number=number, width=width)
    tokens, n_tokens = procedure.draw(np.random.default_rng(seed), np.array([1, 2, 3]))
    block = procedure.annotate(tokens, n_tokens)
    for i, n in enumerate(n_tokens.tolist()):
        cells = (tokens[i] - 1).tolist()
        for p in range(procedure.n_ctx):
            found = {name: int(values[i, p]) for name, values in block.latents.items()}
            assert found["cell"] == (cells[p] if p < n else UNDEFINED)
            assert (found["time"], found["column"]) == (divmod(p, width) if p < n else (UNDEFINED, UNDEFINED))
            if width - 1 <= p < n - 1:
                row, column = divmod(p + 1, width)
                for name, offset in (("left", -1), ("above", 0), ("right", 1)):
                    at = (row - 1) * width + (column + offset) % width
                    assert (found[f"{name}_position"], found[name]) == (at, cells[at])
                assert found["next"] == cells[p + 1]
                assert found["neighbourhood"] == 4 * found["left"] + 2 * found["above"] + found["right"]
            else:
                assert found["next"] == found["neighbourhood"] == found["above_position"] == UNDEFINED


def test_items_with_the_same_first_state_are_in_the_same_split():
    procedure = Eca(lengths=Uniform(1, 4), width=8)
    firsts = [set(map(tuple, procedure.block(0, split, 0).tokens[:, :8].tolist())) for split in ("train", "test")]
    assert min(map(len, firsts)) > 5 and not firsts[0] & firsts[1]


def test_baselines_are_those_of_a_count():
    procedure = Eca(lengths=Fixed(2), number=30, width=6)
    block = procedure.items(60)
    right = {"the cell above": 0, "the cell before": 0, "the majority of the neighbourhood": 0}
    ones = n = 0
    for row in (block.tokens - 1).tolist():
        for p in range(6, 18):
            above = row[p - 6]
            start = p // 6 * 6 - 6
            left, further = row[start + (p - 1) % 6], row[start + (p + 1) % 6]
            right["the cell above"] += above == row[p]
            right["the cell before"] += row[p - 1] == row[p]
            right["the majority of the neighbourhood"] += (left + above + further >= 2) == row[p]
            ones, n = ones + row[p], n + 1
    expected = {"the most frequent cell": max(ones, n - ones) / n} | {name: k / n for name, k in right.items()}
    found = procedure.baselines(block)
    table = found.pop(TABLE)
    assert found == pytest.approx(expected)
    known = states_in_training(procedure, lambda cells: [CELL_0 + cell for cell in cells])
    hits = 0
    for row in (block.tokens - 1).tolist():
        for p in range(6, 18):
            state = row[p // 6 * 6 - 6 : p // 6 * 6]
            majority = state[p % 6 - 1] + state[p % 6] + state[(p + 1) % 6] >= 2
            hits += tuple(state) in known or majority == row[p]
    assert table == pytest.approx(hits / n) and found["the majority of the neighbourhood"] < table < 1


def states_in_training(procedure: Automaton, tokens_of: Callable[[list[int]], list[int]]) -> set[tuple[int, ...]]:
    """All states that items of the training split go on from."""
    known = set()
    for cells in map(list, itertools.product((0, 1), repeat=procedure.width)):
        if procedure.split_of(np.array([tokens_of(cells)]))[0] == list(SPLITS).index("train"):
            for _ in range(procedure.lengths.max):
                known.add(tuple(cells))
                cells = procedure._answer(cells)
    return known


@pytest.mark.parametrize(
    ("settings", "said"), [({"number": 256}, "number = 256.*0 to 255"), ({"width": 2}, "width = 2")]
)
def test_settings_that_are_no_automaton_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        Eca(**settings)


@given(number=st.integers(0, 255), width=st.integers(3, 12), seed=st.integers(0, 99))
def test_vectors_are_the_states_of_the_stream(number, width, seed):
    lengths = np.array([1, 2, 3])
    stream, vectors = (cls(lengths=Uniform(1, 3), number=number, width=width) for cls in (Eca, EcaVectors))
    cells = stream.draw(np.random.default_rng(seed), lengths)[0].reshape(3, -1, width)
    block = vectors.annotate(*vectors.draw(np.random.default_rng(seed), lengths))
    assert block.vectors is not None and block.vectors.dtype == np.float32
    assert np.array_equal(block.vectors, np.maximum(cells - 1, 0))
    assert vectors.decode(block)[2].split() == ["".join(map(str, row)) for row in (cells[2] - 1).tolist()]


def test_taking_and_joining_keep_the_vectors():
    block = EcaVectors(width=8).items(6)
    parts = [block.take(slice(0, 2)), block.take(np.arange(6) >= 2)]
    joined = type(block).join(parts).vectors
    assert joined is not None and block.vectors is not None and np.array_equal(joined, block.vectors)


def test_baselines_of_vectors_count_cells():
    block = EcaVectors(lengths=Fixed(2), width=6, number=30).items(80)
    assert block.vectors is not None
    rows = block.vectors.astype(int).tolist()
    pairs = [(now, then) for row in rows for now, then in itertools.pairwise(row)]
    cells = [(now[i - 1] + now[i] + now[(i + 1) % 6] >= 2, now[i], then[i]) for now, then in pairs for i in range(6)]
    ones = sum(then for *_, then in cells) / len(cells)
    procedure = EcaVectors(lengths=Fixed(2), width=6, number=30)
    known = states_in_training(procedure, lambda state: [1 + int("".join(map(str, state)), 2)])
    is_known = [tuple(now) in known for now, _ in pairs for _ in range(6)]
    hits = sum(seen or most == then for seen, (most, _, then) in zip(is_known, cells, strict=True))
    assert procedure.baselines(block) == pytest.approx(
        {
            "the more frequent cell": max(ones, 1 - ones),
            "the cell above": sum(now == then for _, now, then in cells) / len(cells),
            "the majority of the neighbourhood": sum(most == then for most, _, then in cells) / len(cells),
            TABLE: hits / len(cells),
        }
    )


def test_vectors_too_wide_for_a_residual_stream_of_16_are_refused():
    with pytest.raises(ConfigError, match="width = 13 is not allowed: at most 12"):
        EcaVectors(width=13)
