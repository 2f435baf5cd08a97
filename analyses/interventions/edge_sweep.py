"""Many sets of edges at once: what each receiver computes from its changed input, and the logits that follow.

Queries, keys and values of all heads of a layer read one residual stream, so that a set of senders is normalised once
for all of them; a head whose input changed is followed through its own attention alone, and in the last layer at the
scored positions alone. From there ``sweep`` carries the change to the logits. ``run_with_edges`` does the same for some
edges on the hooked model, and is the reference.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from analyses.interventions.edges import LOGITS, EdgePatcher, place_of, read_by, receivers, senders
from analyses.interventions.items import inputs
from analyses.interventions.patch import Patch, Positions
from analyses.interventions.sweep import TOLERANCE, rows_at_once, sweep
from analyses.interventions.trace import Trace, Weights, at, trace
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Items


@dataclasses.dataclass(frozen=True)
class EdgeSet:
    """Edges into one receiver that are replaced together."""

    receiver: str
    senders: tuple[str, ...]


@torch.inference_mode()
def sweep_edges(
    paths: EdgePatcher, sets: Sequence[EdgeSet], positions: Positions = None
) -> Iterator[tuple[list[int], Tensor]]:
    """The logits with each set of edges replaced, in groups: indices, and logits [index, item, s, d_vocab].

    Senders that write the same in both runs, as positions and biases do, change nothing: their rows are the clean
    run's and are not computed. ``positions`` are those of the residual stream that is read.
    Errors: those of ``EdgePatcher.input_of`` and of ``sweep``.
    """
    changing = {name for name, difference in paths.differences.items() if bool((difference != 0).any())}
    idle, into_logits, inside = [], [], []
    for index, edges in enumerate(sets):
        if not changing & set(edges.senders):
            paths.input_of(edges.receiver, edges.senders[:1])  # which refuses what is no edge
            idle.append(index)
        else:
            (into_logits if edges.receiver == LOGITS else inside).append(index)
    if idle:
        yield idle, paths.clean.logits.expand(len(idle), *paths.clean.logits.shape)
    step = max(1, rows_at_once(paths.clean) // max(len(paths.clean.items), 1))
    for start in range(0, len(into_logits), step):
        chunk = into_logits[start : start + step]
        yield chunk, torch.stack([paths.logits(sets[index].senders, positions) for index in chunk])
    patches = _patches(paths, [sets[index] for index in inside], positions)
    for indices, logits in sweep(paths.clean, [[patch] for patch in patches]):
        yield [inside[index] for index in indices], logits


def _patches(paths: EdgePatcher, sets: Sequence[EdgeSet], positions: Positions) -> list[Patch]:
    """For each set, what its receiver then writes: a head's z, or an MLP's output."""
    groups: dict[tuple[int, bool, tuple[str, ...]], list[int]] = {}
    for index, edges in enumerate(sets):
        layer, module = place_of(edges.receiver, paths.cfg)
        groups.setdefault((layer, module == "mlp", edges.senders), []).append(index)
    found: dict[int, Patch] = {}
    for (layer, is_mlp, sent), members in groups.items():
        if is_mlp:
            found |= {index: paths.patch(sets[index].receiver, sent, positions) for index in members}
            continue
        residual = paths.input_of(sets[members[0]].receiver, sent, positions)
        read = paths.clean.weights.norm(f"blocks.{layer}.ln1", residual)
        for which in "qkv":
            of_kind = [index for index in members if sets[index].receiver.endswith(which)]
            heads = [int(place_of(sets[index].receiver, paths.cfg)[1][1:]) for index in of_kind]
            if not heads:
                continue
            z = _z(paths.clean, layer, which, heads, paths.clean.weights.heads(layer, which, read)[:, :, heads])
            site = f"blocks.{layer}.attn.hook_z"
            for row, (index, head) in enumerate(zip(of_kind, heads, strict=True)):
                found[index] = Patch(Site(sets[index].receiver, site, 2, head), None, z[:, :, row])
    return [found[index] for index in range(len(sets))]


def _z(clean: Trace, layer: int, which: str, heads: list[int], new: Tensor) -> Tensor:
    """z [item, pos, head, d_head] of ``heads`` with new queries, keys or values; the clean one where it is not needed:
    in the last layer, everywhere but at the scored positions."""
    name, weights = f"blocks.{layer}.attn.hook_", clean.weights
    q, k, v, z = (clean.activations[f"{name}{leaf}"][:, :, heads] for leaf in ("q", "k", "v", "z"))
    q, k, v = (new if which == leaf else x for leaf, x in (("q", q), ("k", k), ("v", v)))
    last = layer == clean.cfg.n_layers - 1
    rows = torch.arange(len(z), device=z.device)[:, None]
    queries = clean.scored if last else torch.arange(z.shape[1], device=z.device).expand(len(z), -1)
    if which == "v":
        pattern = clean.activations[f"{name}pattern"][:, heads].transpose(1, 2)[rows, queries].transpose(1, 2)
    else:
        pattern = weights.scores(q[rows, queries], k, queries).softmax(-1)
    computed = (pattern @ v.transpose(1, 2)).transpose(1, 2)
    if not last:
        return computed
    whole = z.clone()
    whole[rows, queries] = computed
    return whole


@torch.inference_mode()
def run_with_edges(model: HookedTransformer, items: Items, differences: Mapping[str, Tensor]) -> Tensor:
    """Logits [item, pos, d_vocab] of the hooked model when a difference [item, pos, d_model] is added to what each of
    some receivers reads, and to nothing else. ``model`` reads through split inputs, as ``split`` gives it."""
    hooks: list[tuple[Any, Any]] = []
    for receiver, difference in differences.items():
        layer, module = place_of(receiver, model.cfg)
        name, head = read_by(receiver, model.cfg), None
        if receiver != LOGITS:
            head = None if module == "mlp" else int(module[1:])
            name = f"blocks.{layer}.hook_{'mlp_in' if head is None else receiver[-1] + '_input'}"
        hooks.append((name, functools.partial(_add, difference=difference, head=head)))
    return model.run_with_hooks(inputs(items, model.cfg), fwd_hooks=hooks)


def _add(residual: Tensor, hook: Any, difference: Tensor, head: int | None) -> Tensor:
    residual = residual.clone()
    (residual if head is None else residual[:, :, head]).add_(difference)
    return residual


def split(model: HookedTransformer) -> HookedTransformer:
    """A copy whose queries, keys, values and MLPs each read a copy of the residual stream of their own."""
    copy = HookedTransformer(model.cfg, model.state(), device=model.cfg.device)
    copy.set_use_split_qkv_input(True)
    copy.set_use_hook_mlp_in(not model.cfg.attn_only)
    return copy


@torch.inference_mode()
def check_edges(model: HookedTransformer, clean: Items, corrupt: Items, tolerance: float = TOLERANCE) -> None:
    """Raise a ``RuntimeError`` unless edges do what they should, on the model and the pairs at hand.

    - On the hooked model, adding to what each receiver reads the clean contributions less themselves changes the logits
      by exactly 0;
    - all edges into each receiver give it its corrupt input, and all into the logits the corrupt run's logits;
    - with all edges into a receiver (the first head's, for heads) the sweep agrees with the hooked model.

    ``tolerance`` is relative to the largest number compared (or 1): sums of contributions are rounded otherwise than
    the residual stream of the forward pass.
    """
    weights, whole = Weights.of(model), split(model)
    paths = EdgePatcher(trace(weights, clean), trace(weights, corrupt))
    paths.check(tolerance)
    own = EdgePatcher(paths.clean, paths.clean)
    sets = [EdgeSet(name, tuple(senders(model.cfg, name))) for name in receivers(model.cfg)]
    no_ops = {edges.receiver: own.difference(edges.senders) for edges in sets}
    if not torch.equal(run_with_edges(whole, clean, no_ops), run_with_edges(whole, clean, {})):
        raise RuntimeError("edges replaced by themselves changed the logits; do not trust an edge")
    sets = [edges for edges in sets if ".H" not in edges.receiver or ".H0." in edges.receiver]
    swept = {
        sets[i].receiver: one for indices, x in sweep_edges(paths, sets) for i, one in zip(indices, x, strict=True)
    }
    scored, real = paths.clean.scored, paths.clean.real
    for edges in sets:
        reference = at(run_with_edges(whole, clean, {edges.receiver: paths.difference(edges.senders)}), scored)
        what = f"with all edges into {edges.receiver} the sweep differs from the hooked model"
        _agree(swept[edges.receiver][real], reference[real], tolerance, what)
    _agree(swept[LOGITS][real], paths.corrupt.logits[real], tolerance, "all edges into the logits miss the corrupt run")


def _agree(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    worst = float((found - expected).abs().max())
    if not worst <= tolerance * max(1.0, float(expected.abs().max())):
        raise RuntimeError(f"{what} by {worst}; do not trust an edge")
