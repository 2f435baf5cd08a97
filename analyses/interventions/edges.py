"""Edges of the model: from a sender, which writes into the residual stream, to a receiver, which reads it.

The residual stream is the sum of what the senders before it wrote: embeddings, positions, heads, MLPs, and the biases
``b_O`` (``b_out`` is part of what an MLP writes). An edge is replaced by putting the sender's corrupt contribution, and
nothing else, into the receiver's input: input = clean input + corrupt contribution - clean contribution. The receiver's
LayerNorm is computed anew from that; every other path into the receiver stays clean. With all edges into a receiver
its input is the corrupt one, and for the logits the corrupt run.

Receivers are the queries, keys and values of each head (``"L1.H0.q"``), the MLPs (``"L1.mlp"``) and ``"logits"``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.patch import Patch, Positions
from analyses.interventions.trace import Trace, at
from mechproc.config import nearest
from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Site

LOGITS = "logits"


@dataclasses.dataclass(frozen=True)
class Edge:
    """A path of one step: what ``sender`` writes, as ``receiver`` reads it."""

    sender: str
    receiver: str


def senders(cfg: ModelConfig, receiver: str = LOGITS) -> list[str]:
    """What writes into the residual stream before ``receiver`` reads it, in the order of the forward pass.

    Errors: ``PartError`` for a receiver that does not exist.
    """
    layer, module = place_of(receiver, cfg)
    names = ["embed", "pos"]
    for earlier in range(min(layer + 1, cfg.n_layers)):
        if earlier < layer or module == "mlp":
            names += [f"L{earlier}.H{head}" for head in range(cfg.n_heads)] + [f"L{earlier}.b_O"]
        if earlier < layer and not cfg.attn_only:
            names.append(f"L{earlier}.mlp")
    return names


def receivers(cfg: ModelConfig) -> list[str]:
    """What reads the residual stream, in the order of the forward pass."""
    names = []
    for layer in range(cfg.n_layers):
        names += [f"L{layer}.H{head}.{which}" for head in range(cfg.n_heads) for which in "qkv"]
        names += [] if cfg.attn_only else [f"L{layer}.mlp"]
    return [*names, LOGITS]


def edges(cfg: ModelConfig) -> list[Edge]:
    """Every edge of the model."""
    return [Edge(sender, receiver) for receiver in receivers(cfg) for sender in senders(cfg, receiver)]


def read_by(receiver: str, cfg: ModelConfig) -> str:
    """The hook of the residual stream that a receiver reads."""
    layer, module = place_of(receiver, cfg)
    if receiver == LOGITS:
        return f"blocks.{cfg.n_layers - 1}.hook_resid_post"
    return f"blocks.{layer}.hook_resid_{'mid' if module == 'mlp' else 'pre'}"


def contributions(run: Trace) -> dict[str, Tensor]:
    """What each sender wrote into the residual stream, [item, pos, d_model]."""
    cfg, state, activations = run.cfg, run.weights.state, run.activations
    written = {"embed": activations["hook_embed"], "pos": activations["hook_pos_embed"]}
    for layer in range(cfg.n_layers):
        z, w_o = activations[f"blocks.{layer}.attn.hook_z"], state[f"blocks.{layer}.attn.W_O"]
        written |= {f"L{layer}.H{head}": z[:, :, head] @ w_o[head] for head in range(cfg.n_heads)}
        written[f"L{layer}.b_O"] = state[f"blocks.{layer}.attn.b_O"].expand_as(activations["hook_embed"])
        if not cfg.attn_only:
            written[f"L{layer}.mlp"] = activations[f"blocks.{layer}.hook_mlp_out"]
    return written


class EdgePatcher:
    """Edges between a clean and a corrupt run over pairs of items of equal layout.

    What a receiver computes from a changed input is a ``Patch``, which ``sweep`` or ``run_with_patches`` carries on to
    the logits with everything after the receiver computed anew; for the receiver ``logits`` it is the logits.
    """

    def __init__(self, clean: Trace, corrupt: Trace) -> None:
        ours, theirs = (run.activations["hook_embed"].shape for run in (clean, corrupt))
        require(ours == theirs, "corrupt", list(theirs), f"{list(ours)}, the shape of the clean run")
        same = torch.equal(clean.scored, corrupt.scored)
        require(same, "corrupt", "other scored positions", "those of the clean run")
        self.clean, self.corrupt, self.cfg = clean, corrupt, clean.cfg
        before, after = contributions(clean), contributions(corrupt)
        self.differences = {name: after[name] - before[name] for name in before}

    def difference(self, sent: Sequence[str]) -> Tensor:
        """What the contributions of ``sent`` are together in the corrupt run, less those in the clean one,
        [item, pos, d_model]."""
        return torch.stack([self.differences[sender] for sender in sent]).sum(0)

    def input_of(self, receiver: str, sent: Sequence[str], positions: Positions = None) -> Tensor:
        """The residual stream that the receiver reads, with the contributions of ``sent`` replaced at ``positions``.

        [item, pos, d_model]. Errors: ``PartError`` for a sender that does not come before the receiver.
        """
        known = senders(self.cfg, receiver)
        for sender in sent:
            if sender not in known:
                raise PartError(f"{sender!r} does not write before {receiver!r} reads{nearest(sender, known)}")
        require(len(set(sent)) == len(sent) > 0, "senders", list(sent), "at least one, each once")
        difference = self.difference(sent)
        if positions is not None:
            places = np.broadcast_to(np.asarray(positions), (len(difference), np.asarray(positions).shape[-1]))
            mask = torch.zeros(difference.shape[:2], dtype=difference.dtype, device=difference.device)
            mask.scatter_(1, torch.from_numpy(places.copy()).to(mask.device), 1.0)
            difference = difference * mask[..., None]
        return self.clean.activations[read_by(receiver, self.cfg)] + difference

    def patch(self, receiver: str, sent: Sequence[str], positions: Positions = None) -> Patch:
        """What the receiver computes when it reads the contributions of ``sent`` from the corrupt run.

        ``positions`` are those of the residual stream that is read. Not for ``logits``, which ``logits`` gives.
        """
        require(receiver != LOGITS, "receiver", receiver, "a head's q, k or v, or an MLP; logits() gives the logits")
        weights, (layer, module) = self.clean.weights, place_of(receiver, self.cfg)
        residual = self.input_of(receiver, sent, positions)
        if module == "mlp":
            post = weights.act(weights.hidden(layer, weights.norm(f"blocks.{layer}.ln2", residual)))
            out = weights.mlp_out(layer, post)
            return Patch(Site(receiver, f"blocks.{layer}.hook_mlp_out", None, None), None, out)
        head, which = int(module[1:]), receiver[-1]
        read = weights.norm(f"blocks.{layer}.ln1", residual)
        matrix, bias = (weights.state[f"blocks.{layer}.attn.{kind}_{which.upper()}"][head] for kind in "Wb")
        return Patch(Site(receiver, f"blocks.{layer}.attn.hook_{which}", 2, head), None, read @ matrix + bias)

    def logits(self, sent: Sequence[str], positions: Positions = None) -> Tensor:
        """Logits [item, s, d_vocab] at the scored positions when they read the contributions of ``sent`` corrupt."""
        residual = self.input_of(LOGITS, sent, positions)
        return self.clean.weights.logits(at(residual, self.clean.scored))

    def check(self, tolerance: float = 1e-5) -> None:
        """Raise a ``RuntimeError`` unless all edges into each receiver give it its corrupt input.

        ``tolerance`` is relative to the largest number of the residual stream (or 1).
        """
        for receiver in receivers(self.cfg):
            module = place_of(receiver, self.cfg)[1]
            if module.startswith("H") and not receiver.endswith("H0.q"):
                continue  # all heads of a layer read the same residual stream
            whole = self.input_of(receiver, senders(self.cfg, receiver))
            expected = self.corrupt.activations[read_by(receiver, self.cfg)]
            worst = float((whole - expected).abs().max())
            if not worst <= tolerance * max(1.0, float(expected.abs().max())):
                raise RuntimeError(f"all edges into {receiver} miss its corrupt input by {worst}; do not trust an edge")


def place_of(receiver: str, cfg: ModelConfig) -> tuple[int, str]:
    """The layer of a receiver and ``"mlp"``, a head such as ``"H2"``, or ``""`` for the logits, behind the last layer.

    Errors: ``PartError`` for a receiver that does not exist.
    """
    known = receivers(cfg)
    if receiver not in known:
        raise PartError(f"{receiver!r} is not a receiver of this model{nearest(receiver, known)}")
    if receiver == LOGITS:
        return cfg.n_layers, ""
    layer, module = receiver.split(".")[:2]
    return int(layer[1:]), module
