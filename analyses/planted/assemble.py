"""From a design to weights.

Parts are set in the order of the forward pass. What a part reads is multiplied by sqrt(variance) as measured at its
LayerNorm, once everything before it is in place, so that it reads the residual stream in the design's own units. All
other heads and MLPs become distractors with the norms of the parts that do something.
"""

from __future__ import annotations

import numpy as np
import torch

from analyses.interventions.trace import Weights
from analyses.planted.design import Design, HeadPlan, Loud, MLPPlan
from analyses.planted.distract import HEAD, MLP, Norms, fine_writer, head_norms, mlp_norms, random_of_norm
from analyses.planted.roles import Role
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.forward import ACTIVATIONS
from mechproc.model.parts import components
from mechproc.model.state import State, tensor_shapes
from mechproc.procedures.base import Items

SAMPLE_ITEMS = 512
"""Training items on which scales are measured and MLPs are fitted."""
NORM_ITEMS = 128
"""As many of them are enough for the norms of weights."""


def assemble(
    design: Design, cfg: ModelConfig, rng: np.random.Generator, kinds: dict[str, Role], sample: Items
) -> State:
    """The weights of a design, float64, before its symmetries are used (``analyses.planted.symmetries``).

    ``kinds`` says for each head and MLP without a plan, and each loud one, which of the two inert roles it gets. It is
    built twice: the norms of the first time are those of the distractors of the second.
    """
    seeds = rng.spawn(2)
    few = sample.take(slice(NORM_ITEMS))
    norms = _Assembly(design, cfg, seeds[0], kinds, few, {"head": [], "mlp": []}).norms()
    return _Assembly(design, cfg, seeds[1], kinds, sample, norms).state()


