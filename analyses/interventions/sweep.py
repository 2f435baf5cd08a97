"""Many interventions at once: interventions x items are rows of one batch, and what they leave alone is not recomputed.

An intervention first changes the residual stream somewhere (``effects``). Rows start there, from the intact run; until
the next attention they hold the patched positions alone; the last layer and the unembedding are computed at the scored
positions alone. That is exact, as what is left out reaches no scored logit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.effects import LINEAR, Change, first_change, is_unseen, stage_of
from analyses.interventions.patch import Patch, patches_from
from analyses.interventions.trace import InexactError, Trace, at
from mechproc.errors import require
from mechproc.model.parts import Site

ROWS = 256
"""Rows (interventions x items) that pass through a stage together, if items are long; more leave the cache."""
ROW_POSITIONS = 12288
"""Of short items as many rows as have this many positions together."""
TOLERANCE = 1e-6
"""How far an untouched row of a batch may be from the intact run, relative to the largest logit (or 1). Trained models
amplify the rounding of float32 a hundredfold: rows then leave the shorter ways and take the steps of the intact run,
which makes both round alike. Where that is not enough, ``in_enough_precision`` turns to float64, in which rows agree to
1e-10."""

Intervention = Sequence[Patch]
"""Patches that are made together; those on one activation in order, later ones over earlier ones."""


@torch.inference_mode()
def sweep(trace: Trace, interventions: Sequence[Intervention]) -> Iterator[tuple[list[int], Tensor]]:
    """The logits of every intervention, in groups: indices, and logits [index, item, s, d_vocab] at scored positions.

    Errors: ``ConfigError`` for an empty intervention, a hook that cannot be patched here, or values of another shape;
    ``InexactError``, a ``RuntimeError``, when an untouched row differs from the intact run.
    """
    plans: dict[tuple, list[int]] = {}
    unseen = []
    for index, patches in enumerate(interventions):
        plan = _plan(trace, index, patches)
        if is_unseen(trace, patches):
            unseen.append(index)
        else:
            plans.setdefault(plan, []).append(index)
    if unseen:
        yield unseen, trace.logits.expand(len(unseen), *trace.logits.shape)
    n_items, same_steps = len(trace.items), False
    for (stage, shortcut, *_), members in plans.items():
        step = max(1, rows_at_once(trace) // max(n_items, 1))
        for start in range(0, len(members), step):
            chunk = members[start : start + step]
            rows = [interventions[index] for index in chunk]
            if start == 0:  # the untouched row
                rows = [*rows, _untouched(trace, rows[0])]
            logits = _Rows(trace, rows, stage, same_steps).run(shortcut)
            if start == 0:
                if not same_steps and _distance(logits[-1], trace) > TOLERANCE:
                    same_steps = True  # for what is left, too: it is the model that amplifies rounding
                    logits = _Rows(trace, rows, stage, same_steps).run(shortcut)
                _check_untouched(logits[-1], trace)
                logits = logits[:-1]
            yield chunk, logits


def rows_at_once(trace: Trace) -> int:
    """How many rows pass through a stage together."""
    return max(ROWS, ROW_POSITIONS // max(1, trace.activations["hook_embed"].shape[1]))


def _plan(trace: Trace, index: int, patches: Intervention) -> tuple:
    """What rows must share to be run together: first stage, whether the shortcut is exact, number of positions."""
    require(len(patches) > 0, f"intervention {index}", [], "at least one patch")
    stages = [stage_of(patch.site, trace.cfg) for patch in patches]
    for patch in patches:
        shape = list(patch.site.view(trace.activations[patch.site.hook]).shape)
        require(
            list(patch.values.shape) == shape, f"values at {patch.site.address}", list(patch.values.shape), f"{shape}"
        )
    first = min(stages)
    in_first = [patch for patch, stage in zip(patches, stages, strict=True) if stage == first]
    places = [patch.where() for patch in patches]
    slices = [(patch.site.hook, patch.site.index) for patch in in_first]
    apart = len(slices) == 1 or None not in {part for _, part in slices}
    alike = len({hook for hook, _ in slices}) == 1 and len(set(slices)) == len(slices) and apart
    shortcut = alike and in_first[0].site.hook.rpartition(".")[2] in LINEAR
    one = len(patches) == 1 and places[0] is not None
    width = places[0].shape[-1] if shortcut and one and places[0] is not None else None
    return first, shortcut, width, len(patches) == len(in_first)


def _untouched(trace: Trace, patches: Intervention) -> Intervention:
    """The same patches with the intact activations."""
    sites = [patch.site for patch in patches]
    own = patches_from(trace.activations, sites)
    return [dataclasses.replace(patch, positions=p.positions) for patch, p in zip(own, patches, strict=True)]


def _distance(logits: Tensor, trace: Trace) -> float:
    """How far logits are from those of the intact run, relative to the largest (or 1); 0 where these are not finite."""
    ours, intact = logits[trace.real], trace.logits[trace.real]
    if not ours.numel() or not torch.isfinite(intact).all():
        return 0.0
    worst = float((ours - intact).abs().max()) / max(1.0, float(intact.abs().max()))
    return worst if math.isfinite(worst) else math.inf


def _check_untouched(logits: Tensor, trace: Trace) -> None:
    distance = _distance(logits, trace)
    if distance > TOLERANCE:
        what = f"{distance:.2g} of the largest logit"
        raise InexactError(f"an untouched row of the sweep differs from the intact run by {what}; do not trust it")


class _Rows:
    """Some interventions on all items of a trace, from the stage that they first change to the logits."""

    def __init__(self, trace: Trace, interventions: Sequence[Intervention], stage: int, same_steps: bool) -> None:
        """``same_steps``: take no shorter way than the intact run took, so that both round alike."""
        self.trace, self.weights, self.cfg = trace, trace.weights, trace.cfg
        self.interventions, self.first = interventions, stage
        self.n, self.same_steps = len(interventions), same_steps
        device = trace.logits.device
        self.scored = trace.scored.expand(self.n, *trace.scored.shape)
        n_pos = trace.activations["hook_embed"].shape[1]
        self.everywhere = torch.arange(n_pos, device=device)
        self.edited = {patch.site.hook for patches in interventions for patch in patches}

    def run(self, shortcut: bool) -> Tensor:
        """Logits [intervention, item, s, d_vocab]."""
        layer, is_mlp = divmod(self.first - 1, 2)
        if shortcut:
            change = first_change(self.trace, self.interventions, self.first)
            stage = self.first + 1
        else:
            change = Change(self._intact("hook_embed" if self.first == 0 else self._before(layer, is_mlp)), None)
            stage = self.first
            if stage == 0:
                embed = self._edit("hook_embed", change.residual)
                change = Change(embed + self._edit("hook_pos_embed", self._intact("hook_pos_embed")), None)
                stage = 1
        for number in range(stage, 2 * self.cfg.n_layers + 1):
            layer, is_mlp = divmod(number - 1, 2)
            if not is_mlp:
                change = self._attention(layer, change)
            elif not self.cfg.attn_only:
                change = self._mlp(layer, change)
            if is_mlp:
                change = self._edited(f"blocks.{layer}.hook_resid_post", change)
        return self.weights.logits(self._at_scored(change, f"blocks.{self.cfg.n_layers - 1}.hook_resid_post"))

    # ---- stages ----------------------------------------------------------------------------------------------------

    def _attention(self, layer: int, change: Change) -> Change:
        name, last = f"blocks.{layer}", layer == self.cfg.n_layers - 1
        weights, hook = self.weights, f"blocks.{layer}.attn.hook_"
        if self.edited & {f"{name}.hook_resid_pre", f"{name}.ln1.hook_normalized"}:
            change = self._edited(f"{name}.hook_resid_pre", self._dense(change, f"{name}.hook_resid_pre"))
        read = self._read(f"{name}.ln1", change)
        queries = self.scored if last else self.everywhere.expand(self.n, len(self.trace.items), -1)
        residual = self._residual(change, f"{name}.hook_resid_pre", queries if last else None)
        if not last and change.where is None:
            q_read = read
        elif f"{name}.ln1.hook_normalized" in self.edited:
            q_read = at(read, queries)
        else:
            q_read = weights.norm(f"{name}.ln1", residual)
        place = queries if last else None
        q = self._edit(f"{hook}q", weights.heads(layer, "q", q_read), place)
        few = last and change.where is None and 2 * self.scored.shape[-1] <= (self.cfg.d_head or 0)
        if few and not self.same_steps and not self.edited & {f"{hook}k", f"{hook}v"}:
            scores = self._edit(f"{hook}attn_scores", weights.scores_without_keys(layer, q, read, queries), place)
            pattern = self._edit(f"{hook}pattern", scores.softmax(-1), place)
            z = weights.z_without_values(layer, pattern, read)
        elif (
            change.where is not None
            and not self.same_steps
            and not self.edited & {f"{hook}{x}" for x in ("k", "v", "attn_scores", "pattern")}
        ):
            z = self._z_of_few_keys(layer, q, read, queries, change.where)
        else:
            k, v = (self._edit(f"{hook}{x}", self._keys(layer, x, read, change.where)) for x in "kv")
            scores = self._edit(f"{hook}attn_scores", weights.scores(q, k, queries), place)
            pattern = self._edit(f"{hook}pattern", scores.softmax(-1), place)
            z = (pattern @ v.transpose(2, 3)).transpose(2, 3)
        z = self._edit(f"{hook}z", z, place)
        out = self._edit(f"{name}.hook_attn_out", weights.attn_out(layer, z), place)
        return Change(residual + out, place, at_scored=last)

    def _z_of_few_keys(self, layer: int, q: Tensor, read: Tensor, queries: Tensor, where: Tensor) -> Tensor:
        """z [intervention, item, query, head, d_head] where keys and values changed at positions ``where`` alone.

        The intact keys and values of an item are used for all interventions at once; what changed is put in after.
        """
        weights, trace, hook = self.weights, self.trace, f"blocks.{layer}.attn.hook_"
        n, _, n_queries = q.shape[:3]
        rows = (q / math.sqrt(q.shape[-1])).permute(1, 3, 0, 2, 4)  # item, head, intervention, query, d_head
        k, v = (trace.activations[f"{hook}{x}"].transpose(1, 2) for x in "kv")  # item, head, pos, d_head
        k_new, v_new = (weights.heads(layer, x, read).permute(1, 3, 0, 2, 4) for x in "kv")
        scores = (rows.flatten(2, 3) @ k.transpose(-1, -2)).unflatten(2, (n, n_queries))
        index = where.permute(1, 0, 2)[:, None, :, None].expand(-1, rows.shape[1], -1, n_queries, -1)
        scores.scatter_(-1, index, rows @ k_new.transpose(-1, -2))
        future = self.everywhere > queries.permute(1, 0, 2)[..., None]
        pattern = scores.masked_fill_(future[:, None], -torch.inf).softmax(-1)
        z = (pattern.flatten(2, 3) @ v).unflatten(2, (n, n_queries))
        again = (where[..., None] == where[..., None, :]).tril(-1).any(-1)  # a position that is listed twice
        there = where.permute(1, 0, 2)[:, None, ..., None].expand(-1, v.shape[1], -1, -1, v.shape[-1])
        moved = v_new - v[:, :, None].expand(-1, -1, n, -1, -1).gather(3, there)
        moved = moved * ~again.permute(1, 0, 2)[:, None, ..., None]
        return (z + pattern.gather(-1, index) @ moved).permute(2, 0, 3, 1, 4)

    def _mlp(self, layer: int, change: Change) -> Change:
        name, weights = f"blocks.{layer}", self.weights
        change = self._edited(f"{name}.hook_resid_mid", change)
        read = self._read(f"{name}.ln2", change)
        pre = self._edit(f"{name}.mlp.hook_pre", weights.hidden(layer, read), change.where)
        post = self._edit(f"{name}.mlp.hook_post", weights.act(pre), change.where)
        out = self._edit(f"{name}.hook_mlp_out", weights.mlp_out(layer, post), change.where)
        return Change(change.residual + out, change.where, change.at_scored)

    def _read(self, ln: str, change: Change) -> Tensor:
        """What is read through a LayerNorm, at the positions of the change."""
        if f"{ln}.hook_normalized" not in self.edited:
            return self.weights.norm(ln, change.residual)
        normalized = self._edit(f"{ln}.hook_normalized", self.weights.normalized(change.residual), change.where)
        return self.weights.affine(ln, normalized)

    def _keys(self, layer: int, which: str, read: Tensor, where: Tensor | None) -> Tensor:
        """Keys or values at every position: [intervention, item, pos, head, d_head]."""
        new = self.weights.heads(layer, which, read)
        if where is None:
            return new
        whole = self._intact(f"blocks.{layer}.attn.hook_{which}").clone()
        index = where[..., None, None].expand(*where.shape, *new.shape[-2:])
        return whole.scatter_(2, index, new)

    # ---- positions -------------------------------------------------------------------------------------------------

    def _before(self, layer: int, is_mlp: int) -> str:
        if is_mlp:
            return f"blocks.{layer}.hook_resid_{'post' if self.cfg.attn_only else 'mid'}"
        return f"blocks.{layer}.hook_resid_pre"

    def _intact(self, hook: str) -> Tensor:
        """The intact activation for every intervention, a view [intervention, item, ...]."""
        activation = self.trace.activations[hook]
        return activation.expand(self.n, *activation.shape)

    def _dense(self, change: Change, hook: str) -> Change:
        return Change(self._residual(change, hook, None), None)

    def _residual(self, change: Change, hook: str, queries: Tensor | None) -> Tensor:
        """The residual stream at ``queries`` (everywhere if ``None``); the intact run's where it did not change."""
        if change.where is None:
            return change.residual if queries is None else at(change.residual, queries)
        whole = self._intact(hook)
        if queries is None:
            index = change.where[..., None].expand_as(change.residual)
            return whole.clone().scatter_(2, index, change.residual)
        hits = queries[..., :, None] == change.where[..., None, :]
        changed = at(change.residual, hits.long().argmax(-1))
        return torch.where(hits.any(-1, keepdim=True), changed, at(whole, queries))

    def _at_scored(self, change: Change, hook: str) -> Tensor:
        return change.residual if change.at_scored else self._residual(change, hook, self.scored)

    # ---- edits -----------------------------------------------------------------------------------------------------

    def _edited(self, hook: str, change: Change) -> Change:
        return Change(self._edit(hook, change.residual, change.where), change.where, change.at_scored)

    def _edit(self, hook: str, activation: Tensor, where: Tensor | None = None) -> Tensor:
        """The activation [intervention, item, ...] with every patch on ``hook`` made; ``where`` [intervention, item, k]
        are its positions (of a pattern, its queries), all when ``None``."""
        if hook not in self.edited:
            return activation
        edited = activation.clone()
        for number, patches in enumerate(self.interventions):
            for patch in (p for p in patches if p.site.hook == hook):
                self._write(edited[number], patch, None if where is None else where[number])
        return edited

    def _write(self, activation: Tensor, patch: Patch, where: Tensor | None) -> None:
        views = patch.site.view(activation), patch.values.to(activation)
        target, values = (view.movedim(patch.pos_axis, 1) for view in views)
        n_items, places = len(values), patch.where()
        if where is not None:
            values = values[torch.arange(n_items, device=values.device)[:, None], where]
        if places is None:
            target.copy_(values)
            return
        here = self.everywhere.expand(n_items, -1) if where is None else where
        chosen = torch.from_numpy(np.array(places)).to(here.device)
        mask = (here[..., None] == chosen[:, None, :]).any(-1)
        target[mask] = values[mask]


def sites_are_known(sites: Sequence[Site], trace: Trace) -> bool:
    """Whether a sweep can patch all of these sites."""
    return all(site.hook in trace.activations for site in sites)
