"""No hook is silent: what cannot fire is refused, what did not is an error; the cache holds what was asked for."""

from __future__ import annotations

import re

import pytest
import torch
from transformer_lens import ActivationCache

from mechproc.errors import PartError
from mechproc.model.hooked import HookedTransformer


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def message(error):
    return "^" + re.escape(error)


def test_cache_and_its_filters(model, inputs):
    logits, cache = model.run_with_cache(inputs)
    assert isinstance(cache, ActivationCache) and torch.equal(logits, model(inputs))
    assert torch.equal(cache["pattern", 1], cache["blocks.1.attn.hook_pattern"])
    assert not any(name in key for key in cache for name in ("result", "_input", "attn_in", "mlp_in"))
    plain_dict = model.run_with_cache(inputs, names_filter="hook_embed", return_cache_object=False)[1]
    assert type(plain_dict) is dict and list(plain_dict) == ["hook_embed"]
    assert set(model.run_with_cache(inputs, names_filter=["hook_embed", "ln_final.hook_scale"])[1]) == {
        "hook_embed",
        "ln_final.hook_scale",
    }
    assert len(model.run_with_cache(inputs, names_filter=lambda name: name.endswith("hook_z"))[1]) == 2
    _, single = model.run_with_cache(inputs[0], remove_batch_dim=True)
    same(single["blocks.1.attn.hook_pattern"], cache["blocks.1.attn.hook_pattern"][0])
    assert not single.has_batch_dim
    _, last = model.run_with_cache(inputs, pos_slice=-1)
    same(last["blocks.1.attn.hook_z"], cache["blocks.1.attn.hook_z"][:, -1:])


def test_gradients_through_hooks(model, inputs):
    _, cache = model.run_with_cache(inputs, return_type="loss", incl_bwd=True)
    nudge = torch.zeros(4, 7, 8, dtype=torch.float64, requires_grad=True)
    hook = ("blocks.1.hook_resid_pre", lambda x, hook: x + nudge)
    model.run_with_hooks(inputs, return_type="loss", fwd_hooks=[hook]).backward()
    assert nudge.grad is not None and nudge.grad.abs().max() > 1e-4
    same(cache["blocks.1.hook_resid_pre_grad"], nudge.grad)
    seen = []
    with model.hooks(bwd_hooks=[("blocks.1.hook_resid_pre", lambda grad, hook: seen.append(grad))]):
        model(inputs, return_type="loss").backward()
    same(seen[0], nudge.grad)


def fired_hooks(model):
    return [name for name, hook in model.hook_dict.items() if hook.fwd_hooks or hook.bwd_hooks]


def nothing(activation, hook):
    return None


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "blocks.0.hook_resid_pr",
            "'blocks.0.hook_resid_pr' is not a hook of this model; did you mean 'blocks.0.hook_resid_pre'?",
        ),
        ("blocks.2.hook_z", "'blocks.2.hook_z' is not a hook of this model"),
        ("blocks.0.attn", "'blocks.0.attn' is not a hook of this model"),
        (
            "blocks.0.attn.hook_result",
            "'blocks.0.attn.hook_result' does not fire until set_use_attn_result(True) is called",
        ),
        (
            "blocks.0.hook_k_input",
            "'blocks.0.hook_k_input' does not fire until set_use_split_qkv_input(True) is called",
        ),
        ("blocks.0.hook_attn_in", "'blocks.0.hook_attn_in' does not fire until set_use_attn_in(True) is called"),
        ("blocks.0.hook_mlp_in", "'blocks.0.hook_mlp_in' does not fire until set_use_hook_mlp_in(True) is called"),
        (lambda name: "hook_result" in name, "no hook that fires matches <function"),
    ],
)
def test_hooks_that_cannot_fire_are_refused_before_the_run(model, inputs, name, error):
    def never(activation, hook):
        raise AssertionError("the model ran")

    first = ("hook_embed", never)
    attempts = [
        lambda: model.run_with_hooks(inputs, fwd_hooks=[first, (name, nothing)]),
        lambda: model.hooks(bwd_hooks=[(name, nothing)]).__enter__(),
        lambda: model.add_hook(name, nothing),
        lambda: model.add_perma_hook(name, nothing),
        lambda: model.run_with_cache(inputs, names_filter=name),
        lambda: model.get_caching_hooks(name),
        lambda: model.add_caching_hooks(name),
    ]
    for attempt in attempts:
        with pytest.raises(PartError, match=message(error)):
            attempt()
        assert fired_hooks(model) == []


