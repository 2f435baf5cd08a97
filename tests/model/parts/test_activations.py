"""The activation side of parts: where sites are, and that each says of a real model what the table says of it."""

from __future__ import annotations

import pytest
import torch

from mechproc.errors import PartError
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation, Selection, Site, check_defined, meaning, select, sites, sites_of
from mechproc.model.parts.table import PART_TABLE, Undefined

CFG = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=9, d_vocab=11, d_mlp=6)
EXACT = {"rtol": 1e-12, "atol": 1e-12}

EXPECTED_SITES = {
    "embed": [("embed", "hook_embed", None, None)],
    "pos": [("pos", "hook_pos_embed", None, None)],
    "L1.ln1": [("L1.ln1", "blocks.1.ln1.hook_normalized", None, None)],
    "ln_final": [("ln_final", "ln_final.hook_normalized", None, None)],
    "L0.attn": [("L0.attn", "blocks.0.hook_attn_out", None, None)],
    "L0.H2": [("L0.H2", "blocks.0.attn.hook_z", 2, 2)],
    "L1.H3.QK": [("L1.H3.QK", "blocks.1.attn.hook_pattern", 1, 3)],
    "L1.H0.OV": [("L1.H0.OV", "blocks.1.attn.hook_v", 2, 0)],
    "L1.mlp": [("L1.mlp", "blocks.1.hook_mlp_out", None, None)],
    "L0.mlp.N5": [("L0.mlp.N5", "blocks.0.mlp.hook_post", 2, 5)],
}
"""Each site as (part, hook, axis, index)."""


@pytest.mark.parametrize("part", EXPECTED_SITES)
def test_the_site_of_one_part(part):
    assert [(s.part, s.hook, s.axis, s.index) for s in sites(part, CFG)] == EXPECTED_SITES[part]


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("attn - L0.H2", ["L0.H0", "L0.H1", "L0.H3", "L1.attn"]),
        ("L0.H0 + L0.H1 + L0.H2 + L0.H3", ["L0.H0", "L0.H1", "L0.H2", "L0.H3"]),
        ("attn - L0.H2 + L0.H2", ["L0.attn", "L1.attn"]),
        ("L0.H2.QK + L0.H2.OV", ["L0.H2"]),
        ("L0.H2 - L0.H2.OV", ["L0.H2.QK"]),
        ("L1.mlp + L1.H1 + L0.H3.QK + embed", ["embed", "L0.H3.QK", "L1.H1", "L1.mlp"]),
        ("L0.mlp - L0.mlp.N0 - L0.mlp.N3 - L0.mlp.N4", ["L0.mlp.N1", "L0.mlp.N2", "L0.mlp.N5"]),
        ("body", ["L0.attn", "L0.mlp", "L1.attn", "L1.mlp"]),
        ("L1", ["L1.ln1", "L1.attn", "L1.ln2", "L1.mlp"]),
    ],
)
def test_sites_are_the_largest_parts_in_forward_order(expression, parts):
    found = sites(expression, CFG)
    assert [site.part for site in found] == parts
    assert all(sites(site.part, CFG) == (site,) for site in found)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("unembed", r"'unembed' has no activation: its output is the logits"),
        ("all", r"'unembed' has no activation"),
        (
            "L0.attn - L0.H0 - L0.H1 - L0.H2 - L0.H3",
            r"blocks\.0\.attn\.b_O alone has no activation: blocks\.0\.hook_attn_out belongs to 'L0\.attn' as a whole",
        ),
        (" - ".join(["L1.mlp", *(f"L1.mlp.N{n}" for n in range(6))]), r"blocks\.1\.mlp\.b_out alone"),
    ],
)
def test_weights_without_an_activation_are_refused(expression, message):
    with pytest.raises(PartError, match=message):
        sites(expression, CFG)


def test_a_lone_tensor_of_a_circuit_is_refused():
    head = select("L0.H2", CFG)
    queries = Selection(CFG, frozenset(s for s in head.slices if s.tensor.endswith("W_Q")))
    with pytest.raises(PartError, match=r"blocks\.0\.attn\.W_Q alone has no activation"):
        sites_of(queries)
    with pytest.raises(PartError, match=r"attn\.W_Q alone"):
        sites_of(queries | select("L0.H1", CFG) | select("L0.H2.OV", CFG))


