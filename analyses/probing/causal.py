"""Whether the model uses what a probe reads: what it reads is removed, or taken from another item.

A probe reads the directions R of an activation x, and W is what varies with them (``analyses.probing.fit.directions``
and ``writes``). At each position where the latent has a value, the activation of one site becomes

- *removed*: x + (mean - x) R^T W, so that the probe reads the same everywhere (Belrose et al. 2023);
- *patched*: x + (x' - x) R^T W, x' being the activation in a partner item: the probe reads the partner's value.

As a control the same change, with the same norm at every position, is turned into a random direction. Everything behind
the site is computed anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import ortho_group
from torch import Tensor

from analyses.interventions.items import Pairs, check_items, cut, derangement, frequent, layouts, minimal_pairs
from analyses.interventions.metrics import metric_of, scored_tokens
from analyses.interventions.patch import Patch, check_no_op
from analyses.interventions.standing import standing
from analyses.interventions.sweep import sweep
from analyses.interventions.trace import Weights, check_trace, require_finite, trace
from analyses.models import Models, batches_of, by_seed, sized_threads
from analyses.probing import fit
from analyses.probing.rows import Positions, Question, activations_at, chosen_positions, questions, split_items
from analyses.probing.sites import sites_of
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Procedure
from mechproc.procedures.items import UNDEFINED
from mechproc.progress import progress
from mechproc.result import Label, Result, Where

QUANTITIES = {
    "removed": "what the probe reads is set to its mean",
    "removed, random": "the same change turned into a random direction, mean over the draws",
    "patched": "what the probe reads is taken from the partner item",
    "patched, random": "the same change turned into a random direction, mean over the draws",
    "patched, largest random": "the draw with the largest effect",
    "site patched": "the whole activation is taken from the partner item, at the same positions",
}
"""What is measured, each as the loss gained (nats)."""
N_PAIRS = 128
"""Items whose loss is measured, unless another number is asked for."""
FEW = 4
"""Positions are few where an item has this many times as many."""
CHECKED_ITEMS = 8
"""Items on which every site is first replaced by itself."""
DOES_NOT_SHOW = (
    "that the latent is what the model reads there: a direction carries whatever is correlated with the latent; nor "
    "that a latent without effect is unused: the model may read it otherwise, or hold it at other sites too. On "
    "100 plantings of each family it flagged decoys in 0 % and parts without effect in 0 to 1 %; it found the one part "
    "with the answer in 100 %, head and MLP of a sum in 82 %, all parts of brackets in 34 %, and in 0 % both heads of "
    "the haystack, of which the first holds keys and not the answer"
)


@sized_threads
def causal_effect(
    models: Models,
    rule: Procedure,
    latents: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    *,
    positions: Positions = "defined",
    pair: str | None = None,
    rank: int | None = None,
    n_controls: int = 4,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """Loss gained when what a probe reads is removed, or patched: axes ``latent``, ``site``, ``quantity``, ``seed``.

    Nats for each scored token; positive: the change hurts. ``QUANTITIES`` says what each is; an effect means something
    only as far as it exceeds that of random directions. Probes are those of ``run``, fitted to the same rows: of an
    ordinal latent ridge regression, else a classifier. Arguments are those of ``run``, and:

    - ``pair``: the kind of minimal pair that partners belong to; by default the partner is another test item of the
      same layout (tokens and scored positions), and items without one are left out;
    - ``rank``: how many directions of a classifier; by default a quarter of the activation's dimensions, at least one;
    - ``n_controls``: draws of random directions;
    - ``n_items``: items that probes are fitted to, and pairs that are measured; by default 500 and 128.

    Before anything is measured every site is replaced by itself, which must change the logits by exactly 0. Errors:
    those of ``run``; ``ConfigError`` where fewer than half of the items have a partner.
    """
    require(n_controls >= 1, "n_controls", n_controls, "at least 1")
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    sites_at = sites_of(sites, cfg)
    train, test = split_items(rule, n_items, seed)
    asked = questions(rule, latents, train, test, cfg, positions, seed)
    test = test.take(slice(N_PAIRS if n_items is None else None))
    pairs = _partners(rule, test if pair is None else pair, len(test), seed)
    check_items(pairs.clean, cfg)
    usable = [q for q in asked if not _why_not(q)]
    values = np.full((len(asked), len(sites_at), len(QUANTITIES), len(of_seed)), np.nan)
    intact: dict[str, float] = {}
    accuracy: dict[str, float] = {}
    for column, (label, model) in enumerate(progress(of_seed.items(), "causal effect")):
        x, _ = activations_at(model, train, sites_at, label)
        probes = {q.latent: {name: _directions(q, x[name], rank) for name in sites_at} for q in usable}
        measured = _Measured(model, pairs, sites_at, label, n_controls, seed)
        for question in usable:
            effects = measured.effects(question.latent, probes[question.latent], positions)
            values[asked.index(question), :, :, column] = effects
        intact[str(label)], accuracy[str(label)] = measured.loss, measured.accuracy
    coordinates = {
        "latent": [question.latent for question in asked],
        "site": list(sites_at),
        "quantity": list(QUANTITIES),
        "seed": list(of_seed),
    }
    undefined: list[tuple[Where, str]] = [({"latent": q.latent}, _why_not(q)) for q in asked if _why_not(q)]
    return Result(
        name="loss gained when what a probe reads is changed",
        values=values,
        axes=tuple(coordinates),
        coordinates=coordinates,
        unit="nats",
        direction="positive: the change hurts; hold each against its random directions",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        undefined=undefined,
        metadata={
            **standing(rule, pairs.clean, accuracy, "loss"),
            "metric": "loss",
            "intact": intact,
            "procedure": rule.to_dict(),
            "seed": seed,
            "n_items": len(pairs),
            "pair": pair,
            "positions": positions if isinstance(positions, str) else [int(p) for p in positions],
            "rank": rank,
            "n_controls": n_controls,
            "quantities": QUANTITIES,
        },
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Directions:
    """What the probe of a latent reads at a site."""

    reads: np.ndarray
    """float64 [rank, d]."""
    writes: np.ndarray
    """float64 [rank, d]."""
    mean: np.ndarray
    """float64 [d], of the activation."""

    def change(self, x: Tensor, to: Tensor) -> Tensor:
        """What makes the probe read of ``x`` [..., d] what it reads of ``to``."""
        return (to - x) @ torch.from_numpy(self.reads).to(x).T @ torch.from_numpy(self.writes).to(x)


class _Measured:
    """One model over pairs of items: its intact loss, and the loss gained by changes along directions."""

    def __init__(
        self, model: HookedTransformer, pairs: Pairs, sites: dict[str, Site], label: Label, n_controls: int, seed: int
    ) -> None:
        self.pairs, self.sites, self.n_controls, self.seed = pairs, sites, n_controls, seed
        first = cut(pairs.clean.take(slice(CHECKED_ITEMS)))
        model = HookedTransformer(model.cfg, model.state(), dtype=torch.float64)  # rounding would hide small effects
        weights = Weights.of(model)
        require_finite(trace(weights, first).logits, label)
        check_trace(model, first)
        check_no_op(model, first, {name: [site] for name, site in sites.items()})
        self.runs, losses, right = [], [], []
        for batch in batches_of(pairs.clean):
            clean = cut(pairs.clean.take(batch))
            ours, theirs = trace(weights, clean), trace(weights, cut(pairs.corrupt.take(batch)))
            require_finite(ours.logits, label)
            tokens = scored_tokens(clean, ours.logits.device, None, model.cfg.input == "vectors")
            own = ours.logits[ours.real].double()
            losses.append(metric_of("loss")(own, tokens))
            right.append(metric_of("accuracy")(own, tokens))
            self.runs.append((batch, ours, theirs, tokens))
        self.loss, self.accuracy = (float(torch.cat(scores).mean()) for scores in (losses, right))

    def effects(self, latent: str, probes: dict[str, _Directions], positions: Positions) -> np.ndarray:
        """The quantities at each site, float64 [site, quantity]."""
        clean, corrupt = self.pairs.clean, self.pairs.corrupt
        n_ctx = clean.tokens.shape[1]
        chosen = chosen_positions(positions, clean, n_ctx)
        chosen = chosen & (clean.latents[latent] != UNDEFINED) & (corrupt.latents[latent] != UNDEFINED)
        n_rows = 3 + 2 * self.n_controls
        sums, n_tokens = np.zeros((len(self.sites), n_rows)), 0
        for batch, ours, theirs, tokens in self.runs:
            interventions: list[list[Patch]] = []
            for number, (name, site) in enumerate(self.sites.items()):
                x, other = (site.view(run.activations[site.hook]) for run in (ours, theirs))
                here = chosen[batch, : x.shape[1]]
                mask, places = torch.from_numpy(here).to(x)[..., None], _few_positions(here)
                rng = np.random.default_rng([self.seed, number, 2])
                changes = self._changes(x, other, probes[name], rng)
                interventions += [[Patch(site, places, x + mask * change)] for change in changes]
            n_tokens += len(tokens.item)
            for indices, logits in sweep(ours, interventions):
                for index, changed in zip(indices, logits, strict=True):
                    sums.flat[index] += float(metric_of("loss")(changed[ours.real].double(), tokens).sum())
        gained = sums / n_tokens - self.loss
        removed, patched, whole = gained[:, 0], gained[:, 1], gained[:, 2]
        random_removed, random_patched = np.split(gained[:, 3:], 2, axis=1)
        columns = [removed, random_removed.mean(1), patched, random_patched.mean(1), random_patched.max(1), whole]
        return np.stack(columns, axis=1)

    def _changes(self, x: Tensor, other: Tensor, probe: _Directions, rng: np.random.Generator) -> list[Tensor]:
        """What is added to the activation: removed, patched, all of it patched; then removed and patched in each of
        the random directions."""
        removed, patched = probe.change(x, torch.from_numpy(probe.mean).to(x)), probe.change(x, other)
        d = x.shape[-1]
        turns = [torch.from_numpy(ortho_group.rvs(d, random_state=rng)).to(x) for _ in range(self.n_controls)]
        return [removed, patched, other - x, *(removed @ turn for turn in turns), *(patched @ turn for turn in turns)]


def _few_positions(chosen: np.ndarray) -> np.ndarray | None:
    """The positions of bool [item, pos], [item, k], where they are few; others stand in for those that an item lacks.

    What is behind a site is then computed anew at these alone.
    """
    n = int(chosen.sum(axis=1).max())
    if FEW * n > chosen.shape[1]:
        return None
    return np.argsort(~chosen, axis=1, kind="stable")[:, : max(n, 1)]


def _partners(rule: Procedure, items: Any, n: int, seed: int) -> Pairs:
    """Minimal pairs of a kind, or items of the test split with another item of their layout each."""
    if isinstance(items, str):
        return minimal_pairs(rule, items, n, seed=seed)
    kept = frequent(items, items, 2)
    rare = f"{len(items) - len(kept)} of {len(items)} share their layout with no other item"
    require(2 * len(kept) >= len(items), "items", rare, "items that share their lengths, or more of them (n_items)")
    items = items.take(kept)
    return Pairs(items, items.take(derangement(layouts(items), seed)))


def _why_not(question: Question) -> str:
    return question.why_not if question.ordinal else question.why_no_classifier


def _directions(question: Question, x: np.ndarray, rank: int | None) -> _Directions:
    rows = question.train.of(x)
    probe = (fit.regression if question.ordinal else fit.classifier)(rows, question.train.label)
    reads = fit.directions(probe, 1 if question.ordinal else rank)
    return _Directions(reads, fit.writes(reads, rows), rows.mean(axis=0))