def test_mlp_hooks_do_not_exist_without_mlps(plain, random_inputs):
    cfg = plain.replace(d_mlp=0)
    with pytest.raises(PartError, match=message("'blocks.0.hook_mlp_out' is not a hook of this model")):
        HookedTransformer(cfg).run_with_hooks(random_inputs(cfg), fwd_hooks=[("blocks.0.hook_mlp_out", nothing)])


def test_hooks_that_did_not_fire_are_errors_at_the_end(model, inputs):
    hook = ("hook_embed", nothing)
    with pytest.raises(PartError, match="the hook on 'hook_embed' never fired"), model.hooks(fwd_hooks=[hook]):
        pass
    with pytest.raises(PartError, match="never fired: run the model, and backward"):
        model.run_with_hooks(inputs, return_type="loss", bwd_hooks=[hook])
    with pytest.raises(PartError, match="never fired"), model.hooks(fwd_hooks=[hook], reset_hooks_end=False):
        pass
    assert fired_hooks(model) == [] and model.context_level == 0
    with pytest.raises(ZeroDivisionError), model.hooks(fwd_hooks=[hook]):
        raise ZeroDivisionError("the user's error comes through, not ours")
    assert fired_hooks(model) == [] and model.context_level == 0


def test_backward_hooks_may_stay(model, inputs):
    seen = []
    hook = ("hook_embed", lambda grad, hook: seen.append(hook.name))
    model.run_with_hooks(inputs, return_type="loss", bwd_hooks=[hook], reset_hooks_end=False).backward()
    assert seen == ["hook_embed"] and fired_hooks(model) == ["hook_embed"]
    model.reset_hooks()
    assert fired_hooks(model) == []


def test_hooks_nest(model, inputs):
    seen = []

    def note(label):
        return lambda activation, hook: seen.append(label)

    with model.hooks(fwd_hooks=[("hook_embed", note("outer"))]):
        with model.hooks(fwd_hooks=[("hook_embed", note("inner"))]):
            model(inputs)
        model(inputs)
    assert seen == ["outer", "inner", "outer"]


def double_in_place(activation, hook):
    activation *= 2


@pytest.mark.parametrize(
    ("cached", "edited"),
    [
        ("blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"),  # one tensor, seen at two hooks
        ("blocks.0.attn.hook_z", "blocks.0.attn.hook_z"),
        ("hook_pos_embed", "hook_pos_embed"),
    ],
)
@pytest.mark.parametrize("how", ["get_caching_hooks", "add_caching_hooks", "a hook that keeps", "HookPoint.add_hook"])
def test_an_edit_in_place_changes_nothing_that_was_cached_before(model, inputs, cached, edited, how):
    before = model.run_with_cache(inputs)[1][cached].clone()
    by_copy = model.run_with_hooks(inputs, fwd_hooks=[(edited, lambda x, hook: x * 2)])
    seen, edit = {}, (edited, double_in_place)

    def keep(activation, hook):
        seen[hook.name] = activation

    if how == "get_caching_hooks":
        seen, hooks, _ = model.get_caching_hooks(cached)
        logits = model.run_with_hooks(inputs, fwd_hooks=[*hooks, edit])
    elif how == "add_caching_hooks":
        seen = model.add_caching_hooks(cached)
        logits = model.run_with_hooks(inputs, fwd_hooks=[edit])
    elif how == "a hook that keeps":
        logits = model.run_with_hooks(inputs, fwd_hooks=[(cached, keep), edit])
    else:
        model.hook_dict[cached].add_hook(keep)
        model.hook_dict[edited].add_hook(double_in_place)
        logits = model(inputs)
    same(seen[cached], before)
    same(logits, by_copy)


