"""What holds for every procedure."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mechproc.config import digest
from mechproc.errors import ConfigError
from mechproc.procedures import (
    BLOCK_ITEMS,
    UNDEFINED,
    Curriculum,
    Eca,
    EcaVectors,
    Fixed,
    Procedure,
    Set,
    get,
    rules,
    show,
)
from mechproc.procedures.from_file import check_examples

from .conftest import (
    ALL,
    UNDECIDED,
    every_known_rule,
    every_procedure,
    every_rule_with_an_answer,
    names,
    small,
    some_items,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "procedures.json"


def test_the_registry_has_the_shipped_procedures_in_a_fixed_order():
    assert list(ALL) == sorted(ALL, key=lambda kind: (("rule", "control", "task").index(ALL[kind].role), kind))
    assert [kind for kind in ALL if ALL[kind].role == "rule"] == list(rules())
    assert {kind for kind in ALL if ALL[kind].role != "rule"} >= {"shuffled", "haystack", "addition", "language"}
    assert all(procedure.kind == kind for kind, procedure in ALL.items())
    assert get("set") is Set


@pytest.mark.parametrize(("name", "meant"), [("sett", "set"), ("dyck", "k-dyck"), ("reverse-addition", "reversed-add")])
def test_an_unknown_name_is_answered_with_the_nearest(name, meant):
    with pytest.raises(ConfigError, match=f"procedure = '{name}'.*did you mean '{meant}"):
        get(name)


def test_importing_procedures_loads_no_heavy_library():
    code = "import mechproc.procedures, sys; print({'torch', 'transformer_lens', 'pandas', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# ---- blocks and splits ----------------------------------------------------------------------------------------------


@every_procedure
def test_a_block_is_a_pure_function_of_its_arguments(kind):
    first = small(kind).block(3, "train", 5)
    again = Procedure.from_dict(json.loads(json.dumps(small(kind).to_dict()))).block(3, "train", 5)
    assert np.array_equal(first.tokens, again.tokens) and np.array_equal(first.n_tokens, again.n_tokens)
    for other in [(4, "train", 5), (3, "test", 5), (3, "train", 6)]:
        assert not np.array_equal(first.tokens, small(kind).block(*other).tokens)


@every_procedure
def test_drawing_a_block_leaves_the_global_generator_alone(kind):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    small(kind).block(0, "train", 1)
    assert np.array_equal(before, np.random.get_state()[1])


@every_procedure
def test_items_run_on_over_the_ends_of_blocks(kind):
    procedure = small(kind)
    run = procedure.items(60, seed=2, split="train", start=BLOCK_ITEMS - 20)
    blocks = [procedure.block(2, "train", index).tokens for index in (0, 1)]
    assert np.array_equal(run.tokens, np.concatenate([blocks[0][-20:], blocks[1][:40]]))


@every_procedure
def test_every_length_of_the_distribution_occurs(kind):
    procedure = small(kind)
    by_length = {
        length: {int(n) for n in procedure.draw(np.random.default_rng(0), np.full(50, length))[1]}
        for length in procedure.lengths.support().tolist()
    }
    seen = {int(n) for n in procedure.block(0, "train", 0).n_tokens}
    assert all(seen & expected for expected in by_length.values())


def test_a_curriculum_starts_short_and_ends_at_its_longest():
    procedure = Set(lengths=Curriculum(2, 8, increment=3), n_symbols=8)
    separators = [(procedure.block(0, "train", 0, stage).tokens == 1).argmax(axis=1) for stage in (0, 1, 2)]
    assert [sorted(set(s.tolist())) for s in separators] == [[2], [2, 5], [2, 5, 8]]
    assert np.array_equal(procedure.block(0, "train", 0).tokens, procedure.block(0, "train", 0, 2).tokens)
    with pytest.raises(ConfigError, match="stage = 3 is not allowed: 0 to 2"):
        procedure.block(0, "train", 0, 3)


@pytest.mark.parametrize(
    ("arguments", "field"), [((0, "dev", 0), "split"), ((0, "test", -1), "index"), ((0, "test", 0, 1), "stage = 1")]
)
def test_a_block_that_does_not_exist_is_refused(arguments, field):
    with pytest.raises(ConfigError, match=field):
        Set().block(*arguments)


@pytest.mark.parametrize(("arguments", "field"), [({"n": 0}, "n = 0"), ({"n": 5, "start": -1}, "start = -1")])
def test_items_that_do_not_exist_are_refused(arguments, field):
    with pytest.raises(ConfigError, match=field):
        Set().items(**arguments)


@pytest.mark.parametrize(("procedure", "low", "high"), [(EcaVectors(), 0.85, 1.0), (Eca(), 0.6, 1.0)])
def test_a_table_of_states_seen_in_training_is_a_baseline(procedure, low, high):
    items = procedure.items(1000)
    table = procedure.baselines(items)["a table of the states in training, else the majority"]
    assert low < table < high and table > procedure.baselines(items)["the majority of the neighbourhood"]
    training = procedure.items(1000, split="train")
    assert procedure.baselines(training)["a table of the states in training, else the majority"] == 1.0


def test_items_of_which_nothing_is_scored_have_no_ceiling():
    with pytest.raises(ConfigError, match="some with a scored position"):
        Set.small_version().ceiling(Set.small_version().encode(["a b"]))


@every_procedure
def test_data_did_not_change_silently(kind, text):  # ``text``: what Python brings along differs between its versions
    procedure = ALL[kind]()
    block = procedure.block(0, "train", 0)
    seen = {
        "version": procedure.version,
        "settings": digest(procedure.to_dict()),
        "tokens": hashlib.sha256(block.tokens.astype("<i8").tobytes()).hexdigest(),
    }
    assert seen == json.loads(GOLDEN.read_text())[kind], (
        f"{kind} generates other data than it did. If that is meant, raise its version and write into {GOLDEN.name}: "
        f"{json.dumps({kind: seen}, indent=2)}"
    )


# ---- what is known of an item ---------------------------------------------------------------------------------------


@every_procedure
def test_what_is_said_of_an_item_does_not_depend_on_its_neighbours(kind):
    procedure, block = small(kind), some_items(kind).take(slice(40))
    for i in range(len(block)):
        alone = procedure.annotate(block.tokens[i : i + 1].copy(), block.n_tokens[i : i + 1].copy())
        assert np.array_equal(alone.scored[0], block.scored[i])
        assert all(np.array_equal(alone.latents[name][0], values[i]) for name, values in block.latents.items())


@every_procedure
def test_items_come_back_from_their_names(kind):
    procedure, block = small(kind), some_items(kind)
    back = procedure.encode(procedure.decode(block))
    assert np.array_equal(back.tokens, block.tokens) and np.array_equal(back.n_tokens, block.n_tokens)
    assert np.array_equal(back.scored, block.scored)
    assert len(set(procedure.token_names)) == procedure.d_vocab and procedure.token_names[procedure.pad] == "_"
    assert not any(set(name) & set(" \t\n") or not name for name in procedure.token_names)


@every_procedure
def test_tokens_and_latents_have_the_promised_form(kind):
    procedure, block = small(kind), some_items(kind)
    pos = np.arange(procedure.n_ctx)
    assert block.tokens.shape == (BLOCK_ITEMS, procedure.n_ctx) and block.tokens.max() < procedure.d_vocab
    assert np.array_equal(block.tokens != procedure.pad, pos < block.n_tokens[:, None])
    assert block.scored.any(axis=1).all()
    assert list(block.latents) == list(procedure.latent_names)
    for name, values in block.latents.items():
        assert values.dtype == np.int64 and values.min() >= UNDEFINED, name
        assert (values != UNDEFINED).any() and (values[pos >= block.n_tokens[:, None]] == UNDEFINED).all(), name


@every_procedure
def test_the_longest_item_fills_the_width(kind):
    assert small(kind).block(0, "train", 0).n_tokens.max() == small(kind).n_ctx


@every_procedure
def test_worked_examples(kind):
    assert ALL[kind].examples
    check_examples(ALL[kind])


@every_procedure
def test_worked_examples_show_each_latent(kind):
    assert {name for example in ALL[kind].examples for name in example.latents} == set(ALL[kind].latent_names)


@every_rule_with_an_answer
def test_answers_are_those_of_the_oracle(kind):
    procedure, block = small(kind), some_items(kind)
    for item, start in zip(names(procedure, block), procedure.answer_start(block).tolist(), strict=True):
        assert 0 < start < len(item)
        assert procedure.oracle(item[:start]) == item[start:]


@every_procedure
def test_a_wrong_token_is_refused_by_name(kind):
    procedure = small(kind)
    item = names(procedure, some_items(kind))[0]
    with pytest.raises(ConfigError, match="token '%%' is not a token of " + kind):
        procedure.encode([" ".join([*item[:-1], "%%"])])
    with pytest.raises(ConfigError, match=f"at most {procedure.n_ctx} tokens"):
        procedure.encode([" ".join(item * procedure.n_ctx)])


@every_rule_with_an_answer
def test_an_item_that_breaks_the_rule_is_refused(kind):
    procedure, block = small(kind), some_items(kind)
    item, query = np.argwhere(block.scored)[0].tolist()
    legal = procedure.legal_next(block)[item, query]
    wrong = names(procedure, block)[item]
    wrong[query + 1] = procedure.token_names[int(np.flatnonzero(~legal)[-1])]
    with pytest.raises(ConfigError, match=f"breaks the rule of {kind}.* at position {query + 1}"):
        procedure.encode([" ".join(wrong)])


# ---- ceiling and baselines ------------------------------------------------------------------------------------------


@every_known_rule
def test_what_comes_next_is_legal_and_probabilities_sum_to_one(kind):
    procedure, block = small(kind), some_items(kind)
    probabilities, legal = procedure.next_probabilities(block), procedure.legal_next(block)
    assert probabilities.shape == legal.shape == (*block.tokens.shape, procedure.d_vocab)
    assert np.allclose(probabilities[block.scored].sum(axis=-1), 1, rtol=0, atol=1e-12)
    item, query = np.nonzero(block.scored)
    assert legal[item, query, block.targets[item, query]].all()
    assert not legal[~block.scored].any()


@every_known_rule
def test_the_ceiling_is_what_the_best_guesser_reaches(kind):
    procedure = small(kind)
    block = procedure.items(8 * BLOCK_ITEMS, split="train")
    guess = procedure.next_probabilities(block).argmax(axis=-1)
    right = (guess == block.targets)[block.scored]
    # splitting by content removes a fixed eighth of the items, which moves the mean of a small space a little
    assert abs(procedure.ceiling(block) - right.mean()) < 4 * 0.5 / np.sqrt(block.scored.any(axis=1).sum()) + 1e-12
    if kind not in UNDECIDED:
        assert procedure.ceiling(block) == 1.0


@every_procedure
def test_baselines_lie_below_the_ceiling(kind):
    procedure, block = small(kind), some_items(kind)
    ceiling, baselines = procedure.ceiling(block), procedure.baselines(block)
    assert (ceiling is not None) == procedure.rule_known
    assert baselines and all(0 < accuracy < (ceiling or 1.0) for accuracy in baselines.values()), baselines


# ---- controls, masks, pairs -----------------------------------------------------------------------------------------


@every_procedure
def test_ordinal_latents_are_latents(kind):
    ordinal = type(small(kind)).ordinal_latents
    assert len(set(ordinal)) == len(ordinal) and set(ordinal) <= set(small(kind).latent_names)


@every_procedure
def test_control_labels_are_functions_of_the_token(kind):
    procedure, block = small(kind), some_items(kind)
    for name, values in block.latents.items():
        labels = procedure.control_labels(block, name, seed=1)
        defined = values != UNDEFINED
        assert np.array_equal(labels != UNDEFINED, defined)
        assert set(labels[defined].tolist()) <= set(values[defined].tolist())
        for token in np.unique(block.tokens[defined]):
            assert len(np.unique(labels[defined & (block.tokens == token)])) == 1
        assert np.array_equal(labels, procedure.control_labels(block, name, seed=1))
        if len(np.unique(values[defined])) > 1:
            assert any(not np.array_equal(labels, procedure.control_labels(block, name, seed=s)) for s in (2, 3, 4, 5))


def test_control_labels_of_an_unknown_latent_are_refused():
    with pytest.raises(ConfigError, match=r"latent 'sorce'.*did you mean 'source'"):
        Set().control_labels(some_items("set"), "sorce")


@every_procedure
def test_attention_targets_look_back_at_tokens_of_the_item(kind):
    procedure, block = small(kind), some_items(kind)
    masks = procedure.attention_targets(block)
    pos = np.arange(procedure.n_ctx)
    assert list(masks) == list(procedure.attention_target_names)
    for name, mask in masks.items():
        assert mask.shape == (len(block), len(pos), len(pos)) and mask.dtype == bool, name
        item, query, key = np.nonzero(mask)
        assert len(item) and (key <= query).all() and (query < block.n_tokens[item]).all(), name


# ---- settings -------------------------------------------------------------------------------------------------------


@every_procedure
def test_settings_come_back_from_json_and_unknown_ones_are_named(kind):
    plain = json.loads(json.dumps(ALL[kind]().to_dict()))
    assert Procedure.from_dict(plain) == ALL[kind]()
    setting = next((name for name in plain if name not in ("kind", "lengths")), "lengths")
    with pytest.raises(ConfigError, match=f"{setting}x is not a setting; did you mean '{setting}'"):
        Procedure.from_dict({**plain, f"{setting}x": 1})


@every_procedure
def test_every_procedure_works_with_its_defaults_and_with_fixed_lengths(kind):
    longest = small(kind).lengths.max
    procedure = ALL[kind].small_version(lengths=Fixed(longest))
    assert len(procedure.block(0, "test", 0)) == BLOCK_ITEMS
    assert show(ALL[kind](), 2).count("\n") == 1


def test_show_brackets_what_is_scored():
    shown = show(small("set"), 5).split("\n")
    assert [line.replace("[", "").replace("]", "") for line in shown] == small("set").decode(small("set").items(5))
    assert all("[" not in line.split("|")[0] and "[" in line.split("|")[1] for line in shown)


@pytest.mark.parametrize("make", [list, np.array, torch.tensor], ids=["lists", "array", "tensor"])
def test_items_of_ones_own_are_tokens_in_any_form(make):
    items = Set().annotate(make([[2, 3, 2, 1, 2, 3], [4, 1, 4, 0, 0, 0]]))
    assert items.n_tokens.tolist() == [6, 3] and items.tokens.shape == (2, Set().n_ctx)
    assert Set().decode(items) == ["a b a | a b", "c | c"]
    assert np.array_equal(items.scored, Set().encode(["a b a | a b", "c | c"]).scored)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([2, 3], r"shape of tokens = \(2,\)"),
        ([[2.0, 3.0]], "dtype of tokens = dtype..float64"),
        ([[2, 99]], r"tokens = \(2, 99\) is not allowed: 0 to 21"),
        ([[-1, 2]], r"tokens = \(-1, 2\)"),
        ([[2] * 99], "at most n_ctx = 41 positions"),
    ],
)
def test_what_is_no_item_is_refused_by_field(tokens, said):
    with pytest.raises(ConfigError, match=said):
        Set().annotate(tokens)
