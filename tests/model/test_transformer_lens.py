"""TransformerLens's own functions on our model, and its own model as a second implementation."""

from __future__ import annotations

import pytest
import torch
import transformer_lens
from torch.nn import functional as F
from transformer_lens import SVDInterpreter, patching
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_protocol import TransformerLensModel, TransformerLensModelWithWeights
from transformer_lens.tools.analysis import direct_logit_attribution, logit_lens
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

from mechproc.errors import ConfigError
from mechproc.model.hooked import HookedTransformer

LAYER_POS = {"resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid"}
LAYER_POS |= {"attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"}
HEADS = {"out": "hook_z", "q": "hook_q", "k": "hook_k", "v": "hook_v"}


def same(found, expected, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=atol)


def metric(logits):
    return logits[:, -1, 3].mean() - logits[:, 2, 5].mean()


@pytest.fixture
def pair(model, plain, random_inputs):
    """Corrupted tokens, and the caches of a clean and of the corrupted run."""
    clean, corrupted = random_inputs(plain, n_pos=4, seed=1), random_inputs(plain, n_pos=4, seed=2)
    with torch.no_grad():
        yield corrupted, model.run_with_cache(clean)[1], model.run_with_cache(corrupted)[1]


def patched(model, tokens, clean_cache, name, place):
    """The metric when the clean activation stands at one place of one hook: the loop that the grids stand for."""

    def hook(activation, hook):
        activation = activation.clone()
        activation[place] = clean_cache[name][place]
        return activation

    return metric(model.run_with_hooks(tokens, fwd_hooks=[(name, hook)]))


def close(grid, cell, expected):
    """``patching`` stores its grids in float32."""
    assert grid[cell].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6), cell


@pytest.mark.parametrize("kind", LAYER_POS)
def test_patching_by_layer_and_position(model, pair, kind):
    tokens, clean, _ = pair
    grid = getattr(patching, f"get_act_patch_{kind}")(model, tokens, clean, metric)
    assert grid.shape == (2, 4) and grid.std() > 1e-3
    for layer in range(2):
        for pos in range(4):
            name = f"blocks.{layer}.{LAYER_POS[kind]}"
            close(grid, (layer, pos), patched(model, tokens, clean, name, (slice(None), pos)))


@pytest.mark.parametrize("kind", HEADS)
def test_patching_by_head(model, pair, kind):
    tokens, clean, _ = pair
    everywhere = getattr(patching, f"get_act_patch_attn_head_{kind}_all_pos")(model, tokens, clean, metric)
    by_pos = getattr(patching, f"get_act_patch_attn_head_{kind}_by_pos")(model, tokens, clean, metric)
    assert everywhere.shape == (2, 2) and by_pos.shape == (2, 4, 2) and by_pos.std() > 1e-3
    for layer, head in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        name = f"blocks.{layer}.attn.{HEADS[kind]}"
        close(everywhere, (layer, head), patched(model, tokens, clean, name, (slice(None), slice(None), head)))
        close(by_pos, (layer, 2, head), patched(model, tokens, clean, name, (slice(None), 2, head)))


def test_patching_of_patterns(model, pair):
    tokens, clean, _ = pair
    everywhere = patching.get_act_patch_attn_head_pattern_all_pos(model, tokens, clean, metric)
    by_query = patching.get_act_patch_attn_head_pattern_by_pos(model, tokens, clean, metric)
    by_entry = patching.get_act_patch_attn_head_pattern_dest_src_pos(model, tokens, clean, metric)
    assert by_entry.shape == (2, 2, 4, 4) and by_entry.std() > 1e-4
    every = slice(None)
    for layer, head in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        name = f"blocks.{layer}.attn.hook_pattern"
        close(everywhere, (layer, head), patched(model, tokens, clean, name, (every, head)))
        close(by_query, (layer, head, 3), patched(model, tokens, clean, name, (every, head, 3)))
        close(by_entry, (layer, head, 3, 1), patched(model, tokens, clean, name, (every, head, 3, 1)))


def test_patching_of_everything_at_once(model, pair):
    tokens, clean, _ = pair
    every = patching.get_act_patch_attn_head_all_pos_every(model, tokens, clean, metric)
    by_pos = patching.get_act_patch_attn_head_by_pos_every(model, tokens, clean, metric)
    blocks = patching.get_act_patch_block_every(model, tokens, clean, metric)
    assert every.shape == (5, 2, 2) and by_pos.shape == (5, 2, 4, 2) and blocks.shape == (3, 2, 4)
    close(every, (2, 1, 0), patched(model, tokens, clean, "blocks.1.attn.hook_k", (slice(None), slice(None), 0)))
    close(by_pos, (3, 0, 2, 1), patched(model, tokens, clean, "blocks.0.attn.hook_v", (slice(None), 2, 1)))
    close(blocks, (2, 1, 3), patched(model, tokens, clean, "blocks.1.hook_mlp_out", (slice(None), 3)))


