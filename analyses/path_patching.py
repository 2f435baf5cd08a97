"""Exact path patching: what each edge between two components carries of what differs between clean and corrupt items.

An edge is the path of one step from a sender (embeddings, positions, a head, an MLP, a bias) to a receiver (queries,
keys or values of a head, an MLP, the logits). The sender's contribution alone is replaced in what the receiver reads;
the receiver's LayerNorm is computed anew, everything after the receiver too, and every other path into the receiver
stays as it was (Wang et al. 2022; Goldowsky-Dill et al. 2023). Each edge is replaced alone: the edges from one sender
are not the sender's activation patch taken apart.

**Controls.** On the first pairs, in each model: edges replaced by themselves change the logits of the hooked model by
exactly 0; all edges into a receiver give it its corrupt input, and for the logits the corrupt run, within 1e-5 of the
largest number; with all edges into a receiver the sweep agrees with the hooked model within the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from analyses.interventions.edge_sweep import EdgeSet, check_edges, sweep_edges
from analyses.interventions.edges import EdgePatcher
from analyses.interventions.edges import receivers as every_receiver
from analyses.interventions.edges import senders as senders_before
from analyses.interventions.items import Pairs, Tokens, asked, check_items, cut, order_of_length
from analyses.interventions.metrics import Function, Metric, ScoredTokens, metric_of, scored_tokens
from analyses.interventions.patch import Positions
from analyses.interventions.stand_ins import Ablated, chosen_items
from analyses.interventions.standing import standing
from analyses.interventions.trace import Weights, require_finite, trace
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.config import nearest
from mechproc.errors import PartError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result, Where

Direction = Literal["corrupt_into_clean", "clean_into_corrupt"]
DIRECTIONS = {
    "corrupt_into_clean": "positive: the score falls when the clean run reads the corrupt contribution",
    "clean_into_corrupt": "positive: the score rises when the corrupt run reads the clean contribution",
}
N_PAIRS = 256
"""Pairs of a procedure, unless another number is asked for."""
CHECKED_PAIRS = 4
"""Pairs on which edges are held to the hooked model first."""
DOES_NOT_SHOW = (
    "what a part does with what it reads; an edge whose work another one does as well, or whose effect another undoes; "
    "nor effects of several edges together, which do not add up, because LayerNorm, attention and MLPs are not linear"
)


@sized_threads
def run(
    models: Models,
    items: Procedure | Pairs,
    pair: str | None = None,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    metric: str | Metric | Function = "logit_diff",
    *,
    direction: Direction = "corrupt_into_clean",
    tokens: Tokens = "changed",
    positions: Positions = None,
    by_item: bool = False,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """The effect of every edge: axes ``sender``, ``receiver`` and ``seed``; with ``by_item`` also ``item``, the number
    of the pair.

    The value is the mean over scored tokens of each pair, then over pairs. Corrupt into clean it is what the clean
    run's score loses, clean into corrupt what the corrupt run's score gains, judged by the clean item's answers:
    positive where the edge carries what makes the answer. A cell whose sender does not write before its receiver reads
    is undefined. ``metadata`` has the ``clean`` and ``corrupt`` scores by seed, and ``all_senders``, the effect of all
    edges into each receiver together, by receiver and seed.

    - ``models``: one for each seed, all of one shape;
    - ``items``, ``pair``: the procedure and the kind of its minimal pairs, of which the first ``n_items`` (256 by
      default) test pairs of ``seed`` are taken; or ``Pairs`` of one's own;
    - ``senders``, ``receivers``: names such as ``"L0.H1"``, ``"L0.b_O"``, ``"embed"`` and ``"L1.H2.k"``, ``"L1.mlp"``,
      ``"logits"``; ``None`` for all;
    - ``metric``: as for ``analyses.ablation.run``; ``logit_diff`` is the right token's logit less the corrupt answer's;
    - ``tokens``: which scored tokens count: ``"changed"``, those whose right answer differs between the two items of a
      pair; ``"unchanged"``, those whose answer is the same although something before differs; or ``"all"``;
    - ``positions``: where the receiver reads the replaced contribution: whole numbers [k], or [pair, k]; by default
      everywhere.

    Errors: ``PartError`` for a sender or receiver that does not exist; ``ConfigError`` for models or pairs that do not
    fit, or pairs without a token that counts; ``RuntimeError`` when a control fails.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    rows = _known("senders", senders, senders_before(cfg))
    columns = _known("receivers", receivers, every_receiver(cfg))
    require(direction in DIRECTIONS, "direction", direction, f"one of {', '.join(DIRECTIONS)}")
    measured, n_pairs = metric_of(metric), N_PAIRS if n_items is None and isinstance(items, Procedure) else n_items
    chosen, number_of, settings = chosen_pairs(items, pair, tokens, positions, seed, n_pairs)
    check_items(chosen.items, cfg, "pairs")

    sets = [EdgeSet(receiver, (sender,)) for receiver in columns for sender in rows
            if sender in senders_before(cfg, receiver)]  # fmt: skip
    require(bool(sets), "senders", rows, f"one, at least, that writes before one of {', '.join(columns)} reads")
    together = [EdgeSet(receiver, tuple(senders_before(cfg, receiver))) for receiver in columns]
    values = np.full((len(rows), len(columns), len(of_seed), len(chosen.items)), np.nan)
    scores: dict[str, dict[str, float]] = {"clean": {}, "corrupt": {}, "accuracy": {}}
    whole: dict[str, dict[str, float]] = {receiver: {} for receiver in columns}
    progress = tqdm(of_seed.items(), desc="path patching", unit="model", leave=False, disable=None)
    for column, (label, model) in enumerate(progress):
        effects, own = _measure(model, chosen, [*sets, *together], measured, direction, label)
        for edges, effect in zip(sets, effects, strict=False):
            values[rows.index(edges.senders[0]), columns.index(edges.receiver), column] = effect
        for edges, effect in zip(together, effects[len(sets) :], strict=True):
            whole[edges.receiver][str(label)] = float(effect.mean())
        for name, score in own.items():
            scores[name][str(label)] = score
    undefined: list[tuple[Where, str]] = [
        ({"sender": sender, "receiver": receiver}, f"{sender} does not write before {receiver} reads")
        for sender in rows
        for receiver in columns
        if sender not in senders_before(cfg, receiver)
    ]
    order = np.argsort(number_of)
    axes = {"sender": rows, "receiver": columns, "seed": list(of_seed), "item": number_of[order].tolist()}
    values = values[..., order]
    if not by_item:
        values = values.mean(-1)
        del axes["item"]
    procedure = items if isinstance(items, Procedure) else None
    name = metric if isinstance(metric, str) else measured.name
    return Result(
        name=f"{measured.change if direction == 'corrupt_into_clean' else measured.name + ' restored'} by edge",
        values=values,
        axes=tuple(axes),
        coordinates=axes,
        unit=measured.unit,
        direction=DIRECTIONS[direction],
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        undefined=undefined,
        metadata={
            **settings,
            **standing(procedure, chosen.items, scores.pop("accuracy"), name),
            "direction": direction,
            "tokens": tokens,
            "metric": name,
            "intact": scores["clean"],
            **scores,
            "all_senders": whole,
            "n_pairs": len(chosen.items),
            "n_scored_tokens": int(chosen.items.scored.sum()),
        },
    )


