"""Exact path patching: what each edge between two components carries of what differs between clean and corrupt items.

An edge is the path of one step from a sender (embeddings, positions, a head, an MLP, a bias) to a receiver (queries,
keys or values of a head, an MLP, the logits). The sender's contribution alone is replaced in what the receiver reads;
the receiver's LayerNorm is computed anew, everything after the receiver too, and every other path into the receiver
stays as it was (Wang et al. 2022; Goldowsky-Dill et al. 2023). Each edge is replaced alone: the edges from one sender
are not the sender's activation patch taken apart.

Computed in float64: trained models amplify the rounding of float32 by more than the checks allow.

**Controls.** On the first pairs, in each model: edges replaced by themselves change the logits of the hooked model by
exactly 0; all edges into a receiver give it its corrupt input, and for the logits the corrupt run, within 1e-5 of the
largest number; with all edges into a receiver the sweep agrees with the hooked model within the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses.interventions.edge_effects import Direction, asked_pairs, measure
from analyses.interventions.edge_sweep import EdgeSet
from analyses.interventions.edges import receivers as every_receiver
from analyses.interventions.edges import senders as senders_before
from analyses.interventions.items import Pairs, Tokens, check_items
from analyses.interventions.metrics import Function, Metric, key_of, metric_of
from analyses.interventions.patch import Positions
from analyses.interventions.standing import standing
from analyses.models import Models, by_seed, sized_threads
from mechproc.config import nearest
from mechproc.errors import PartError, require
from mechproc.procedures.base import Procedure
from mechproc.progress import progress
from mechproc.result import Result, Where

DIRECTIONS = {
    "corrupt_into_clean": "positive: the score falls when the clean run reads the corrupt contribution",
    "clean_into_corrupt": "positive: the score rises when the corrupt run reads the clean contribution",
}
DOES_NOT_SHOW = (
    "what a part does with what it reads; a part that does the same in both runs (of planted parts that are needed and "
    "do so, 0 % are flagged); an edge whose work another one does as well, or whose effect another undoes; "
    "nor effects of several edges together, which do not add up, because LayerNorm, attention and MLPs are not linear"
)

MOST_NAMED = 16
"""Senders or receivers that a message lists."""


@sized_threads
def run(
    models: Models,
    items: Procedure | Pairs,
    pair: str | None = None,
    senders: Sequence[str] | None = None,
    receivers: Sequence[str] | None = None,
    metric: str | Metric | Function | None = None,
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
    - ``items``: the procedure, of whose minimal pairs of the kind ``pair`` the first ``n_items`` (256 by default) test
      pairs of ``seed`` are taken; or ``Pairs`` of one's own;
    - ``pair``: the kind of minimal pair, such as ``"symbol"``;
    - ``senders``: such as ``"embed"``, ``"L0.H1"``, ``"L0.b_O"``; ``None`` for all;
    - ``receivers``: such as ``"L1.H2.k"``, ``"L1.mlp"``, ``"logits"``; ``None`` for all;
    - ``metric``: ``"logit_diff"``, the right token's logit less the corrupt answer's (the default for models that read
      tokens), ``"loss"`` (nats; the default elsewhere), or another as for ``analyses.ablation.run``;
    - ``direction``: ``"corrupt_into_clean"`` or ``"clean_into_corrupt"``;
    - ``tokens``: which scored tokens count: ``"changed"``, those whose right answer differs between the two items of a
      pair; ``"unchanged"``, those whose answer is the same although something before differs; or ``"all"``;
    - ``positions``: where the receiver reads the replaced contribution: whole numbers [k], or [pair, k]; by default
      everywhere;
    - ``by_item``: keep the pairs apart, numbered as they were given or drawn;
    - ``seed``: of the pairs. Every model gets the same;
    - ``n_items``: how many pairs.

    Errors: ``PartError`` for a sender or receiver that does not exist; ``ConfigError`` for models or pairs that do not
    fit, or pairs without a token that counts; ``RuntimeError`` when a control fails.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    rows = _known("senders", senders, senders_before(cfg))
    columns = _known("receivers", receivers, every_receiver(cfg))
    require(direction in DIRECTIONS, "direction", direction, f"one of {', '.join(DIRECTIONS)}")
    measured = metric_of(metric if metric is not None else "logit_diff" if cfg.input == "tokens" else "loss")
    chosen, number_of, settings = asked_pairs(items, pair, tokens, positions, seed, n_items)
    check_items(chosen.items, cfg, "pairs")

    sets = [EdgeSet(receiver, (sender,)) for receiver in columns for sender in rows
            if sender in senders_before(cfg, receiver)]  # fmt: skip
    require(bool(sets), "senders", rows, f"one, at least, that writes before one of {', '.join(columns)} reads")
    together = [EdgeSet(receiver, tuple(senders_before(cfg, receiver))) for receiver in columns]
    values = np.full((len(rows), len(columns), len(of_seed), len(chosen.items)), np.nan)
    scores: dict[str, dict[str, float]] = {"clean": {}, "corrupt": {}, "accuracy": {}}
    whole: dict[str, dict[str, float]] = {receiver: {} for receiver in columns}
    watched = progress(of_seed.items(), "path patching")
    for column, (label, model) in enumerate(watched):
        effects, own = measure(model, chosen, [*sets, *together], measured, direction, label)
        for edges, effect in zip(sets, effects, strict=False):
            values[rows.index(edges.senders[0]), columns.index(edges.receiver), column] = effect
        for edges, effect in zip(together, effects[len(sets) :], strict=True):
            whole[edges.receiver][str(label)] = float(effect.mean())
        for name, score in own.items():
            scores[name][str(label)] = score
    undefined: list[tuple[Where, str]] = [
        ({"sender": sender, "receiver": receiver}, "the sender does not write before the receiver reads")
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
    name = key_of(measured)
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


def _known(field: str, names: Sequence[str] | None, known: list[str]) -> list[str]:
    chosen = known if names is None else list(names)
    for name in chosen:
        if name not in known:
            raise PartError(f"{field}: {name!r} is not one of {_listed(known)}{nearest(name, known)}")
    require(bool(chosen) and len(set(chosen)) == len(chosen), field, chosen, "at least one, each once")
    return chosen


def _listed(names: list[str]) -> str:
    """Names, the first of many."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
