"""Attribution to the logits of trained models, whose LayerNorms have weights and biases of their own."""

from __future__ import annotations

import pytest
import torch
from transformer_lens.tools.analysis import direct_logit_attribution

import mechproc
from mechproc.errors import ConfigError
from mechproc.procedures import Procedure, get
from mechproc.runs.donors import ShippedModel

MODELS = [("sort", 0), ("set", 3), ("eca", 5)]


@pytest.mark.parametrize(("rule", "seed"), MODELS)
def test_folding_makes_the_parts_add_up_to_the_logit_difference(rule, seed):
    trained = mechproc.load_pretrained(rule, seed).double()
    procedure: Procedure = get(rule)()
    tokens = torch.from_numpy(procedure.items(16).tokens)
    pos, every = tokens.shape[1] // 2, torch.arange(16)
    logits = trained(tokens)[:, pos]
    right, wrong = logits.topk(2).indices.unbind(1)
    difference = logits[every, right] - logits[every, wrong]
    _, unfolded = trained.run_with_cache(tokens)
    with pytest.raises(ConfigError, match=r"^normalization_type = 'LN'"):
        unfolded.logit_attrs(unfolded.decompose_resid(), 1)
    model = trained.process_weights()
    _, cache = model.run_with_cache(tokens)
    constant = model.b_U[right] - model.b_U[wrong]
    parts = cache.get_full_resid_decomposition(pos_slice=pos)
    found = [cache.logit_attrs(parts, right, wrong, pos_slice=pos).sum(0)]
    found += [
        direct_logit_attribution(model, tokens, right, wrong, unit=unit, pos=pos).attribution.sum(0)
        for unit in ("component", "head")
    ]
    for total in found:
        torch.testing.assert_close(total + constant, difference, rtol=0, atol=1e-10)


def test_a_shipped_model_shows_its_name_its_score_and_which_weights_it_has():
    model, levels = mechproc.load_pretrained("sort", 3), "best attainable 100.0 %, without the rule 74.3 %"
    assert repr(model).startswith("HookedTransformer\n  name: sort, seed 3\n  trained on: sort, ")
    assert levels in model.summary()["test accuracy, as trained"]
    assert model.summary()["weights"] == ShippedModel("sort", 3).identity[:12]
    early = mechproc.load_pretrained("sort", 3, step=100).summary()
    assert early["name"] == "sort, seed 3, step 100" and early["trained on"] == "sort, 100 updates"
    assert "test accuracy, as trained" not in early
    assert levels in mechproc.load_pretrained("sort", 3, step=1000).summary()["validation accuracy, as trained"]