def chosen_pairs(
    items: Procedure | Pairs, pair: str | None, tokens: Tokens, positions: Positions, seed: int, n_items: int | None
) -> tuple[Ablated, np.ndarray, dict[str, Any]]:
    """The pairs that are measured, longest first; the number of each among those given; and the settings to record."""
    require(isinstance(items, (Procedure, Pairs)), "items", items, "a procedure, such as get('sort')(), or Pairs")
    chosen, settings = chosen_items(items, "counterfactual", None, pair, None, seed, n_items)
    given = chosen.pairs
    kept, pairs = asked(given, tokens)
    if positions is not None and np.ndim(positions) == 2 and len(positions) == len(given):
        positions = np.asarray(positions)[kept]
    order = order_of_length(pairs.clean)
    settings["n_pairs_left_out"] = len(given) - len(kept)
    return Ablated(pairs.clean, corrupt=pairs.corrupt).take(order, positions), kept[order], settings


def _known(field: str, names: Sequence[str] | None, known: list[str]) -> list[str]:
    chosen = known if names is None else list(names)
    for name in chosen:
        if name not in known:
            raise PartError(f"{field}: {name!r} is not one of this model's{nearest(name, known)}")
    require(bool(chosen) and len(set(chosen)) == len(chosen), field, chosen, "at least one, each once")
    return chosen


def _measure(
    model: HookedTransformer,
    chosen: Ablated,
    sets: Sequence[EdgeSet],
    metric: Metric,
    direction: Direction,
    label: Label,
) -> tuple[np.ndarray, dict[str, float]]:
    """The effect of each set of edges on each pair, float64 [set, pair]; and the scores of the two runs."""
    model.require_no_hooks()
    weights, cells = Weights.of(model), model.cfg.input == "vectors"
    effects, own = [], {"clean": [], "corrupt": [], "accuracy": []}
    for batch in batches(len(chosen.items)):
        clean, corrupt = (cut(block.take(batch)) for block in (chosen.pairs.clean, chosen.pairs.corrupt))
        runs = [trace(weights, clean), trace(weights, corrupt)]
        for each in runs:
            require_finite(each.logits, label)
        if batch.start == 0:
            check_edges(model, clean.take(slice(CHECKED_PAIRS)), corrupt.take(slice(CHECKED_PAIRS)))
        tokens = scored_tokens(clean, weights.state["embed.W_E"].device, corrupt, cells)
        by_pair = _ByPair(tokens, len(clean))
        scores = [by_pair(metric(each.logits[each.real].double(), tokens)) for each in runs]
        own["clean"].append(scores[0])
        own["corrupt"].append(scores[1])
        own["accuracy"].append(by_pair(metric_of("accuracy")(runs[0].logits[runs[0].real].double(), tokens)))
        forwards = direction == "corrupt_into_clean"
        paths = EdgePatcher(*(runs if forwards else runs[::-1]))
        found = np.empty((len(sets), len(clean)))
        for indices, logits in sweep_edges(paths, sets, chosen.positions_of(batch)):
            for index, one in zip(indices, logits, strict=True):
                patched = by_pair(metric(one[paths.clean.real].double(), tokens))
                found[index] = metric.sign * (scores[0] - patched if forwards else patched - scores[1])
        effects.append(found)
    return np.concatenate(effects, axis=1), {name: float(np.concatenate(x).mean()) for name, x in own.items()}


class _ByPair:
    """The mean over the tokens of each pair: float64 [token] -> [pair]."""

    def __init__(self, tokens: ScoredTokens, n_pairs: int) -> None:
        self.item, self.n = tokens.item, n_pairs
        self.counts = torch.bincount(tokens.item, minlength=n_pairs)

    def __call__(self, scores: torch.Tensor) -> np.ndarray:
        return (torch.bincount(self.item, scores, minlength=self.n) / self.counts).cpu().numpy()
