"""Edges on the hooked model, slowly: a run for each, which reads a changed residual stream through split inputs."""

from __future__ import annotations

import torch

from analyses.interventions.edges import Edge
from analyses.interventions.items import inputs
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items


class Replica:
    """The same from hooks alone: logits [item, pos, d_vocab] with one edge replaced."""

    def __init__(self, ours: HookedTransformer, clean: Items, corrupt: Items) -> None:
        self.model = HookedTransformer(ours.cfg, ours.state())  # a copy, whose switches are on
        self.model.set_use_attn_result(True)
        self.model.set_use_split_qkv_input(True)
        self.model.set_use_hook_mlp_in(not ours.cfg.attn_only)
        self.inputs = inputs(clean, ours.cfg)
        self.before = self.model.run_with_cache(self.inputs, return_cache_object=False)[1]
        self.after = self.model.run_with_cache(inputs(corrupt, ours.cfg), return_cache_object=False)[1]

    def written(self, sender: str, cache: dict[str, torch.Tensor]) -> torch.Tensor:
        if sender in ("embed", "pos"):
            return cache["hook_embed" if sender == "embed" else "hook_pos_embed"]
        layer, part = sender[1:].split(".")
        if part == "b_O":
            return torch.zeros_like(cache["hook_embed"])  # the same in both runs
        name = f"blocks.{layer}"
        return (
            cache[f"{name}.hook_mlp_out"] if part == "mlp" else cache[f"{name}.attn.hook_result"][:, :, int(part[1:])]
        )

    def __call__(self, edge: Edge, positions: list[int] | None = None) -> torch.Tensor:
        difference = self.written(edge.sender, self.after) - self.written(edge.sender, self.before)
        if positions is not None:
            elsewhere = [p for p in range(difference.shape[1]) if p not in positions]
            difference[:, elsewhere] = 0
        if edge.receiver == "logits":
            name, head = f"blocks.{self.model.cfg.n_layers - 1}.hook_resid_post", None
        else:
            layer, part = edge.receiver[1:].split(".")[:2]
            head = None if part == "mlp" else int(part[1:])
            name = f"blocks.{layer}.hook_{'mlp_in' if part == 'mlp' else edge.receiver[-1] + '_input'}"

        def add(x: torch.Tensor, hook: object) -> None:
            (x if head is None else x[:, :, head]).add_(difference)

        return self.model.run_with_hooks(self.inputs, fwd_hooks=[(name, add)])