class _Assembly:
    def __init__(
        self,
        design: Design,
        cfg: ModelConfig,
        rng: np.random.Generator,
        kinds: dict[str, Role],
        sample: Items,
        references: Norms,
    ) -> None:
        self.design, self.cfg, self.rng, self.kinds = design, cfg, rng, kinds
        self.sample, self.references = sample, references
        self.inside = np.arange(sample.tokens.shape[1] - 1) < sample.n_tokens[:, None] - 1
        """bool [item, pos]: where an item has a token that is read."""
        self.weights = {name: np.zeros(shape) for name, shape in tensor_shapes(cfg).items()}
        for name, tensor in self.weights.items():
            if name.endswith(".w"):
                tensor[:] = 1.0
        self.weights["embed.W_E"][:] = design.embed
        self.weights["pos_embed.W_pos"][:] = design.positions
        residual = torch.from_numpy(design.embed[sample.tokens[:, :-1]] + design.positions[: self.inside.shape[1]])
        for layer in range(cfg.n_layers):
            parts = [part for part in components(cfg) if part.startswith(f"L{layer}.")]
            self.scale, self.read = self._measured(residual)
            for part in parts[:-1]:
                self._head(part)
            residual = residual + Weights.from_state(cfg, self.state()).attended(layer, residual)
            self.scale, self.read = self._measured(residual)
            self._mlp(parts[-1])
            residual = residual + Weights.from_state(cfg, self.state()).mlp(layer, residual)
        self.scale, _ = self._measured(residual)
        self.weights["unembed.W_U"][:] = self.scale * design.unembed.T

    def state(self) -> State:
        return {name: torch.from_numpy(tensor) for name, tensor in self.weights.items()}

    def norms(self) -> Norms:
        """The norms of the parts with a plan of their own."""
        found: Norms = {"head": [], "mlp": []}
        for part, plan in self.design.plans.items():
            if not isinstance(plan, Loud):
                kind = "head" if isinstance(plan, HeadPlan) else "mlp"
                found[kind].append({name: float(np.linalg.norm(view)) for name, view in self._views(part).items()})
        return found

    def _views(self, part: str) -> dict[str, np.ndarray]:
        """The tensors of a head or MLP, to be written to."""
        layer, _, name = part[1:].partition(".")
        if name == "mlp":
            return {tensor: self.weights[f"blocks.{layer}.mlp.{tensor}"] for tensor in MLP}
        return {tensor: self.weights[f"blocks.{layer}.attn.{tensor}"][int(name[1:])] for tensor in HEAD}

    def _measured(self, residual: torch.Tensor) -> tuple[float, np.ndarray]:
        """The mean sqrt(variance) of the residual stream where it is read, and what a LayerNorm makes of it,
        [row, d_model]."""
        read = residual.numpy()[self.inside]
        scale = np.sqrt(read.var(-1, keepdims=True) + self.cfg.eps)
        return float(scale.mean()), (read - read.mean(-1, keepdims=True)) / scale

    def _head(self, part: str) -> None:
        plan, views = self.design.plans.get(part), self._views(part)
        if not isinstance(plan, HeadPlan):
            self._distract(part, views, head_norms(self.references, self.cfg, self.rng))
            views["W_O"][:] = self._written(part, views["W_O"])
            if isinstance(plan, Loud):
                views["W_O"][:] *= plan.times
                # attention weights add up to 1, so that all of b_V is written whatever the pattern
                views["b_V"][:] *= plan.steady / max(float(np.linalg.norm(views["b_V"] @ views["W_O"])), 1e-12)
            return
        width, rank = len(views["b_Q"]), sum(len(channel.keys) for channel in plan.channels)
        for needed in (rank, len(plan.reads)):
            require(needed <= width, "d_head", width, f"at least {needed}, the rank of {part}")
        root = width**0.25  # undoes the softmax's division by sqrt(d_head)
        views["W_Q"][:, :rank] = self.scale * root * np.concatenate([c.queries for c in plan.channels]).T
        views["W_K"][:, :rank] = self.scale * root * np.concatenate([c.keys for c in plan.channels]).T
        views["W_V"][:, : len(plan.reads)] = self.scale * plan.reads.T
        views["W_O"][: len(plan.reads)] = plan.writes

    def _mlp(self, part: str) -> None:
        plan, views = self.design.plans.get(part), self._views(part)
        if not isinstance(plan, MLPPlan):
            norms = mlp_norms(self.references, self.cfg, self.rng)
            self._distract(part, views, norms)
            hidden = self._hidden(views, self.read)
            views["W_out"][:] = fine_writer(hidden, self._written(part, views["W_out"]), norms["W_out"])
            constant = self._written(part, self.rng.normal(size=(1, self.cfg.d_model)))[0]
            steady = 0.0
            if isinstance(plan, Loud):
                views["W_out"][:] *= plan.times
                steady = plan.steady / float(np.linalg.norm(constant))
            views["b_out"][:] = steady * constant - hidden.mean(0) @ views["W_out"]
            return
        n_neurons, n_read = len(views["b_in"]), len(plan.reads)
        views["W_in"][:] = self.scale * plan.reads.T @ self.rng.normal(size=(n_read, n_neurons))
        views["b_in"][:] = self.rng.normal(size=n_neurons)
        targets = plan.targets(self.sample)[:, :-1][self.inside]
        wanted = ~np.isnan(targets).any(-1)
        hidden = self._hidden(views, self.read[wanted])
        views["W_out"][:], views["b_out"][:] = _ridge(hidden, targets[wanted], plan.ridge)

    def _hidden(self, views: dict[str, np.ndarray], read: np.ndarray) -> np.ndarray:
        """Activations of an MLP's neurons, [row, neuron]."""
        return ACTIVATIONS[self.cfg.act_fn](torch.from_numpy(read @ views["W_in"] + views["b_in"])).numpy()

    def _distract(self, part: str, views: dict[str, np.ndarray], norms: dict[str, float]) -> None:
        """Random weights of these norms. What they read is what varies: the mean of their input is projected out."""
        constant = self.read.mean(0) / np.linalg.norm(self.read.mean(0))
        for name, view in views.items():
            view[:] = random_of_norm(view.shape, norms[name], self.rng, constant if name in READS else None)

    def _written(self, part: str, writer: np.ndarray) -> np.ndarray:
        """A writing matrix [*, d_model] turned to where the part's role lets it write, of the same norm."""
        axes = self.design.axes.ones[None] if self.kinds[part] is Role.INERT_EXACT else self.design.axes.free
        require(len(axes) > 0, "distractors", "junk", f"'ones': at width {self.cfg.d_model} every axis is read")
        turned = writer @ axes.T @ axes
        return turned * np.linalg.norm(writer) / max(float(np.linalg.norm(turned)), 1e-12)


READS = ("W_Q", "W_K", "W_V", "W_in")


def _ridge(hidden: np.ndarray, targets: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights [neuron, d_model] and bias [d_model] of the ridge regression of ``targets`` on ``hidden``."""
    mean, goal = hidden.mean(0), targets.mean(0)
    centred = hidden - mean
    gram = centred.T @ centred
    penalty = ridge * np.trace(gram) / len(gram)
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), centred.T @ (targets - goal))
    return weights, goal - mean @ weights
