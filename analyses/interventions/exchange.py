"""Activations of one run put into another: the scores of every part and position that is patched, item by item."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.items import cut, order_of_length
from analyses.interventions.metrics import Metric, metric_of, scored_tokens, scores_of_rows
from analyses.interventions.patch import check_full_patch, check_no_op, patches_from
from analyses.interventions.sweep import TOLERANCE, sweep
from analyses.interventions.trace import (
    InexactError,
    Trace,
    Weights,
    check_trace,
    in_enough_precision,
    require_finite,
    trace,
)
from analyses.models import batches_of
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Items

CHECKED_ITEMS = 8
"""Items on which the tool is checked on the hooked model."""
DIRECTIONS = {
    "clean_into_corrupt": "positive: the part's activation of the clean run brings the clean answer back",
    "corrupt_into_clean": "positive: the part's activation of the corrupt run takes the clean answer away",
}
EVERYTHING = (Site("embed", "hook_embed", None, None), Site("pos", "hook_pos_embed", None, None))
"""All that reads the input."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What is patched together, and where."""

    sites: Sequence[Site]
    positions: np.ndarray | None = None
    """int64 [k] or [item, k]; ``None``: everywhere."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """Which runs, which answers count, and what is patched. Row i of all items belongs together; equal layouts."""

    base: Items
    """Read by the run that is patched."""
    source: Items
    """Read by the run that the activations are taken from."""
    answers: Items
    """Whose next tokens are the right ones; scored where it says."""
    foils: Items | None
    """Whose next tokens are the wrong ones, for the logit difference."""
    cells: Sequence[Cell]
    metric: Metric

    def take(self, chosen: np.ndarray | slice) -> Exchange:
        """Some of the items, in the order asked for, with the same cells."""
        foils = None if self.foils is None else self.foils.take(chosen)
        base, source, answers = (x.take(chosen) for x in (self.base, self.source, self.answers))
        return dataclasses.replace(self, base=base, source=source, answers=answers, foils=foils)

    def cut(self) -> Exchange:
        """The same up to the last token that is predicted in any item."""
        foils = None if self.foils is None else cut(self.foils)
        base, source, answers = (cut(x) for x in (self.base, self.source, self.answers))
        return dataclasses.replace(self, base=base, source=source, answers=answers, foils=foils)


@dataclasses.dataclass(frozen=True)
class Exchanged:
    """The scores of one model: sums over the scored tokens of each item, in the order of the items, float64."""

    patched: np.ndarray
    """[cell, item]."""
    base: np.ndarray
    """[item]."""
    source: np.ndarray
    """[item]."""
    n_tokens: np.ndarray
    """[item]: its scored tokens."""
    accuracy: float
    """Of the model itself on ``answers``, over all scored tokens."""


def exchanged(
    model: HookedTransformer, exchange: Exchange, seed: object, donor: HookedTransformer | None = None
) -> Exchanged:
    """Patch every cell into ``model``, with the activations of ``donor`` (of the model itself when ``None``).

    The no-op and the full patch are checked first, and in each sweep an untouched row; where float32 is not enough for
    that, all is computed in float64. Errors: ``ConfigError`` for
    logits that are not finite, ``RuntimeError`` when a check fails.
    """
    _check(model, exchange, seed)
    return in_enough_precision(lambda model: _exchanged(model, exchange, seed, donor), model)


def _exchanged(
    model: HookedTransformer, exchange: Exchange, seed: object, donor: HookedTransformer | None
) -> Exchanged:
    weights = Weights.of(model)
    theirs = weights if donor is None else Weights.of(donor)
    if donor is not None:
        donor.require_no_hooks()
        check_trace(donor, cut(exchange.source.take(slice(CHECKED_ITEMS))))
    order, n = order_of_length(exchange.answers), len(exchange.answers)
    patched, ends, counts = np.zeros((len(exchange.cells), n)), np.zeros((2, n)), np.zeros(n)
    right = 0.0
    for batch in batches_of(exchange.answers):
        chosen = order[batch]
        answers = cut(exchange.answers.take(chosen))
        foils = None if exchange.foils is None else exchange.foils.take(chosen)
        base, source = (cut(x.take(chosen)) for x in (exchange.base, exchange.source))
        runs = trace(weights, base), trace(theirs, source)
        for run in runs:
            require_finite(run.logits, seed)
        if donor is None:
            _check_everything(*runs)
        tokens = scored_tokens(answers, weights.state["embed.W_E"].device, foils, model.cfg.input == "vectors")
        item = tokens.item.cpu().numpy()

        def sums(scores: Tensor, item: np.ndarray = item, n_here: int = len(chosen)) -> np.ndarray:
            whole = scores.new_zeros((*scores.shape[:-1], n_here), dtype=torch.float64)
            return whole.index_add_(-1, torch.from_numpy(item).to(whole.device), scores.double()).cpu().numpy()

        for end, run in zip(ends, runs, strict=True):
            end[chosen] = sums(exchange.metric(run.logits[run.real].double(), tokens))
        counts[chosen] = np.bincount(item, minlength=len(chosen))
        own = runs[0] if exchange.base is exchange.answers else trace(weights, answers)
        right += float(metric_of("accuracy")(own.logits[own.real].double(), tokens).sum())
        patched[:, chosen] = ends[0, chosen]  # where nothing is patched that a scored token could see
        numbers, interventions = _interventions(exchange.cells, chosen, *runs)
        for indices, logits in sweep(runs[0], interventions):
            scores = scores_of_rows(exchange.metric, logits[:, runs[0].real].double(), tokens)
            rows = np.array([numbers[index] for index in indices])
            patched[rows[:, None], chosen] = sums(scores)
    return Exchanged(patched, ends[0], ends[1], counts, right / counts.sum())


def _check(model: HookedTransformer, exchange: Exchange, seed: object) -> None:
    """Hold the tool to the hooked model on a few items."""
    model.require_no_hooks()
    few = slice(CHECKED_ITEMS)
    base, source = (cut(x.take(few)) for x in (exchange.base, exchange.source))
    require_finite(trace(Weights.of(model), base).logits, seed)
    check_trace(model, base)
    check_no_op(model, base, {str(number): cell.sites for number, cell in enumerate(_by_sites(exchange.cells))})
    check_full_patch(model, base, source)


def _by_sites(cells: Sequence[Cell]) -> list[Cell]:
    """One cell for each choice of sites."""
    return list({tuple(cell.sites): cell for cell in cells}.values())


def _check_everything(base: Trace, source: Trace) -> None:
    """Raise a ``RuntimeError`` unless a sweep that patches all embeddings gives the logits of the source."""
    ((_, (found,)),) = sweep(base, [patches_from(source.activations, EVERYTHING)])
    ours, theirs = found[base.real], source.logits[base.real]
    worst = float((ours - theirs).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(theirs.abs().max())):
        raise InexactError(f"patching all embeddings misses the other run's logits by {worst}; do not trust a patch")


def _interventions(cells: Sequence[Cell], chosen: np.ndarray, base: Trace, source: Trace) -> tuple[list[int], list]:
    """The patches of a batch, and the number of the cell of each; without those after every scored position."""
    last = base.activations["hook_embed"].shape[1] - 1  # the token after the last scored position
    numbers, interventions = [], []
    for number, cell in enumerate(cells):
        places = cell.positions
        if places is not None:
            places = np.minimum(places[chosen] if places.ndim == 2 else places, last)
            if (places == last).all():
                continue
        numbers.append(number)
        interventions.append(patches_from(source.activations, cell.sites, places))
    return numbers, interventions
