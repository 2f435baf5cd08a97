"""A sweep gives, for every intervention, the logits of the hooked model with the same patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.interventions import sweep as sweeps
from analyses.interventions.items import cut, inputs, longest_first
from analyses.interventions.patch import Patch, patches_from, run_with_patches
from analyses.interventions.sweep import sweep
from analyses.interventions.trace import Trace, Weights, at, check_trace, in_float64, trace
from mechproc.errors import ConfigError
from mechproc.model.parts import Site, sites
from mechproc.pretrained import load_pretrained
from mechproc.procedures import get

from .grid import GRID, items, model

SLICES = {
    "hook_z": (2, 1), "hook_q": (2, 0), "hook_k": (2, 1), "hook_v": (2, 1), "hook_pattern": (1, 1),
    "hook_post": (2, 3), "hook_pre": (2, 3),
}  # fmt: skip


def every_patch(intact: Trace, other: Trace) -> list[Patch]:
    """Every activation, and a slice of those that have any, at all and at some positions."""
    n_pos = intact.activations["hook_embed"].shape[1]
    by_item = np.arange(len(intact.items))[:, None] % n_pos
    places = (None, [0], [2], [2, 2], [1, 3], [n_pos - 2], by_item)
    patches = []
    for hook, values in other.activations.items():
        sites = [Site(hook, hook, None, None)]
        if (leaf := hook.rpartition(".")[2]) in SLICES:
            sites.append(Site(hook, hook, *SLICES[leaf]))
        for site in sites if leaf != "hook_attn_scores" else []:
            patches += [Patch(site, p, site.view(values)) for p in places]
    return patches


@pytest.mark.parametrize("kind", GRID)
def test_agrees_with_the_hooked_model(kind, monkeypatch):
    monkeypatch.setattr(sweeps, "ROWS", 40)
    monkeypatch.setattr(sweeps, "ROW_POSITIONS", 40)
    ours, these = model(kind), items(kind)
    check_trace(ours, these, tolerance=1e-10)
    intact = trace(Weights.of(ours), these)
    other = trace(intact.weights, these.take(np.roll(np.arange(len(these)), 1)))
    single = every_patch(intact, other)
    rng = np.random.default_rng(0)
    several = [[single[i] for i in rng.choice(len(single), rng.integers(2, 4))] for _ in range(40)]
    interventions = [*([patch] for patch in single), *several]
    seen, changed = [], 0
    for indices, logits in sweep(intact, interventions):
        for index, swept in zip(indices, logits, strict=True):
            seen.append(index)
            expected = at(run_with_patches(ours, these, interventions[index]), intact.scored)[intact.real]
            assert float((swept[intact.real] - expected).abs().max()) <= 1e-10, interventions[index]
            changed += float((expected - intact.logits[intact.real]).abs().max()) > 1e-3
    assert sorted(seen) == list(range(len(interventions)))
    assert changed > len(interventions) // 2


def test_a_shipped_model_agrees_in_float64():
    ours = in_float64(load_pretrained("sort", 0))
    task = get("sort")()
    these = cut(longest_first(task.items(32)))
    intact = trace(Weights.of(ours), these)
    other = trace(intact.weights, these.take(np.roll(np.arange(32), 1)))
    parts = ["L0.H0", "L0.H1.OV", "L0.mlp", "L1.H0.QK", "L1.mlp", "embed"]
    interventions = [patches_from(other.activations, sites(part, ours.cfg)) for part in parts]
    for indices, logits in sweep(intact, interventions):
        for index, swept in zip(indices, logits, strict=True):
            expected = at(run_with_patches(ours, these, interventions[index]), intact.scored)[intact.real]
            assert float((swept[intact.real] - expected).abs().max()) <= 1e-10


@pytest.mark.parametrize("rule", ["delete", "identity", "k-dyck", "set"])
@pytest.mark.parametrize("positions", [None, [1]])
def test_rows_of_a_trained_model_round_like_its_intact_run(rule, positions):
    ours, task = load_pretrained(rule, 0), get(rule)()  # they amplify the rounding of float32 a hundredfold
    longest = longest_first(task.items(200))
    for some in (slice(32), slice(192, 200)):  # the shortest have one or two scored positions
        intact = trace(Weights.of(ours), cut(longest.take(some)))
        parts = ["L0.H0", "L0.H1.OV", "L0.mlp", "L0.ln2", "L1.H0.QK", "L1.mlp", "embed"]
        own = [patches_from(intact.activations, sites(part, ours.cfg, None), positions) for part in parts]
        swept = torch.cat([logits for _, logits in sweep(intact, own)])  # an error where a row is not the intact run
        assert float((swept - intact.logits)[:, intact.real].abs().max()) <= 1e-6 * float(intact.logits.abs().max())


@pytest.mark.parametrize("kind", GRID)
def test_the_trace_holds_the_activations_of_the_hooks(kind):
    ours, these = model(kind), items(kind)
    found = trace(Weights.of(ours), these).activations
    cache = ours.run_with_cache(inputs(these, ours.cfg), return_cache_object=False)[1]
    assert not {hook for hook in cache if not hook.endswith(("hook_scale",))} - {*found, "ln_final.hook_normalized"}
    for hook, values in found.items():
        torch.testing.assert_close(values, cache[hook], atol=1e-10, rtol=1e-10)


def test_an_untouched_row_is_held_to_the_intact_run(monkeypatch):
    intact = trace(Weights.of(model("usual")), items("usual"))
    site = Site("L0.H0", "blocks.0.attn.hook_z", 2, 0)
    patch = Patch(site, None, torch.zeros_like(site.view(intact.activations[site.hook])))
    original = sweeps.first_change

    def wrong(*args):
        change = original(*args)
        return sweeps.Change(change.residual + 0.01 * torch.ones(8).cumsum(0), change.where)

    monkeypatch.setattr(sweeps, "first_change", wrong)
    with pytest.raises(RuntimeError, match="untouched row"):
        list(sweep(intact, [[patch]]))


def test_refusals():
    intact = trace(Weights.of(model("usual")), items("usual"))
    with pytest.raises(ConfigError, match="intervention 0"):
        list(sweep(intact, [[]]))
    final = Site("ln_final", "ln_final.hook_normalized", None, None)
    with pytest.raises(ConfigError, match=r"ln_final\.hook_normalized"):
        list(sweep(intact, [[Patch(final, None, intact.activations["hook_embed"])]]))
    site = Site("L0.H0", "blocks.0.attn.hook_z", 2, 0)
    with pytest.raises(ConfigError, match=r"hook_z\[:, :, 0\]"):
        list(sweep(intact, [[Patch(site, None, torch.zeros(2, 3, 4))]]))
    with pytest.raises(ConfigError, match="positions = \\[99\\]"):
        Patch(site, [99], site.view(intact.activations[site.hook]))