# ---- undefined cells -------------------------------------------------------------------------------------------------

UNDEFINED = {
    ("pos", Ablation.MEAN),
    ("pos", Ablation.RESAMPLE),
    ("L{layer}.ln1", Ablation.ZERO),
    ("L{layer}.ln1", Ablation.MEAN),
    ("L{layer}.ln2", Ablation.ZERO),
    ("L{layer}.ln2", Ablation.MEAN),
    ("L{layer}.H{head}.QK", Ablation.ZERO),
    *(("ln_final", ablation) for ablation in Ablation),
    *(("unembed", ablation) for ablation in Ablation),
}


@pytest.mark.parametrize(
    "row", [row for row in PART_TABLE if row.hook or row.part == "unembed"], ids=lambda row: row.part
)
@pytest.mark.parametrize("ablation", Ablation)
def test_undefined_cells_are_refused_and_no_others(row, ablation):
    part = row.part.format(layer=1, head=2, neuron=3)
    if (row.part, ablation) in UNDEFINED:
        with pytest.raises(PartError, match=f"{ablation.value} at '{part}' is undefined: "):
            check_defined(part, ablation)
    else:
        check_defined(part, ablation)
        assert len(meaning(part, ablation)) > 10


def test_the_reason_names_this_layer():
    assert meaning("L1.ln2", Ablation.MEAN) == Undefined(
        "a LayerNorm passes on the whole residual stream: this would ablate everything that the MLP reads; name L1.mlp"
    )


def test_an_expression_is_checked_site_by_site():
    with pytest.raises(PartError, match=r"zero at 'L0\.H1\.QK' is undefined"):
        sites("L0.H0 + L0.H1.QK", CFG, Ablation.ZERO)
    assert len(sites("L0.H0 + L0.H1.QK", CFG, Ablation.MEAN)) == 2
    with pytest.raises(PartError, match=r"zero at 'L0\.ln1'"):
        sites("L0", CFG, Ablation.ZERO)
    assert len(sites("L0 - ln", CFG, Ablation.ZERO)) == 2
    with pytest.raises(PartError, match="has no activation of its own: it is ablated at its parts"):
        check_defined("attn", Ablation.ZERO)


# ---- the table against a real model ----------------------------------------------------------------------------------


def parts_with_activations(cfg: ModelConfig) -> list[Site]:
    """The sites of all parts of a model that have one, the smaller and the larger."""
    found = []
    for row in PART_TABLE:
        counts = {"layer": cfg.n_layers, "head": cfg.n_heads, "neuron": min(cfg.d_mlp or 0, 3)}
        names = {row.part}
        for variable, count in counts.items():
            names = (
                {n.replace(f"{{{variable}}}", str(i)) for n in names for i in range(count)}
                if variable in row.part
                else names
            )
        for name in sorted(names) if row.hook else []:
            try:
                found += sites(name, cfg)
            except PartError as error:
                assert "not in this model" in str(error)
    return found


def run(cfg, state, inputs, hooks):
    """Logits with some activations edited, in float64; an unknown hook is an error in the model itself."""
    model = HookedTransformer(cfg, state, dtype=torch.float64)
    with torch.no_grad():
        return model.run_with_hooks(inputs, fwd_hooks=hooks)


def replace(site: Site, value):
    """A hook that sets the part's activation to ``value`` of what it was."""

    def edit(activation, hook):
        site.view(activation).copy_(value(site.view(activation)))
        return activation

    return (site.hook, edit)


def test_every_site_is_in_the_model_with_the_shape_the_table_says(cfg, random_state, random_inputs):
    _, cache = HookedTransformer(cfg, random_state(cfg), dtype=torch.float64).run_with_cache(random_inputs(cfg))
    d_model, d_head = cfg.d_model, cfg.d_head
    for site in parts_with_activations(cfg):
        kind = site.hook.rpartition(".")[2]
        rest = {"hook_pattern": (7, 7), "hook_z": (7, d_head), "hook_v": (7, d_head), "hook_post": (7,)}
        assert site.view(cache[site.hook]).shape == (4, *rest.get(kind, (7, d_model))), site
        if site.axis is not None:
            count = {"hook_post": cfg.d_mlp}.get(kind, cfg.n_heads)
            assert cache[site.hook].shape[site.axis] == count, site


