"""Sets of edges at once, against one hooked run for each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyses.interventions import edge_sweep
from analyses.interventions.edge_sweep import EdgeSet, check_edges, run_with_edges, split, sweep_edges
from analyses.interventions.edges import Edge, EdgePatcher, edges, senders
from analyses.interventions.trace import Weights, at, trace
from mechproc.errors import PartError

from .grid import GRID, model, pairs
from .replica import Replica


def patcher(kind: str, dtype: torch.dtype = torch.float64) -> EdgePatcher:
    weights = Weights.of(model(kind, dtype=dtype))
    return EdgePatcher(*(trace(weights, block) for block in pairs(kind)))


def swept(paths: EdgePatcher, sets: list[EdgeSet], positions: list[int] | None = None) -> list[torch.Tensor]:
    found = {
        i: x for indices, logits in sweep_edges(paths, sets, positions) for i, x in zip(indices, logits, strict=True)
    }
    assert sorted(found) == list(range(len(sets)))
    return [found[i] for i in range(len(sets))]


@pytest.mark.parametrize("kind", GRID)
@pytest.mark.parametrize("positions", [None, [0, 2, 3]])
@torch.inference_mode()
def test_every_edge_agrees_with_its_own_hooked_run(kind, positions):
    paths, replica = patcher(kind), Replica(model(kind), *pairs(kind))
    every = edges(paths.cfg)
    found = swept(paths, [EdgeSet(edge.receiver, (edge.sender,)) for edge in every], positions)
    moved, real = 0, paths.clean.real
    for edge, one in zip(every, found, strict=True):
        expected = at(replica(edge, positions), paths.clean.scored)
        torch.testing.assert_close(one[real], expected[real], atol=1e-10, rtol=0)
        moved += not torch.allclose(expected[real], paths.clean.logits[real], atol=1e-6)
    assert moved > len(every) // 8


@torch.inference_mode()
def test_float32_agrees_to_its_rounding():
    paths, replica = patcher("usual", torch.float32), Replica(model("usual", dtype=torch.float32), *pairs("usual"))
    every = edges(paths.cfg)
    for edge, one in zip(every, swept(paths, [EdgeSet(e.receiver, (e.sender,)) for e in every]), strict=True):
        expected = at(replica(edge), paths.clean.scored)
        assert float((one - expected)[paths.clean.real].abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@torch.inference_mode()
def test_several_senders_are_replaced_together():
    paths = patcher("usual")
    sent = ("embed", "L0.H1", "L0.mlp")
    names = ["L1.H1.q", "L1.H0.v", "L1.mlp", "logits"]
    for name, one in zip(names, swept(paths, [EdgeSet(name, sent) for name in names]), strict=True):
        hooked = run_with_edges(split(model("usual")), pairs("usual")[0], {name: paths.difference(sent)})
        torch.testing.assert_close(one, at(hooked, paths.clean.scored), atol=1e-10, rtol=0)
        assert not torch.allclose(one, paths.clean.logits, atol=1e-3)


@torch.inference_mode()
def test_edges_that_carry_nothing_change_nothing_at_all():
    paths = patcher("usual")
    for one in swept(paths, [EdgeSet("L1.H0.q", ("pos",)), EdgeSet("logits", ("L0.b_O", "L1.b_O", "pos"))]):
        assert torch.equal(one, paths.clean.logits)
    with pytest.raises(PartError, match=r"'L1\.H0'"):
        swept(paths, [EdgeSet("L1.mlp", ("pos",)), EdgeSet("L1.H1.q", ("L1.H0",))])


@pytest.mark.parametrize("kind", GRID)
def test_the_checks_hold(kind):
    check_edges(model(kind), *pairs(kind), tolerance=1e-12)
    check_edges(model(kind, dtype=torch.float32), *pairs(kind))


def test_the_checks_notice_a_no_op_that_is_none(monkeypatch):
    original = edge_sweep._add
    monkeypatch.setattr(
        edge_sweep, "_add", lambda x, hook, difference, head: original(x, hook, difference + 1e-7, head)
    )
    with pytest.raises(RuntimeError, match="replaced by themselves"):
        check_edges(model("usual"), *pairs("usual"))


def test_the_checks_notice_a_sweep_that_is_off(monkeypatch):
    original = edge_sweep._z
    monkeypatch.setattr(edge_sweep, "_z", lambda *args: original(*args) + 1e-3)
    with pytest.raises(RuntimeError, match=r"into L0\.H0\.q the sweep differs"):
        check_edges(model("usual"), *pairs("usual"))


def test_the_checks_notice_a_contribution_that_is_left_out(monkeypatch):
    original = EdgePatcher.__init__

    def without(self, clean, corrupt):
        original(self, clean, corrupt)
        self.differences["L0.H1"] = 0 * self.differences["L0.H1"]

    monkeypatch.setattr(EdgePatcher, "__init__", without)
    with pytest.raises(RuntimeError, match="all edges into"):
        check_edges(model("usual"), *pairs("usual"))


def test_senders_before_a_receiver_are_all_there():
    """A pair that differs everywhere: each sender but positions and biases contributes something else."""
    paths = patcher("usual")
    same = {name for name, x in paths.differences.items() if not bool((x != 0).any())}
    assert same == {"pos", "L0.b_O", "L1.b_O"}
    assert set(senders(paths.cfg)) == set(paths.differences)
    assert Edge("embed", "logits") in edges(paths.cfg) and np.all(paths.clean.real.numpy())