@pytest.mark.parametrize("which", "qkv")
def test_patching_of_one_edge(plain, model, pair, which):
    """From head L0.H1 into the query, key or value of each head of layer 1, computed once more by hand."""
    tokens, clean, corrupted = pair
    grid = patching.get_act_patch_direct_path(model, tokens, clean, corrupted, metric, 0, 1, which, verbose=False)
    state = model.state()
    change = (clean["z", 0] - corrupted["z", 0])[:, :, 1] @ state["blocks.0.attn.W_O"][1]
    read = corrupted["resid_pre", 1] + change
    x = F.layer_norm(read, (8,), state["blocks.1.ln1.w"], state["blocks.1.ln1.b"], plain.eps)
    for head in range(2):
        weight, bias = (state[f"blocks.1.attn.{kind}_{which.upper()}"][head] for kind in "Wb")

        def hook(activation, hook, head=head, value=x @ weight + bias):
            activation[:, :, head] = value
            return activation

        expected = metric(model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.1.attn.hook_{which}", hook)]))
        close(grid, (1, head), expected)
        assert abs(expected - metric(model(tokens))) > 1e-5, "an edge without effect tests nothing"
    assert (grid[0] == 0).all() and not model.cfg.use_split_qkv_input


def test_cache_decompositions_add_up(model, plain, random_inputs):
    _, cache = model.run_with_cache(random_inputs(plain))
    final = cache["resid_post", 1]
    parts, labels = cache.decompose_resid(return_labels=True)
    assert labels == ["embed", "pos_embed", "0_attn_out", "0_mlp_out", "1_attn_out", "1_mlp_out"]
    same(parts.sum(0), final)
    streams = cache.accumulated_resid(incl_mid=True)
    same(streams[3], cache["resid_mid", 1])
    same(streams[-1], final)
    heads, labels = cache.stack_head_results(return_labels=True)
    assert labels == ["L0H0", "L0H1", "L1H0", "L1H1"]
    same(heads[2], cache["z", 1][:, :, 0] @ model.W_O[1, 0])
    finest = cache.get_full_resid_decomposition(expand_neurons=True)
    assert len(finest) == 4 + 2 * 32 + 3
    same(finest.sum(0), final)
    same(cache.get_full_resid_decomposition(expand_neurons=False).sum(0), final)
    entering = cache.get_full_resid_decomposition(1, mlp_input=True, expand_neurons=False).sum(0)
    same(entering, cache["resid_mid", 1])


def test_cached_head_results_are_those_of_the_hook(model, plain, random_inputs):
    inputs = random_inputs(plain)
    computed = model.run_with_cache(inputs)[1].stack_head_results()
    model.set_use_attn_result(True)
    same(model.run_with_cache(inputs)[1].stack_head_results(), computed)


ATTRIBUTED = [
    {},
    {"normalization_type": "LNPre"},
    {"normalization_type": None},
    {"d_mlp": 0},
    {"tied_embeddings": True},
]


@pytest.mark.parametrize("change", ATTRIBUTED)
def test_logit_attributions_of_a_folded_model_add_up_to_the_logits(plain, random_state, random_inputs, change):
    """Logits of the model as it was trained, its LayerNorms included, less the bias ``b_U``, which no part writes."""
    cfg = plain.replace(**change)
    trained = HookedTransformer(cfg, random_state(cfg), dtype=torch.float64)
    model = trained.process_weights(fold_ln=cfg.normalization_type == "LN")
    inputs = random_inputs(cfg)
    logits, (_, cache) = trained(inputs), model.run_with_cache(inputs)
    written = logits - model.b_U
    right, wrong = inputs.roll(1, 1), (inputs + 1) % cfg.d_vocab
    expected = written.gather(2, right[..., None]) - written.gather(2, wrong[..., None])
    for parts in (
        cache.decompose_resid(),
        cache.stack_head_results(incl_remainder=True),
        cache.get_full_resid_decomposition(expand_neurons=not cfg.attn_only),
    ):
        same(cache.logit_attrs(parts, right, wrong).sum(0), expected[..., 0], atol=1e-10)
    last = cache.logit_attrs(cache.decompose_resid(pos_slice=-1), 4, pos_slice=-1, has_batch_dim=True).sum(0)
    same(last.squeeze(), written[:, -1, 4], atol=1e-10)
    for unit in ("component", "head"):
        found = direct_logit_attribution(model, inputs, 4, 7, unit=unit).attribution.sum(0)
        same(found.squeeze(), (written[..., 4] - written[..., 7])[:, -1], atol=1e-10)
    same(cache.decompose_resid(apply_ln=True).sum(0) @ model.W_U, written, atol=1e-10)


@pytest.mark.parametrize("change", ATTRIBUTED)
def test_the_logit_lens_ends_at_the_logits(plain, random_state, random_inputs, change):
    cfg = plain.replace(**change)
    model = HookedTransformer(cfg, random_state(cfg), dtype=torch.float64)
    inputs = random_inputs(cfg)
    logits, cache = model.run_with_cache(inputs)
    same(cache.accumulated_resid(apply_ln=True)[-1] @ model.W_U + model.b_U, logits, atol=1e-10)
    same(logit_lens(model, inputs, positions=None).values[-1], logits, atol=1e-10)


def test_a_stack_becomes_what_the_next_layer_reads(model, inputs):
    model = model.process_weights()
    _, cache = model.run_with_cache(inputs)
    parts = cache.decompose_resid(1)
    read = cache.apply_ln_to_stack(parts, layer=1).sum(0)
    same(read, cache["normalized", 1, "ln1"])
    same(cache["q", 1], torch.einsum("bpm,hmd->bphd", read, model.W_Q[1]) + model.b_Q[1])


UNFOLDED = {
    "logit_attrs": lambda model, cache: cache.logit_attrs(cache.decompose_resid(), 4, 5),
    "logit_attrs of an item": lambda model, cache: cache.apply_slice_to_batch_dim(0).logit_attrs(
        cache.decompose_resid()[:, 0], 4, has_batch_dim=False
    ),
    "direct_logit_attribution": lambda model, cache: direct_logit_attribution(model, answer_tokens=4, cache=cache),
    "a cache made by hand": lambda model, cache: transformer_lens.ActivationCache(cache.cache_dict, model).logit_attrs(
        cache.decompose_resid(), 4
    ),
    "apply_ln_to_stack": lambda model, cache: cache.apply_ln_to_stack(cache.decompose_resid(), layer=-1),
    "apply_ln of an item": lambda model, cache: cache.apply_slice_to_batch_dim(0).decompose_resid(apply_ln=True),
    "decompose_resid": lambda model, cache: cache.decompose_resid(apply_ln=True),
    "accumulated_resid": lambda model, cache: cache.accumulated_resid(1, apply_ln=True),
    "stack_head_results": lambda model, cache: cache.stack_head_results(apply_ln=True),
    "stack_neuron_results": lambda model, cache: cache.stack_neuron_results(2, apply_ln=True),
    "projected neurons": lambda model, cache: cache.stack_neuron_results(
        2, apply_ln=True, project_output_onto=model.W_U
    ),
    "full decomposition": lambda model, cache: cache.get_full_resid_decomposition(
        apply_ln=True, project_output_onto=model.W_U
    ),
    "to the MLP": lambda model, cache: cache.apply_ln_to_stack(cache.decompose_resid(1), layer=1, mlp_input=True),
}


@pytest.mark.parametrize("helper", UNFOLDED)
@pytest.mark.parametrize("leaf", ["w", "b"])
def test_attribution_through_a_layer_norm_that_is_not_folded_is_refused(plain, random_state, inputs, helper, leaf):
    state = random_state(plain)
    for name, tensor in state.items():
        if name.endswith((".w", ".b")) and not name.endswith(leaf):
            tensor.fill_(float(name.endswith(".w")))
    model = HookedTransformer(plain, state, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"^normalization_type = 'LN' is not allowed: 'LNPre' here"):
        UNFOLDED[helper](model, model.run_with_cache(inputs)[1])
    folded = model.process_weights()
    UNFOLDED[helper](folded, folded.run_with_cache(inputs)[1])


def test_a_fresh_model_s_layer_norms_need_no_folding(plain, inputs):
    model = HookedTransformer(plain, seed=0, dtype=torch.float64)
    logits, cache = model.run_with_cache(inputs)
    same(cache.logit_attrs(cache.decompose_resid(), 4).sum(0), logits[..., 4])


def test_singular_vectors(model):
    found = SVDInterpreter(model).get_singular_vectors("OV", layer_index=1, num_vectors=3, head_index=0)
    right = torch.linalg.svd(model.W_V[1, 0] @ model.W_O[1, 0])[2][:3]
    by_hand = (model.W_U.T @ right.T)[:, None].detach()
    same(found.abs(), by_hand.abs(), atol=1e-9)


def test_the_model_has_the_structural_types(model):
    assert isinstance(model, TransformerLensModel) and isinstance(model, TransformerLensModelWithWeights)


def test_transformer_lens_own_model_gives_the_same_logits(cfg, random_state, random_inputs):
    """Our weights in its native model, by its own converter of HookedTransformer checkpoints."""
    if cfg.input == "vectors":
        pytest.skip("its native model reads tokens only")
    bridge_cfg = TransformerBridgeConfig(
        **{
            name: getattr(cfg, name) for name in ("d_model", "d_head", "n_layers", "n_ctx", "n_heads", "d_vocab", "eps")
        },
        act_fn=cfg.act_fn,
        d_mlp=cfg.d_mlp or 4 * cfg.d_model,
        attn_only=cfg.attn_only,
        normalization_type=cfg.normalization_type,
    )
    bridge = TransformerBridge.boot_native(bridge_cfg, device="cpu", dtype=torch.float64)
    state = random_state(cfg)
    model = HookedTransformer(cfg, state, dtype=torch.float64)
    always_there = {"unembed.W_U": model.W_U, "unembed.b_U": model.b_U}
    bridge.load_state_dict(convert_tl_checkpoint(state | always_there, bridge_cfg))
    inputs = random_inputs(cfg)
    same(model(inputs), bridge.eval()(inputs), atol=1e-10)
