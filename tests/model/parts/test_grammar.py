"""The weight side of parts: what expressions select, the algebra, who owns what, and what is refused."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproc.errors import PartError
from mechproc.model.config import ModelConfig
from mechproc.model.parts import (
    Selection,
    Slice,
    check_expression,
    components,
    heads,
    mlps,
    model_markdown,
    select,
)
from mechproc.model.parts.table import PART_TABLE, find_row, parse_address, table_markdown
from mechproc.model.state import n_parameters, tensor_shapes

CFG = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=9, d_vocab=11, d_mlp=6)
ATTENTION = ("W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O")


def attention(layer: int, *which: int, bias: bool = False) -> dict[str, tuple[int, ...] | None]:
    """Everything of some heads, written out."""
    found: dict[str, tuple[int, ...] | None] = {f"blocks.{layer}.attn.{name}": which for name in ATTENTION}
    return found | ({f"blocks.{layer}.attn.b_O": None} if bias else {})


def mlp(layer: int, *which: int, bias: bool = False) -> dict[str, tuple[int, ...] | None]:
    """Everything of some neurons, written out."""
    found: dict[str, tuple[int, ...] | None] = {f"blocks.{layer}.mlp.{n}": which for n in ("W_in", "b_in", "W_out")}
    return found | ({f"blocks.{layer}.mlp.b_out": None} if bias else {})


def whole(*names: str) -> dict[str, None]:
    return dict.fromkeys(names)


EXPECTED = {
    "embed": whole("embed.W_E"),
    "pos": whole("pos_embed.W_pos"),
    "unembed": whole("unembed.W_U"),
    "ln_final": whole("ln_final.w", "ln_final.b"),
    "L0.ln1": whole("blocks.0.ln1.w", "blocks.0.ln1.b"),
    "L1.ln2": whole("blocks.1.ln2.w", "blocks.1.ln2.b"),
    "L0.H2": attention(0, 2),
    "L1.H3.QK": {f"blocks.1.attn.{name}": (3,) for name in ("W_Q", "b_Q", "W_K", "b_K")},
    "L1.H0.OV": {f"blocks.1.attn.{name}": (0,) for name in ("W_V", "b_V", "W_O")},
    "L0.attn": attention(0, 0, 1, 2, 3, bias=True),
    "attn": attention(0, 0, 1, 2, 3, bias=True) | attention(1, 0, 1, 2, 3, bias=True),
    "L1.mlp.N5": mlp(1, 5),
    "L1.mlp": mlp(1, 0, 1, 2, 3, 4, 5, bias=True),
    "mlp": mlp(0, 0, 1, 2, 3, 4, 5, bias=True) | mlp(1, 0, 1, 2, 3, 4, 5, bias=True),
    "ln": whole(
        *(
            f"{b}.{v}"
            for b in ("blocks.0.ln1", "blocks.0.ln2", "blocks.1.ln1", "blocks.1.ln2", "ln_final")
            for v in "wb"
        )
    ),
    "L1": whole("blocks.1.ln1.w", "blocks.1.ln1.b", "blocks.1.ln2.w", "blocks.1.ln2.b")
    | attention(1, 0, 1, 2, 3, bias=True)
    | mlp(1, 0, 1, 2, 3, 4, 5, bias=True),
    "L0.H2 + L0.H0": attention(0, 0, 2),
    "L0.attn-L0.H2": attention(0, 0, 1, 3, bias=True),
    "L0.attn - L0.H0 - L0.H1 - L0.H2 - L0.H3": whole("blocks.0.attn.b_O"),
    " mlp - L0.mlp -L1.mlp.N0 -L1.mlp.N4 ": mlp(1, 1, 2, 3, 5, bias=True),
    "L0.H1 - L0.H1.QK": {f"blocks.0.attn.{name}": (1,) for name in ("W_V", "b_V", "W_O")},
    "L0.H1 - L0.H1.QK + L0.H1.QK": attention(0, 1),
}


@pytest.mark.parametrize("expression", EXPECTED)
def test_what_an_expression_selects(expression):
    assert select(expression, CFG).tensors() == EXPECTED[expression]


def test_body_is_attention_and_mlps_whatever_there_is():
    assert select("body", CFG) == select("attn + mlp", CFG) == select("all - embed - pos - unembed - ln", CFG)
    bare = CFG.replace(d_mlp=0)
    assert select("body", bare) == select("attn", bare)


def finest(cfg: ModelConfig) -> list[str]:
    """The smallest parts of a model, counted out from its config."""
    norm, tied = cfg.normalization_type == "LN", cfg.tied_embeddings and not cfg.unembed_bias
    parts = ["embed", "pos", *(["ln_final"] if norm else []), *([] if tied else ["unembed"])]
    for layer in range(cfg.n_layers):
        all_heads = [f"L{layer}.H{head}" for head in range(cfg.n_heads)]
        neurons = [f"L{layer}.mlp.N{neuron}" for neuron in range(cfg.d_mlp or 0)]
        parts += [*(f"{head}.{circuit}" for head in all_heads for circuit in ("QK", "OV")), *neurons]
        parts.append(" - ".join([f"L{layer}.attn", *all_heads]))
        if neurons:
            parts.append(" - ".join([f"L{layer}.mlp", *neurons]))
        if norm:
            parts += [f"L{layer}.ln1", *([f"L{layer}.ln2"] if neurons else [])]
    return parts


def test_every_number_has_exactly_one_finest_owner(cfg):
    owners = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in tensor_shapes(cfg).items()}
    for part in finest(cfg):
        for name, mask in select(part, cfg).masks().items():
            owners[name] += mask
    for name, count in owners.items():
        assert (count == 1).all(), name


def test_all_is_everything(cfg):
    everything = select("all", cfg)
    assert list(everything.tensors()) == list(tensor_shapes(cfg))
    assert everything.n_parameters == n_parameters(cfg)
    assert all(mask.all() for mask in everything.masks().values())


def test_masks_by_hand():
    mask = select("L0.H2 + L0.mlp.N1", CFG).masks()
    assert set(mask) == set(attention(0, 2)) | set(mlp(0, 1))
    assert mask["blocks.0.attn.W_Q"].tolist() == [[[h == 2] * 4] * 16 for h in range(4)]
    assert mask["blocks.0.mlp.W_in"].tolist() == [[n == 1 for n in range(6)]] * 16
    assert mask["blocks.0.mlp.W_out"].tolist() == [[n == 1] * 16 for n in range(6)]


def test_read_takes_the_slices_along_their_axis(random_state):
    state = random_state(CFG)
    values = select("L1.mlp.N4 + L1.mlp.N1 + L0.H3.QK + ln_final", CFG).read(state)
    torch.testing.assert_close(values["blocks.1.mlp.W_in"], state["blocks.1.mlp.W_in"][:, [1, 4]], rtol=0, atol=0)
    torch.testing.assert_close(values["blocks.1.mlp.W_out"], state["blocks.1.mlp.W_out"][[1, 4]], rtol=0, atol=0)
    torch.testing.assert_close(values["blocks.0.attn.W_K"], state["blocks.0.attn.W_K"][3:], rtol=0, atol=0)
    torch.testing.assert_close(values["ln_final.b"], state["ln_final.b"], rtol=0, atol=0)
    values["ln_final.b"].zero_()
    assert state["ln_final.b"].abs().min() > 0


def test_values_of_another_dtype_are_not_rounded(random_state):
    selection, wide = select("L0.H1 + ln", CFG), random_state(CFG)
    narrow = {name: tensor.float() for name, tensor in wide.items()}
    with pytest.raises(PartError, match=r"is torch\.float64 and would be rounded to torch\.float32"):
        selection.write(narrow, selection.read(wide))


def test_write_changes_what_is_selected_and_nothing_else(random_state):
    target, source = random_state(CFG, 0), random_state(CFG, 1)
    before = {name: tensor.clone() for name, tensor in target.items()}
    selection = select("L1.mlp.N4 + L0.attn - L0.H2 + pos", CFG)
    written = selection.write(target, selection.read(source))
    masks = selection.masks()
    for name in tensor_shapes(CFG):
        expected = torch.where(masks[name], source[name], before[name]) if name in masks else before[name]
        assert torch.equal(written[name], expected), name
        assert torch.equal(target[name], before[name]), name


def test_states_of_another_shape_are_refused(random_state):
    selection = select("L0.H2", CFG)
    wider = random_state(CFG.replace(n_heads=8, d_head=4))
    with pytest.raises(PartError, match=r"blocks\.0\.attn\.W_Q has shape \[8, 16, 4\], not \[4, 16, 4\]"):
        selection.read(wider)
    with pytest.raises(PartError, match=r"W_Q has shape"):
        selection.write(wider, selection.read(random_state(CFG)))
    with pytest.raises(PartError, match="missing"):
        selection.read({})
    with pytest.raises(PartError, match="models of different shapes"):
        _ = selection | select("L0.H2", CFG.replace(n_ctx=10))


def test_slices_come_in_forward_order_and_view_the_state(random_state):
    state = random_state(CFG)
    pieces = list(select("L1.H2.OV + L0.mlp.N5 + embed", CFG))
    assert pieces == [
        Slice("embed.W_E", None),
        *(Slice(f"blocks.0.mlp.{name}", 5) for name in ("W_in", "b_in", "W_out")),
        *(Slice(f"blocks.1.attn.{name}", 2) for name in ("W_V", "b_V", "W_O")),
    ]
    pieces[1].view(state).fill_(7.0)
    assert (state["blocks.0.mlp.W_in"] == 7.0).sum() == 16
    assert (state["blocks.0.mlp.W_in"][:, 5] == 7.0).all()


# ---- algebra ---------------------------------------------------------------------------------------------------------

WORDS = [*(expression for expression in EXPECTED if not set(expression) & set("+- ")), "all", "body"]
selections = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(
    lambda words: functools.reduce(Selection.__or__, [select(word, CFG) for word in words])
)


@settings(deadline=None, max_examples=60)
@given(selections, selections, selections)
def test_selections_obey_the_laws_of_sets(a, b, c):
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a & (b | c) == (a & b) | (a & c)
    assert a - (b | c) == (a - b) & (a - c)
    assert (a - b) | (a & b) == a
    assert not (a - b) & b
    assert (a <= b) == (a | b == b)
    assert a.n_parameters + b.n_parameters == (a | b).n_parameters + (a & b).n_parameters
    assert a.n_parameters == sum(int(mask.sum()) for mask in a.masks().values())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(WORDS)), max_size=5), st.sampled_from(WORDS))
def test_expressions_are_read_from_left_to_right(terms, first):
    expression, expected = first, set(select(first, CFG).slices)
    for sign, word in terms:
        slices = select(word, CFG).slices
        expression += f" {sign} {word}"
        if sign == "-" and not expected & slices:
            with pytest.raises(PartError, match="removes nothing"):
                select(expression, CFG)
            return
        expected = expected | slices if sign == "+" else expected - slices
    if expected:
        assert select(expression, CFG).slices == expected
    else:
        with pytest.raises(PartError, match="selects nothing"):
            select(expression, CFG)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "changes", "message"),
    [
        ("L5", {}, r"'L5' is not in this model: its layers are L0 to L1"),
        ("L0.H4.QK", {}, r"'L0\.H4\.QK' is not in this model: its heads are H0 to H3"),
        ("L1.mlp.N6", {}, r"'L1\.mlp\.N6' is not in this model: its neurons are N0 to N5"),
        ("L2.mlp.N0", {}, r"its layers are L0 to L1"),
        ("mlp", {"d_mlp": 0}, r"'mlp' is not in this model: it has no MLPs"),
        ("L0.mlp.N3", {"d_mlp": 0}, r"it has no MLPs"),
        ("L0.ln2", {"d_mlp": 0}, r"or no MLPs for one to feed"),
        ("attn + ln", {"normalization_type": None}, r"'ln' is not in this model: it has no LayerNorms"),
        ("ln_final", {"normalization_type": None}, r"no LayerNorms"),
        ("L0.ln1", {"normalization_type": "LNPre"}, r"no LayerNorms with weights"),
        ("unembed", {"tied_embeddings": True}, r"tied: the one tensor W_E belongs to 'embed'"),
        ("atn", {}, r"'atn' is not a part; did you mean 'attn'\? \(parts: all, body, attn"),
        ("attn + L0.h2", {}, r"'L0\.h2' is not a part; did you mean 'L0\.H2'\?"),
        ("ATTN", {}, r"did you mean 'attn'\?"),
        ("L0.H2.qk", {}, r"did you mean 'L0\.H2\.QK'\?"),
        ("L00.attn", {}, r"'L00\.attn' is not a part"),
        ("L0 attn", {}, r"'L0 attn' is not a part"),
        ("", {}, r"'' is not a part: a word is missing"),
        ("+ attn", {}, r"a word is missing beside"),
        ("attn -", {}, r"a word is missing beside"),
        ("attn ++ mlp", {}, r"a word is missing beside"),
        ("attn - L0.attn - L1.attn", {}, r"selects nothing"),
        ("attn - L0.ln1", {}, r"'- L0\.ln1' removes nothing"),
    ],
)
def test_refused_with_the_reason(expression, changes, message):
    with pytest.raises(PartError, match=message) as caught:
        select(expression, CFG.replace(**changes))
    assert "\n" not in str(caught.value)


def test_tied_models_unembed_with_their_bias_alone():
    tied = CFG.replace(tied_embeddings=True, unembed_bias=True)
    assert select("unembed", tied).tensors() == {"unembed.b_U": None}
    assert select("embed", tied).tensors() == {"embed.W_E": None}
    untied = CFG.replace(unembed_bias=True)
    assert select("unembed", untied).tensors() == {"unembed.W_U": None, "unembed.b_U": None}


def test_grammar_can_be_checked_without_a_model():
    check_expression("L99.H77 - L5.mlp.N1000")
    with pytest.raises(PartError, match="did you mean 'attn'"):
        check_expression("mlp + attnn")
    with pytest.raises(PartError, match="a word is missing"):
        check_expression("mlp + ")


# ---- lists and the table itself --------------------------------------------------------------------------------------


def test_lists_of_parts():
    assert heads(CFG) == [f"L{layer}.H{head}" for layer in (0, 1) for head in range(4)]
    assert mlps(CFG) == ["L0.mlp", "L1.mlp"]
    one = ["L0.H0", "L0.H1", "L0.H2", "L0.H3", "L0.mlp"]
    assert components(CFG) == [*one, *(part.replace("L0", "L1") for part in one)]
    assert mlps(CFG.replace(d_mlp=0)) == []
    assert components(CFG.replace(d_mlp=0)) == heads(CFG)


def test_addresses_are_taken_apart():
    assert parse_address("blocks.{layer}.mlp.W_in[:, {neuron}]") == ("blocks.{layer}.mlp.W_in", 1, "neuron")
    assert parse_address("blocks.{layer}.attn.hook_z[:, :, {head}]") == ("blocks.{layer}.attn.hook_z", 2, "head")
    assert parse_address("blocks.{layer}.attn.W_O[{head}]") == ("blocks.{layer}.attn.W_O", 0, "head")
    assert parse_address("embed.W_E") == ("embed.W_E", None, None)
    with pytest.raises(ValueError, match="no address"):
        parse_address("W_in[{neuron}, :]")


def test_every_word_of_the_table_names_its_own_row():
    for row in PART_TABLE:
        found = find_row(row.part.format(layer=3, head=12, neuron=450))
        assert found is not None and found[0] is row
        wanted = {"layer": 3, "head": 12, "neuron": 450}
        assert found[1] == {name: number for name, number in wanted.items() if f"{{{name}}}" in row.part}


def test_the_table_prints_every_row_and_what_is_undefined():
    text = table_markdown()
    for row in PART_TABLE:
        assert f"| `{row.part}` " in text
    pattern_row = next(line for line in text.splitlines() if "hook_pattern" in line)
    assert [cell.strip() for cell in pattern_row.split("|")[3:6]] == [
        "*undefined*",
        "its pattern is the mean pattern (query by key)",
        "its pattern is that of the other item",
    ]
    assert "`L{layer}.H{head}.QK` zero" in text and "a pattern of zeros is no distribution" in text
    for table in text.split("\n\n")[1::2]:
        assert len({len(line) for line in table.splitlines()}) == 1


def test_the_parts_of_a_model_are_printed_with_their_size():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in model_markdown(CFG).splitlines()[2:]]
    table = {name: (int(count.replace(",", "")), where) for name, count, _, where in lines}
    assert table["`all`"] == (n_parameters(CFG), "none")
    assert table["`L1.H2`"] == (4 * 16 * 4 + 3 * 4, "`blocks.1.attn.hook_z[:, :, 2]`")
    assert table["`L0.mlp.N0` to `N5`, each"][0] == 16 + 1 + 16
    assert [name for name in table if "mlp.N" in name] == [f"`L{layer}.mlp.N0` to `N5`, each" for layer in (0, 1)]
    pieces = ("`embed`", "`pos`", "`L0`", "`L1`", "`ln_final`", "`unembed`")
    assert sum(table[piece][0] for piece in pieces) == n_parameters(CFG)
