"""The shape of a model: what follows from what, and what is refused."""

import pytest
import torch

from mechproc.errors import ConfigError, StoreError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward
from mechproc.model.state import DTYPES, check_state, dtype_of, init_state, n_parameters, tensor_shapes

CFG = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=8, d_vocab=10)


def test_widths_follow_and_follow_again():
    assert (CFG.d_head, CFG.d_mlp) == (4, 64)
    assert CFG.replace(n_heads=8).d_head == 2
    wider = CFG.replace(d_model=32)
    assert (wider.d_head, wider.d_mlp) == (8, 128)


def test_widths_that_were_given_stay():
    given = CFG.replace(d_head=3, d_mlp=5)
    assert (given.replace(d_model=32).d_head, given.replace(d_model=32).d_mlp) == (3, 5)
    assert CFG.replace(n_heads=8, d_head=7).d_head == 7


def test_the_paper_s_model_has_its_size():
    paper = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=63, d_vocab=256)
    embeddings = 256 * 16 * 2 + 63 * 16
    layer = 4 * (16 * 16 + 16) + 2 * 16 * 64 + 64 + 16 + 4 * 16
    assert n_parameters(paper) == embeddings + 2 * layer + 2 * 16


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n_layers": 0}, "n_layers"),
        ({"n_heads": 3}, "n_heads"),
        ({"d_vocab": 1}, "d_vocab"),
        ({"eps": 0.0}, "eps"),
        ({"input": "vectors"}, "d_input"),
        ({"d_input": 4}, "d_input"),
        ({"input": "vectors", "d_input": 4, "tied_embeddings": True}, "tied_embeddings"),
    ],
)
def test_impossible_shapes_are_refused_by_name(change, field):
    with pytest.raises(ConfigError, match=f"^{field} = "):
        CFG.replace(**change)


def test_a_state_has_exactly_the_tensors_of_its_config():
    state = init_state(CFG, seed=0)
    check_state(state, CFG)
    assert {name: tuple(t.shape) for name, t in state.items()} == tensor_shapes(CFG)
    tied = CFG.replace(tied_embeddings=True, unembed_bias=True)
    assert "unembed.W_U" not in tensor_shapes(tied) and "unembed.b_U" in tensor_shapes(tied)


SEMANTICS = {
    "embed.W_E": {"input"},
    "pos_embed.W_pos": set(),
    "blocks.0.ln1.w": {"normalization_type", "eps"},
    "blocks.1.attn.W_Q": {"normalization_type", "eps"},
    "blocks.1.mlp.W_in": {"normalization_type", "eps", "act_fn"},
    "ln_final.b": {"normalization_type", "eps"},
    "unembed.W_U": {"normalization_type", "eps"},
}


@pytest.mark.parametrize("tensor", SEMANTICS)
def test_the_settings_that_decide_what_a_weight_means(tensor):
    assert tensor in tensor_shapes(CFG)
    found = CFG.weight_semantics(tensor)
    assert found == {name: getattr(CFG, name) for name in SEMANTICS[tensor]}
    bare = CFG.replace(normalization_type=None)
    assert set(bare.weight_semantics(tensor)) == SEMANTICS[tensor] - {"eps"}


@pytest.mark.parametrize("change", [{"eps": 0.1}, {"act_fn": "relu"}, {"init_std": 0.1}])
def test_settings_that_change_the_logits_of_equal_weights_are_among_them(change):
    """Such settings leave every shape as it is, so that a comparison of shapes overlooks them."""
    other, state, tokens = CFG.replace(**change), init_state(CFG, seed=0), torch.arange(8)[None]
    assert tensor_shapes(other) == tensor_shapes(CFG)
    differs = not torch.equal(forward(state, CFG, tokens), forward(state, other, tokens))
    assert differs == any(other.weight_semantics(t) != CFG.weight_semantics(t) for t in tensor_shapes(CFG))


def test_one_floating_dtype_for_all_weights():
    state = init_state(CFG, seed=0)
    for dtype in DTYPES:
        assert dtype_of({name: tensor.to(dtype) for name, tensor in state.items()}) is dtype
    for wrong in (torch.int64, torch.float64):
        with pytest.raises(StoreError, match=f"^mine: tensor ln_final.b is {wrong}"):
            dtype_of(state | {"ln_final.b": state["ln_final.b"].to(wrong)}, "mine")
