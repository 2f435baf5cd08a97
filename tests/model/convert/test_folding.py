"""Equivalent weights: equal logits, what each conversion changes by hand, and TransformerLens's own as the judge."""

from __future__ import annotations

import pytest
import torch
from transformer_lens.weight_processing import ProcessWeights

from mechproc.errors import ConfigError
from mechproc.model.convert.folding import (
    center_unembed,
    center_writing_weights,
    fold_ln,
    fold_value_biases,
    unfold_ln,
    untied,
)
from mechproc.model.convert.hooked_transformer import to_hooked_transformer
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import check_state

THEIRS = {
    fold_ln: ProcessWeights.fold_layer_norm,
    center_writing_weights: ProcessWeights.center_writing_weights,
    center_unembed: ProcessWeights.center_unembed,
    fold_value_biases: ProcessWeights.fold_value_biases,
}


def same(found, expected, atol=1e-10):
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def allowed(convert, cfg):
    needs = {
        fold_ln: cfg.normalization_type == "LN",
        unfold_ln: cfg.normalization_type == "LNPre",
        center_writing_weights: cfg.normalization_type is not None,
        center_unembed: cfg.input == "tokens",
    }
    return needs.get(convert, True)


CONVERSIONS = [fold_ln, unfold_ln, center_writing_weights, center_unembed, fold_value_biases, untied]


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda convert: convert.__name__)
def test_every_conversion_keeps_what_it_says(convert, cfg, random_state, random_inputs):
    state, inputs = random_state(cfg), random_inputs(cfg)
    if not allowed(convert, cfg):
        with pytest.raises(ConfigError, match=r"^(normalization_type|input) = "):
            convert(cfg, state)
        return
    before = {name: tensor.clone() for name, tensor in state.items()}
    new_cfg, new = convert(cfg, state)
    check_state(new, new_cfg)
    assert all(torch.equal(state[name], before[name]) for name in before), "the original is the way back"
    assert all(tensor.is_contiguous() and tensor.dtype is torch.float64 for tensor in new.values())
    old_logits, logits = forward(state, cfg, inputs), forward(new, new_cfg, inputs)
    if convert is center_unembed:
        same(logits.log_softmax(-1), old_logits.log_softmax(-1))
        same(logits.mean(-1), torch.zeros_like(logits[..., 0]))
    else:
        same(logits, old_logits)
    for tensor in new.values():
        tensor.fill_(9.0)
    assert all(torch.equal(state[name], before[name]) for name in before), "no memory is shared"


@pytest.mark.parametrize("convert", THEIRS, ids=lambda convert: convert.__name__)
def test_the_weights_are_those_of_transformer_lens(convert, cfg, random_state):
    if not allowed(convert, cfg) or cfg.input == "vectors":
        pytest.skip("refused, or a model that TransformerLens does not have")
    cfg, state = untied(cfg, random_state(cfg))
    new_cfg, new = convert(cfg, state)
    full = {name: tensor.clone() for name, tensor in to_hooked_transformer(cfg, state)[1].items()}
    theirs = THEIRS[convert](full, HookedTransformer(cfg).cfg)
    for name, tensor in to_hooked_transformer(new_cfg, new)[1].items():
        same(tensor, theirs[name])


def test_what_folding_leaves_as_it_is(model, inputs):
    """The residual stream and what the readers of a LayerNorm compute."""
    folded = model.process_weights()
    _, before = model.run_with_cache(inputs)
    _, after = folded.run_with_cache(inputs)
    assert set(before) == set(after) and folded.cfg.normalization_type == "LNPre"
    for name in before:
        same(after[name].nan_to_num(neginf=-1e9), before[name].nan_to_num(neginf=-1e9))


def test_process_weights_does_all_that_is_asked_for(model, inputs):
    everything = model.process_weights(center_writing_weights=True, center_unembed=True, fold_value_biases=True)
    same(everything(inputs).log_softmax(-1), model(inputs).log_softmax(-1))
    assert not everything.b_V.any()
    _, cache = everything.run_with_cache(inputs)
    same(cache["resid_post", 1].mean(-1), torch.zeros(4, 7, dtype=torch.float64))
    nothing = model.process_weights(fold_ln=False)
    assert nothing.cfg == model.cfg and torch.equal(nothing(inputs), model(inputs))


def test_float32_weights_are_rounded_once(plain, random_state, random_inputs):
    state = {name: tensor.float() for name, tensor in random_state(plain).items()}
    cfg, folded = fold_ln(plain, state)
    exact = fold_ln(plain, {name: tensor.double() for name, tensor in state.items()})[1]
    assert all(torch.equal(tensor, exact[name].float()) for name, tensor in folded.items())
    same(forward(folded, cfg, random_inputs(plain)), forward(state, plain, random_inputs(plain)), atol=1e-4)
