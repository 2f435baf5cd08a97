"""Score models under one or several kinds of ablation; checks and drawn items are shared between the kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analyses.ablation.kinds import layernorm_of
from analyses.interventions.activations import Activations
from analyses.interventions.items import check_items, cut, frequent
from analyses.interventions.metrics import METRICS, Metric, scored_tokens, scores_of_rows
from analyses.interventions.patch import Positions, check_no_op, patches_from, run_with_patches
from analyses.interventions.stand_ins import LEAST, Ablated, StandIns, chosen_items, rows_in_use
from analyses.interventions.sweep import sweep
from analyses.interventions.trace import (
    InexactError,
    Trace,
    Weights,
    at,
    check_trace,
    in_float64,
    require_finite,
    trace,
)
from analyses.models import batches_of
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Items
from mechproc.progress import progress
from mechproc.result import Label

NO_OP_ITEMS = 8
"""Items on which every part is first replaced by itself."""
Rows = Mapping[str, tuple[Site, ...]]
"""The activations that are replaced together, by row."""


@dataclasses.dataclass(frozen=True)
class Question:
    """One kind of ablation: which activations it replaces, on which items, and the settings to be recorded."""

    kind: str
    rows: Rows
    chosen: Ablated
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model scores under one kind of ablation."""

    scores: torch.Tensor
    """float64 [row, token], intact in the first row."""
    accuracy: float
    """Of the intact model."""


def question(
    items: Any,
    cfg: ModelConfig,
    rows: Rows,
    kind: str,
    *,
    reference: Items | None = None,
    pair: str | None = None,
    partners: Any = None,
    positions: Positions = None,
    seed: int = 0,
    n_items: int | None = None,
    draw: Callable[..., Items] | None = None,
) -> Question:
    """The items of one kind of ablation, checked; arguments are those of ``run``. Errors: ``ConfigError``.

    ``draw(n, split)``: what takes items of a procedure, where several questions share them.
    """
    everywhere = "None for identity_affine: a LayerNorm has one weight and one bias for all positions"
    require(kind != "identity_affine" or positions is None, "positions", positions, everywhere)
    chosen, settings = chosen_items(items, kind, reference, pair, partners, seed, n_items, draw)
    check_items(chosen.items, cfg)
    if chosen.reference is not None:
        check_items(chosen.reference, cfg, "reference")
    kept, least = np.arange(len(chosen.items)), LEAST.get(kind, 0)
    if least and chosen.partners is None:
        kept = frequent(chosen.items, chosen.reference or chosen.items, least)
        left_out = len(chosen.items) - len(kept)
        rare = f"{left_out} of {len(chosen.items)} have a layout too rare for {kind} ablation"
        more = "items that share their lengths, or more of them (n_items, reference)"
        require(left_out <= len(kept), "items", rare, more)
    settings["n_items_left_out"] = len(chosen.items) - len(kept)
    chosen = chosen.take(kept, positions)
    if kind == "mean_row":
        tokens, n_positions = rows_in_use(chosen)
        settings |= {"n_tokens_in_use": len(tokens), "n_positions_in_use": n_positions}
    return Question(kind, rows, chosen, settings)


def answers(
    models: Mapping[Label, HookedTransformer], questions: Sequence[Question], metric: Metric, seed: int
) -> dict[Label, list[Answer]]:
    """What each model scores, by its label, for each question; ``seed`` decides who is resampled from whom.

    Errors: ``ConfigError`` for a model with hooks or without finite logits; ``RuntimeError`` when a check fails.
    """
    what = f"{', '.join(each.kind for each in questions)} ablation"
    found = {}
    for label, model in progress(models.items(), what):
        found[label] = _answers(model, questions, metric, label, seed)
    return found


def _answers(
    model: HookedTransformer, questions: Sequence[Question], metric: Metric, label: Label, seed: int
) -> list[Answer]:
    model.require_no_hooks()
    weights = Weights.of(model)
    first = cut(questions[0].chosen.items.take(slice(NO_OP_ITEMS)))
    require_finite(trace(weights, first).logits, label)
    check_trace(model, first)
    replaced: dict[str, tuple[Site, ...]] = {}
    for ask in questions:
        for row, sites in ask.rows.items():
            replaced[row] = tuple(dict.fromkeys((*replaced.get(row, ()), *sites)))
    check_no_op(model, first, replaced)
    return [_answer(model, weights, ask, metric, label, seed) for ask in questions]


def _answer(
    model: HookedTransformer, weights: Weights, ask: Question, metric: Metric, label: Label, seed: int
) -> Answer:
    """One question, in the model's precision until a batch is found to need float64, from there on in float64."""
    hooks = sorted({site.hook for where in ask.rows.values() for site in where})
    stand_ins = StandIns(weights, ask.chosen, ask.kind, hooks, seed)
    columns, right = [], []
    for batch in batches_of(ask.chosen.items):
        try:
            scores, correct = _batch_answer(stand_ins, ask, batch, metric, label)
        except InexactError:
            if weights.state["embed.W_E"].dtype == torch.float64:
                raise
            weights = Weights.of(in_float64(model))
            stand_ins = stand_ins.with_weights(weights)
            scores, correct = _batch_answer(stand_ins, ask, batch, metric, label)
        columns.append(scores)
        right.append(correct)
    return Answer(torch.cat(columns, dim=1), float(torch.cat(right).mean()))


def _batch_answer(
    stand_ins: StandIns, ask: Question, batch: slice, metric: Metric, label: Label
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of some items: scores [row, token], intact in the first row, and whether the intact model is right [token]."""
    chosen, groups, weights = ask.chosen, list(ask.rows.values()), stand_ins.weights
    items = cut(chosen.items.take(batch))
    intact = trace(weights, items)
    require_finite(intact.logits, label)
    values, places = stand_ins.of(batch, intact), chosen.positions_of(batch)
    corrupt = None if chosen.corrupt is None else chosen.corrupt.take(batch)
    tokens = scored_tokens(items, weights.state["embed.W_E"].device, corrupt, weights.cfg.input == "vectors")
    own = intact.logits[intact.real].double()
    scores = own.new_empty((1 + len(groups), len(own)))
    scores[0] = metric(own, tokens)
    for indices, logits in _ablated(intact, groups, ask.kind, values, places):
        scores[[1 + index for index in indices]] = scores_of_rows(metric, logits[:, intact.real].double(), tokens)
    return scores, METRICS["accuracy"](own, tokens)


def _ablated(
    intact: Trace, groups: Sequence[tuple[Site, ...]], kind: str, values: Activations, places: np.ndarray | None
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """The logits with each group of sites ablated, as ``sweep`` yields them."""
    if kind == "identity_affine":
        for number, where in enumerate(groups):
            yield [number], trace(_without_affine(intact.weights, where), intact.items).logits[None]
    elif kind == "frozen_scale":
        hooked = HookedTransformer(intact.cfg, intact.weights.state, device=intact.logits.device)
        for number, where in enumerate(groups):
            logits = run_with_patches(hooked, intact.items, patches_from(values, where, places))
            yield [number], at(logits, intact.scored)[None]
    else:
        yield from sweep(intact, [patches_from(values, where, places) for where in groups])


def _without_affine(weights: Weights, where: Sequence[Site]) -> Weights:
    """The same weights, but 1 and 0 for the weight and bias of the LayerNorms of these sites."""
    state = dict(weights.state)
    for name in map(layernorm_of, where):
        state |= {f"{name}.w": torch.ones_like(state[f"{name}.w"]), f"{name}.b": torch.zeros_like(state[f"{name}.b"])}
    return dataclasses.replace(weights, state=state)
