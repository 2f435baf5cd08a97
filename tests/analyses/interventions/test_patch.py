"""Patches, activations, means and gradients on the hooked model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.interventions import patch as patches
from analyses.interventions.activations import gradients, means, record
from analyses.interventions.items import layouts, minimal_pairs
from analyses.interventions.metrics import METRICS, scored_tokens
from analyses.interventions.patch import Patch, check_full_patch, check_no_op, patches_from, run_with_patches
from analyses.interventions.trace import Weights
from mechproc.errors import ConfigError
from mechproc.model.parts import Site, components, sites

from .grid import GRID, TASK, items, model


@pytest.mark.parametrize("kind", GRID)
def test_a_no_op_changes_nothing_and_everything_gives_the_other_run(kind):
    ours, these = model(kind, dtype=torch.float32), items(kind)
    check_no_op(ours, these, {part: sites(part, ours.cfg) for part in components(ours.cfg)})
    other = these.take(np.arange(len(these))[::-1].copy())
    check_full_patch(ours, these, other)


def test_checks_notice_a_patch_that_is_off(monkeypatch):
    ours, these = model("usual"), items("usual")
    monkeypatch.setattr(patches, "_replace", lambda activation, hook, patch: patch.applied(activation) + 1e-6)
    with pytest.raises(RuntimeError, match=r"L0\.mlp"):
        check_no_op(ours, these, {"L0.mlp": sites("L0.mlp", ours.cfg)})
    with pytest.raises(RuntimeError, match="patching all embeddings"):
        check_full_patch(ours, these, these)


def test_only_the_positions_change():
    ours, these = model("usual"), items("usual")
    site = Site("L1.mlp", "blocks.1.hook_mlp_out", None, None)
    own = record(ours, these, [site.hook])[site.hook]
    logits = run_with_patches(ours, these, [Patch(site, [2], 2 * own)])
    intact = run_with_patches(ours, these, [Patch(site, None, own)])
    changed = (logits != intact).any(-1)
    assert changed[:, 2].all() and not changed[:, [0, 1, *range(3, changed.shape[1])]].any()
    later = run_with_patches(ours, these, [Patch(site, None, 2 * own), Patch(site, None, own)])
    assert torch.equal(later, intact)  # later patches go over earlier ones


def test_what_was_not_recorded_is_refused():
    with pytest.raises(ConfigError, match="hook_embed"):
        patches_from({}, [Site("embed", "hook_embed", None, None)])
    with pytest.raises(ConfigError, match="parts"):
        patches_from({}, [])


def test_means_are_taken_within_a_layout_and_position():
    ours, reference = model("usual"), TASK.items(150)
    kinds = layouts(reference)
    number_of = {layout: i for i, layout in enumerate(dict.fromkeys(kinds[:2]))}
    hooks = ["blocks.0.attn.hook_z", "blocks.1.attn.hook_pattern"]  # of the second, what is read at scored positions
    found = means(Weights.of(ours), reference, number_of, hooks)
    whole = record(ours, reference, hooks)
    for layout, number in number_of.items():
        rows = [i for i, kind in enumerate(kinds) if kind == layout]
        used = min(layout[0], found[hooks[0]].shape[1])
        expected = whole[hooks[0]][rows].mean(0)[:used]
        torch.testing.assert_close(found[hooks[0]][number, :used], expected, atol=1e-10, rtol=0)
        scored = reference.scored[rows[0]]
        expected = whole[hooks[1]][rows].mean(0)[:, :used, :used] * torch.from_numpy(scored)[:used, None]
        torch.testing.assert_close(found[hooks[1]][number, :, :used, :used], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("metric", ["loss", "logit_diff"])
def test_gradients_are_the_slope_of_the_score(metric):
    ours, pairs = model("usual"), minimal_pairs(TASK, "answer", 5)
    hooks = ["blocks.0.hook_mlp_out", "blocks.1.attn.hook_z", "hook_embed"]
    slopes = gradients(ours, pairs.clean, hooks, metric, pairs.corrupt)
    tokens = scored_tokens(pairs.clean, foils=pairs.corrupt)
    own = record(ours, pairs.clean, hooks)
    for hook in hooks:
        direction = torch.from_numpy(np.random.default_rng(0).normal(size=own[hook].shape))
        scores = []
        for step in (1e-5, -1e-5):
            patch = Patch(Site(hook, hook, None, None), None, own[hook] + step * direction)
            logits = run_with_patches(ours, pairs.clean, [patch])
            scores.append(METRICS[metric](logits[tokens.item, tokens.position], tokens))
        by_difference = (scores[0] - scores[1]) / 2e-5
        by_gradient = (slopes[hook] * direction).flatten(1).sum(1)
        assert by_gradient.abs().min() > 1e-6
        torch.testing.assert_close(by_gradient, by_difference, atol=1e-7, rtol=1e-4)
