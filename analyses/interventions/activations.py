"""Activations of a model over many items: recorded, averaged by layout, and the gradient of a metric at them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.items import Layout, cut, inputs, layouts, order_of_length
from analyses.interventions.metrics import Metric, metric_of, scored_tokens
from analyses.interventions.patch import position_axis, run_with_activations
from analyses.interventions.trace import Weights, behind_queries, trace
from analyses.models import batches, batches_of
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items

Activations = dict[str, Tensor]
"""Activations by hook, each [item, ...]."""


def record(model: HookedTransformer, items: Items, hooks: Sequence[str]) -> Activations:
    """The activations of ``hooks`` over all items, [item, pos, ...], from the hooked model."""
    parts = [run_with_activations(model, items.take(batch), hooks)[1] for batch in batches_of(items)]
    return {hook: torch.cat([part[hook] for part in parts]) for hook in hooks}


@torch.inference_mode()
def means(weights: Weights, reference: Items, number_of: Mapping[Layout, int], hooks: Sequence[str]) -> Activations:
    """The mean of each activation at each position over the reference items of each layout: [layout, ...].

    ``number_of`` numbers the layouts that are wanted from 0 on; the means of one without reference items are NaN. Sums
    are float64. Positions are those up to the last that is scored. Where only the scored positions of an activation
    reach a scored logit (``behind_queries``), the means at the others are 0.
    """
    groups = np.array([number_of.get(layout, -1) for layout in layouts(reference)])
    reference, groups = reference.take(np.flatnonzero(groups >= 0)), groups[groups >= 0]
    by_layout = np.argsort(groups, kind="stable")
    # the longest first, so that the first batch is the widest; the items of a layout one after another
    order = by_layout[order_of_length(reference.take(by_layout))]
    reference, groups = reference.take(order), groups[order]
    weight = weights.state["embed.W_E"]
    counts = torch.from_numpy(np.bincount(groups, minlength=len(number_of))).to(weight.device)
    sums: Activations = {}
    for batch in batches(len(reference)):
        run = trace(weights, cut(reference.take(batch)), last_at_scored=True)
        width = run.activations["hook_embed"].shape[1]
        # the items of a layout are scored at the same positions
        runs = [(*each, run.real[each[1]], run.scored[each[1]]) for each in _runs(groups[batch])]
        for hook in hooks:
            activation, axis = run.activation(hook), position_axis(hook)
            if hook not in sums:
                shape = [len(number_of), *activation.shape[1:]]
                shape[axis] = width
                sums[hook] = activation.new_zeros(shape, dtype=torch.float64)
            at_scored = behind_queries(hook, weights.cfg)
            for number, first, end, real, scored in runs:
                total = activation[first:end].sum(0, dtype=torch.float64)
                if at_scored:
                    total = total.movedim(axis - 1, 0)[real]
                    into = sums[hook][number].movedim(axis - 1, 0)[(slice(None), *map(slice, total.shape[1:]))]
                    into[scored[real]] += total
                else:
                    sums[hook][(number, *map(slice, total.shape))] += total
    return {hook: (s / counts.view(-1, *[1] * (s.ndim - 1))).to(weight.dtype) for hook, s in sums.items()}


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Each run of equal numbers: the number, where the run begins and where it ends."""
    edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for first, end in itertools.pairwise(edges):
        yield int(numbers[first]), first, end


def gradients(
    model: HookedTransformer,
    items: Items,
    hooks: Sequence[str],
    metric: str | Metric = "loss",
    foils: Items | None = None,
    *,
    answers: Items | None = None,
    embeddings: Tensor | None = None,
) -> Activations:
    """The gradient of each item's mean score at the activations of ``hooks``: [item, pos, ...].

    ``foils``: the corrupt partners, for ``logit_diff``; ``answers``: whose next tokens are the right ones, by default
    those of ``items``; ``embeddings`` [item, pos, d_model]: what is read instead of the token embeddings. Units are
    those of the metric for each unit of activation.
    """
    measured, found = metric_of(metric), {hook: [] for hook in hooks}
    cells, answers = model.cfg.input == "vectors", items if answers is None else answers
    for batch in batches_of(items):
        part, other = items.take(batch), None if foils is None else foils.take(batch)
        tokens = scored_tokens(answers.take(batch), model.cfg.device, other, cells)
        kept: Activations = {}
        embedded = None if embeddings is None else embeddings[batch]

        def keep(activation: Tensor, hook: Any, kept: Activations = kept) -> Tensor:
            activation = activation if activation.requires_grad else activation.detach().requires_grad_()
            activation.retain_grad()
            kept[hook.name] = activation
            return activation

        def replace(activation: Tensor, hook: Any, embedded: Tensor | None = embedded) -> Tensor:
            return activation if embedded is None else embedded.to(activation).requires_grad_()

        with torch.enable_grad():
            wanted_hooks: list[Any] = [] if embedded is None else [("hook_embed", replace)]
            wanted_hooks += [(hook, keep) for hook in hooks]
            logits = model.run_with_hooks(inputs(part, model.cfg), fwd_hooks=wanted_hooks)
            scores: Any = measured.function(logits[tokens.item, tokens.position].double(), tokens)
            require_slope(scores, measured)
            counts = torch.bincount(tokens.item, minlength=len(part))
            wanted = [kept[hook] for hook in hooks]
            found_here = torch.autograd.grad((scores / counts[tokens.item]).sum(), wanted)
        for hook, gradient in zip(hooks, found_here, strict=True):
            found[hook].append(gradient.detach())
    return {hook: torch.cat(pieces) for hook, pieces in found.items()}


def require_slope(scores: Tensor, metric: Metric) -> None:
    """Raise a ``ConfigError`` unless the scores have a gradient."""
    require(scores.requires_grad, "metric", metric.name, "one with a gradient, such as 'loss' or 'logit_diff'")


def narrow(activations: Tensor, like: Tensor) -> Tensor:
    """A view of ``activations`` with as many positions as ``like`` has; the first axis stays."""
    return activations[(slice(None), *(slice(n) for n in like.shape[1:]))]