def test_zero_at_a_site_is_zero_in_the_weights_it_owns(cfg, random_state, random_inputs):
    state, inputs = random_state(cfg), random_inputs(cfg)
    untouched, tested = run(cfg, state, inputs, []), 0
    for site in parts_with_activations(cfg):
        if isinstance(meaning(site, Ablation.ZERO), Undefined) or (site.part == "embed" and cfg.tied_embeddings):
            continue  # a tied W_E is the unembedding too: its zero reaches further than the activation's
        selection = select(site.part, cfg)
        zeroed = selection.write(state, {name: 0 * values for name, values in selection.read(state).items()})
        ablated = run(cfg, state, inputs, [replace(site, torch.zeros_like)])
        torch.testing.assert_close(
            ablated, forward(zeroed, cfg, inputs), **EXACT, msg=lambda m, site=site: f"{site}: {m}"
        )
        assert cfg.act_fn == "relu" or not torch.allclose(ablated, untouched), site  # a ReLU may be off everywhere
        tested += 1
    assert tested > cfg.n_layers * cfg.n_heads


def other_item(activation):
    """Each item's activation replaced by its neighbour's."""
    return activation.roll(1, 0).clone()


def test_what_the_table_says_of_resampling(plain, random_state, random_inputs):
    cfg, state, inputs = plain, random_state(plain), random_inputs(plain)
    untouched = run(cfg, state, inputs, [])
    logits = {s.part: run(cfg, state, inputs, [replace(s, other_item)]) for s in parts_with_activations(cfg)}
    for layer in (0, 1):
        torch.testing.assert_close(logits[f"L{layer}.ln2"], logits[f"L{layer}.mlp"], **EXACT)
        torch.testing.assert_close(logits[f"L{layer}.ln1"], logits[f"L{layer}.attn"], **EXACT)
    torch.testing.assert_close(logits["ln_final"], untouched.roll(1, 0), **EXACT)
    torch.testing.assert_close(logits["pos"], untouched, **EXACT)
    embed = run(cfg, state, inputs.roll(1, 0), [])
    torch.testing.assert_close(logits["embed"], embed, **EXACT)
    for part, changed in logits.items():
        assert part == "pos" or not torch.allclose(changed, untouched), part


def test_a_head_resampled_whole_is_its_circuits_resampled_together(plain, random_state, random_inputs):
    state, inputs = random_state(plain), random_inputs(plain)
    (whole,), circuits = sites("L1.H0", plain), [*sites("L1.H0.QK", plain), *sites("L1.H0.OV", plain)]
    together = run(plain, state, inputs, [replace(site, other_item) for site in circuits])
    torch.testing.assert_close(run(plain, state, inputs, [replace(whole, other_item)]), together, **EXACT)


def test_a_mean_pattern_is_still_a_causal_distribution(plain, random_state, random_inputs):
    _, cache = HookedTransformer(plain, random_state(plain), dtype=torch.float64).run_with_cache(random_inputs(plain))
    (site,) = sites("L1.H0.QK", plain)
    mean = site.view(cache[site.hook]).mean(0)
    torch.testing.assert_close(mean.sum(-1), torch.ones(7, dtype=torch.float64), **EXACT)
    assert (mean.triu(1) == 0).all() and (mean.tril() > 0).sum() == 28


def test_a_site_spells_its_address():
    assert [s.address for s in sites("L0.H2 + L1.H3.QK + L1.mlp", CFG)] == [
        "blocks.0.attn.hook_z[:, :, 2]",
        "blocks.1.attn.hook_pattern[:, 3]",
        "blocks.1.hook_mlp_out",
    ]


def test_a_models_own_config_will_do(random_state):
    model = HookedTransformer(CFG, random_state(CFG))
    assert sites("attn - L0.H2", model.cfg) == sites("attn - L0.H2", CFG)
    assert select("L0.H2", model.cfg) == select("L0.H2", CFG)
