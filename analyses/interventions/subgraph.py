"""The model cut down to some of its edges: all others carry what their senders write in the corrupt run.

A receiver reads the corrupt residual stream, and along each edge that is kept the sender's present contribution in
place of its corrupt one. So with every edge kept the run is the clean one, and with none the corrupt one. This is the
resampling of everything outside a circuit at the level of edges (Wang et al. 2022; Conmy et al. 2023); zeros in its
place would change the scale of every LayerNorm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from analyses.interventions.edges import LOGITS, Edge, EdgePatcher, contributions, edges, read_by
from analyses.interventions.sweep import rows_at_once
from analyses.interventions.trace import at
from mechproc.config import nearest
from mechproc.errors import PartError


@torch.inference_mode()
def run_subgraphs(paths: EdgePatcher, kept: Sequence[Sequence[Edge]]) -> Iterator[tuple[list[int], Tensor]]:
    """The logits of the clean items when only ``kept`` edges carry them, for many sets of edges, in groups.

    Yields indices, and logits [index, item, s, d_vocab] at the scored positions. Errors: ``PartError`` for an edge that
    the model does not have.
    """
    masks = torch.stack([_mask(paths, each) for each in kept])
    per_set = 2 * max(len(paths.clean.items), 1)  # each receiver has an input of its own
    step = max(1, rows_at_once(paths.clean) // per_set)
    for start in range(0, len(kept), step):
        indices = list(range(start, min(start + step, len(kept))))
        yield indices, _Subgraphs(paths, masks[indices]).run()


def check_subgraphs(paths: EdgePatcher, tolerance: float = 1e-5) -> None:
    """Raise a ``RuntimeError`` unless all edges give the clean run, and none the corrupt one, relative to the largest
    logit (or 1)."""
    found = [one for _, logits in run_subgraphs(paths, [edges(paths.cfg), []]) for one in logits]
    for one, expected, what in zip(found, (paths.clean, paths.corrupt), ("all edges", "no edges"), strict=True):
        worst = float((one - expected.logits)[expected.real].abs().max())
        if not worst <= tolerance * max(1.0, float(expected.logits.abs().max())):
            raise RuntimeError(f"with {what} kept the logits miss those of the run by {worst}; do not trust a circuit")


def _mask(paths: EdgePatcher, kept: Sequence[Edge]) -> Tensor:
    """1 for every edge that is kept, [edge], in the order of ``edges``."""
    known = {edge: number for number, edge in enumerate(edges(paths.cfg))}
    mask = paths.clean.logits.new_zeros(len(known))
    for edge in kept:
        if edge not in known:
            name = f"{edge.sender} -> {edge.receiver}"
            raise PartError(
                f"{name!r} is no edge of this model{nearest(name, [f'{e.sender} -> {e.receiver}' for e in known])}"
            )
        mask[known[edge]] = 1
    return mask


class _Subgraphs:
    """Some sets of edges on all items, from the embeddings to the logits."""

    def __init__(self, paths: EdgePatcher, masks: Tensor) -> None:
        self.paths, self.masks, self.n = paths, masks, len(masks)
        self.corrupt, self.weights, self.cfg = paths.corrupt, paths.corrupt.weights, paths.cfg
        self.number = {edge: i for i, edge in enumerate(edges(self.cfg))}
        self.theirs = contributions(self.corrupt)
        self.deltas: dict[str, Tensor] = {}
        """What each sender writes now less what it writes in the corrupt run, [circuit, item, pos, d_model]."""
        for name in ("embed", "pos"):
            self._write(name, contributions(paths.clean)[name].expand(self.n, -1, -1, -1))

    def run(self) -> Tensor:
        """Logits [circuit, item, s, d_vocab]."""
        for layer in range(self.cfg.n_layers):
            self._attention(layer)
            if not self.cfg.attn_only:
                name = f"L{layer}.mlp"
                read = self.weights.norm(f"blocks.{layer}.ln2", self._read(name))
                post = self.weights.act(self.weights.hidden(layer, read))
                self._write(name, self.weights.mlp_out(layer, post))
        return self.weights.logits(at(self._read(LOGITS), self.corrupt.scored.expand(self.n, -1, -1)))

    def _attention(self, layer: int) -> None:
        weights, state = self.weights, self.weights.state
        name = f"blocks.{layer}.attn"
        everywhere = torch.arange(self.theirs["embed"].shape[1], device=self.masks.device)
        for head in range(self.cfg.n_heads):
            q, k, v = (
                weights.norm(f"blocks.{layer}.ln1", self._read(f"L{layer}.H{head}.{which.lower()}"))
                @ state[f"{name}.W_{which}"][head]
                + state[f"{name}.b_{which}"][head]
                for which in "QKV"
            )
            pattern = weights.scores(q[..., None, :], k[..., None, :], everywhere).softmax(-1)[..., 0, :, :]
            self._write(f"L{layer}.H{head}", pattern @ v @ state[f"{name}.W_O"][head])

    def _read(self, receiver: str) -> Tensor:
        """What a receiver reads, [circuit, item, pos, d_model]."""
        whole = self.corrupt.activations[read_by(receiver, self.cfg)].expand(self.n, -1, -1, -1)
        for sender, delta in self.deltas.items():
            edge = self.number.get(Edge(sender, receiver))
            if edge is not None and bool(self.masks[:, edge].any()):
                whole = whole + self.masks[:, edge, None, None, None] * delta
        return whole

    def _write(self, sender: str, written: Tensor) -> None:
        """Note what a sender writes now; a bias writes the same in both runs."""
        self.deltas[sender] = written - self.theirs[sender]
