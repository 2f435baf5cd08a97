"""Edges against a slow replica on the hooked model, which reads a changed residual stream through split inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.interventions.edges import Edge, EdgePatcher, edges, receivers, senders
from analyses.interventions.items import Pairs
from analyses.interventions.patch import run_with_patches
from analyses.interventions.sweep import sweep
from analyses.interventions.trace import Weights, at, trace
from mechproc.errors import ConfigError, PartError
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items

from .grid import GRID, TASK, model, pairs
from .replica import Replica


def patcher(ours: HookedTransformer, clean: Items, corrupt: Items) -> EdgePatcher:
    weights = Weights.of(ours)
    return EdgePatcher(trace(weights, clean), trace(weights, corrupt))


@pytest.mark.parametrize("kind", GRID)
@torch.inference_mode()
def test_every_edge_agrees_with_the_replica(kind):
    ours, (clean, corrupt) = model(kind), pairs(kind)
    paths = patcher(ours, clean, corrupt)
    paths.check(tolerance=1e-12)
    every = edges(ours.cfg)
    into_parts = [edge for edge in every if edge.receiver != "logits"]
    found = {edge: paths.logits([edge.sender]) for edge in every if edge.receiver == "logits"}
    interventions = [[paths.patch(edge.receiver, [edge.sender])] for edge in into_parts]
    for indices, logits in sweep(paths.clean, interventions):
        found |= {into_parts[index]: one for index, one in zip(indices, logits, strict=True)}
    replica, real, moved = Replica(ours, clean, corrupt), paths.clean.real, 0
    for edge in every:
        expected = at(replica(edge), paths.clean.scored)
        torch.testing.assert_close(found[edge][real], expected[real], atol=1e-10, rtol=0)
        moved += not torch.allclose(expected[real], paths.clean.logits[real], atol=1e-6)
    assert moved > 0


@pytest.mark.parametrize("kind", GRID)
@torch.inference_mode()
def test_all_edges_together_are_the_corrupt_run(kind):
    ours, (clean, corrupt) = model(kind), pairs(kind)
    paths = patcher(ours, clean, corrupt)
    for receiver in receivers(ours.cfg):
        every = senders(ours.cfg, receiver)
        if receiver == "logits":
            torch.testing.assert_close(paths.logits(every), paths.corrupt.logits, atol=1e-10, rtol=0)
            continue
        patch = paths.patch(receiver, every)
        theirs = patch.site.view(paths.corrupt.activations[patch.site.hook])
        torch.testing.assert_close(patch.values, theirs, atol=1e-10, rtol=0)


@torch.inference_mode()
def test_positions_limit_what_is_replaced():
    ours, (clean, corrupt) = model("usual"), pairs("usual")
    paths = patcher(ours, clean, corrupt)
    residual = paths.input_of("L1.mlp", ["embed", "L0.H1"], positions=[1, 3])
    changed = (residual != paths.clean.activations["blocks.1.hook_resid_mid"]).any(-1)
    assert changed.any() and not changed[:, [0, 2, *range(4, changed.shape[1])]].any()
    whole = paths.input_of("L1.mlp", ["embed", "L0.H1"])
    torch.testing.assert_close(residual[:, 3], whole[:, 3])


def test_names_of_a_small_model():
    cfg = model("one layer").cfg
    assert receivers(cfg) == ["L0.H0.q", "L0.H0.k", "L0.H0.v", "L0.H1.q", "L0.H1.k", "L0.H1.v", "L0.mlp", "logits"]
    assert senders(cfg, "L0.H1.k") == ["embed", "pos"]
    assert senders(cfg, "L0.mlp") == ["embed", "pos", "L0.H0", "L0.H1", "L0.b_O"]
    assert senders(cfg) == ["embed", "pos", "L0.H0", "L0.H1", "L0.b_O", "L0.mlp"]
    assert len(edges(cfg)) == 6 * 2 + 5 + 6


def test_refusals():
    clean, corrupt = pairs("usual")
    paths = patcher(model("usual"), clean, corrupt)
    with pytest.raises(PartError, match=r"'L1\.H0'"):
        paths.patch("L1.H1.q", ["L1.H0"])
    with pytest.raises(PartError, match=r"'L9\.mlp'"):
        senders(paths.cfg, "L9.mlp")
    with pytest.raises(ConfigError, match="receiver = 'logits'"):
        paths.patch("logits", ["embed"])
    with pytest.raises(ConfigError, match="senders"):
        paths.patch("L1.mlp", [])
    with pytest.raises(ConfigError, match="corrupt"):
        patcher(model("usual"), clean, corrupt.take(slice(3)))


def test_a_part_that_is_left_out_is_noticed():
    clean, corrupt = pairs("usual")
    paths = patcher(model("usual"), clean, corrupt)
    paths.differences["L0.H1"] = 0 * paths.differences["L0.H1"]
    with pytest.raises(RuntimeError, match="all edges into"):
        paths.check()


def test_pairs_of_unequal_layout_are_refused():
    these = TASK.items(40)
    order = np.argsort(these.n_tokens, kind="stable")
    with pytest.raises(ConfigError, match="pair 0"):
        Pairs(these.take(order), these.take(order[::-1]))


def test_patches_of_edges_work_on_the_hooked_model():
    ours, (clean, corrupt) = model("usual"), pairs("usual")
    paths = patcher(ours, clean, corrupt)
    edge = Edge("embed", "L1.H0.v")
    logits = run_with_patches(ours, clean, [paths.patch(edge.receiver, [edge.sender])])
    torch.testing.assert_close(logits, Replica(ours, clean, corrupt)(edge), atol=1e-10, rtol=0)