def test_an_edit_in_place_of_a_gradient_changes_no_cached_gradient(model, inputs):
    name = "blocks.1.hook_resid_pre"
    before = model.run_with_cache(inputs, return_type="loss", incl_bwd=True)[1][f"{name}_grad"]
    cache, fwd, bwd = model.get_caching_hooks(name, incl_bwd=True)
    with model.hooks(fwd, [*bwd, (name, double_in_place)]):
        model(inputs, return_type="loss").backward()
    same(cache[f"{name}_grad"], before)


def test_a_hook_that_reads_stands_in_the_graph(model, inputs):
    kept = []

    def keep(activation, hook):
        activation.retain_grad()
        kept.append(activation)

    model.run_with_hooks(inputs, return_type="loss", fwd_hooks=[("blocks.1.hook_resid_pre", keep)]).backward()
    assert kept[0].grad is not None and kept[0].grad.abs().max() > 1e-4


WRONG_RESULTS = {
    "one item for all": lambda x: x[:1],
    "one head for all": lambda x: x[:, :, :1],
    "a scalar": lambda x: x.sum(),
    "a number": lambda x: 0.0,
    "an array": lambda x: x.detach().numpy(),
    "another dtype": lambda x: x.float(),
}


@pytest.mark.parametrize("wrong", WRONG_RESULTS)
def test_a_hook_s_result_has_the_shape_and_dtype_of_the_activation(model, inputs, wrong):
    name = "blocks.0.attn.hook_z"

    def hook(activation, hook):
        return WRONG_RESULTS[wrong](activation)

    with pytest.raises(PartError, match=f"^the hook on '{name}' returned "):
        model.run_with_hooks(inputs, fwd_hooks=[(name, hook)])
    with pytest.raises(PartError, match=f"^the hook on '{name}' returned "), model.hooks(bwd_hooks=[(name, hook)]):
        model(inputs, return_type="loss").backward()
    assert fired_hooks(model) == []


def test_hooks_that_were_left_are_refused(model, inputs):
    model.require_no_hooks()
    leave = {
        "hook_embed": lambda: model.add_hook("hook_embed", nothing),
        "blocks.1.attn.hook_z": lambda: model.add_perma_hook("blocks.1.attn.hook_z", nothing),
        "blocks.0.hook_resid_post": lambda: model.add_hook("blocks.0.hook_resid_post", nothing, dir="bwd"),
        "hook_pos_embed": lambda: model.add_caching_hooks("hook_pos_embed"),
        "blocks.0.mlp": lambda: model.blocks[0].mlp.register_forward_hook(lambda *_: None),
        "blocks.1.attn": lambda: model.blocks[1].attn.register_forward_pre_hook(lambda *_: None),
        "unembed": lambda: model.unembed.register_full_backward_hook(lambda *_: None),
    }
    for name, add in leave.items():
        handle = add()
        with pytest.raises(PartError, match=message(f"the model has a hook on {name!r}; remove it first")):
            model.require_no_hooks()
        model.reset_hooks(including_permanent=True)
        if hasattr(handle, "remove"):
            handle.remove()
        model.require_no_hooks()
    with model.hooks(fwd_hooks=[("hook_embed", nothing)]):
        model(inputs)
        with pytest.raises(PartError, match="hook_embed"):
            model.require_no_hooks()
    model.require_no_hooks()


def test_list_hooks_shows_the_user_s_own_hook(model):
    model.add_hook("hook_embed", nothing)
    assert model.hook_dict["hook_embed"].fwd_hooks[0].user_hook is nothing
