"""The circuit that path patching leaves above a threshold, and how good it is.

**Threshold.** An edge belongs to the circuit when the size of its effect is at least the largest of

- ``QUANTILE`` of the sizes of all edges' effects in each control: questions and pairs that the contrast is not about
  (``analyses.circuit.controls``). Where nothing that is asked has changed, no edge should matter; the few largest
  effects there are those of edges that carry the contrast and leak, which is why it is a quantile and no maximum;
- ``FLOOR`` of what the whole pair changes, the clean run's score less the corrupt run's. It was chosen on planted
  models: parts that only change the scale of a LayerNorm came into the circuit of 14 in 140 at 0.01, of 2 at 0.02.

Edges that lie on no path from the embeddings to the logits are then left out; that changes nothing (``connected``).

**Evaluation.** The circuit is judged on other pairs than it was found on: of a procedure those of the next seed, of
pairs of one's own the second half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyses.circuit.controls import control_effects, edge_effects, size
from analyses.circuit.evaluate import MEASURES, evaluate
from analyses.circuit.graph import Circuit, connected
from analyses.interventions.edge_effects import asked_pairs
from analyses.interventions.edges import Edge, edges, receivers, senders
from analyses.interventions.items import Pairs, check_items
from analyses.interventions.standing import standing
from analyses.models import Models, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result, Where

QUANTILE, FLOOR = 0.95, 0.02
N_PAIRS, N_EVALUATED = 256, 64
"""Pairs of a procedure that a circuit is found on, and that it is evaluated on, unless other numbers are asked for."""
DOES_NOT_SHOW = (
    "edges that work only together with another one, or whose work another one does as well: each is judged alone "
    "(incompleteness shows how much they matter). Nor what a part computes, nor what it does for another contrast"
)


@sized_threads
def run(
    models: Models,
    items: Procedure | Pairs,
    pair: str | None = None,
    *,
    controls: Sequence[str] = (),
    threshold: float | None = None,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """The circuit of a contrast in each model: axes ``sender``, ``receiver`` and ``seed``.

    The value is the effect of an edge of the circuit (logits: the right answer's less the corrupt one's, lost when the
    clean run reads the corrupt contribution), and 0 for an edge that is not in it. ``circuits`` makes graphs of it.

    - ``models``: one for each seed, all of one shape, that read tokens;
    - ``items``: the procedure, of whose minimal pairs ``n_items`` (256 by default) are taken; or ``Pairs``;
    - ``pair``: the kind of minimal pair, such as ``"symbol"``;
    - ``controls``: kinds of pairs that change something the contrast does not ask about, such as ``"distractor value"``
      for ``"answer"``: they must leave in place what the model uses to find the answer;
    - ``threshold``: the smallest size of an edge (logits), by default from the controls, for each model;
    - ``seed``: of the pairs. Every model gets the same;
    - ``n_items``: how many pairs.

    ``metadata`` by seed: ``threshold``, ``controls`` (the quantile of each), ``clean`` and ``corrupt`` scores; and
    ``evaluation``, the measures of ``analyses.circuit.evaluate``, by measure and seed.
    Errors: ``ConfigError``, ``PartError`` and ``RuntimeError`` as in ``analyses.path_patching.run``.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    require(cfg.input == "tokens", "input", cfg.input, "'tokens': a circuit is judged by a difference of two logits")
    require(threshold is None or threshold > 0, "threshold", threshold, "above 0 (logits), or None")
    require(isinstance(items, Procedure) or not controls, "controls", list(controls), "none with pairs of one's own")
    n_pairs = N_PAIRS if n_items is None and isinstance(items, Procedure) else n_items
    found_on, judged_on = _halves(items, pair, seed, n_pairs)
    chosen, _, settings = asked_pairs(found_on, pair if isinstance(items, Procedure) else None, "changed", None, seed,
                                       n_pairs)  # fmt: skip
    check_items(chosen.items, cfg, "pairs")

    rows, columns = senders(cfg), receivers(cfg)
    values = np.full((len(rows), len(columns), len(of_seed)), np.nan)
    by_label: dict[str, dict[str, Any]] = {}
    watched = progress(of_seed.items(), "circuits")
    for number, (label, model) in enumerate(watched):
        circuit, facts = _found(model, found_on, pair, controls, threshold, label, seed, n_pairs)
        facts["evaluation"] = evaluate(model, circuit, judged_on, seed)
        by_label[str(label)] = facts
        for edge in edges(cfg):
            values[rows.index(edge.sender), columns.index(edge.receiver), number] = circuit.effects.get(edge, 0.0)
    undefined: list[tuple[Where, str]] = [
        ({"sender": sender, "receiver": receiver}, "the sender does not write before the receiver reads")
        for receiver in columns
        for sender in rows
        if sender not in senders(cfg, receiver)
    ]
    accuracy = {label: facts.pop("accuracy") for label, facts in by_label.items()}
    scores = {name: {label: facts["evaluation"][name] for label, facts in by_label.items()
                     if not np.isnan(facts["evaluation"][name])} for name in MEASURES}  # fmt: skip
    procedure = items if isinstance(items, Procedure) else None
    return Result(
        name="edges of the circuit",
        values=values,
        axes=("sender", "receiver", "seed"),
        coordinates={"sender": rows, "receiver": columns, "seed": list(of_seed)},
        unit="logits",
        direction="positive: the score falls when the clean run reads the corrupt contribution; 0: not in the circuit",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        undefined=undefined,
        metadata={
            **settings,
            **standing(procedure, chosen.items, accuracy, "logit_diff"),
            "metric": "logit_diff",
            "rule": {"quantile": QUANTILE, "floor": FLOOR} if threshold is None else {"threshold": threshold},
            "n_pairs": len(chosen.items),
            "n_pairs_evaluated": len(judged_on),
            **{name: {label: facts[name] for label, facts in by_label.items()}
               for name in ("threshold", "controls", "clean", "corrupt")},
            "evaluation": scores,
            "zero": "not in the circuit",
            "sentences": [_judged(scores, len(judged_on))],
        },
    )  # fmt: skip


def circuits(found: Result) -> dict[Label, Circuit]:
    """The graph of each seed, from what ``run`` returned."""
    require(found.name == "edges of the circuit", "found", found.name, "what analyses.circuit.run returns")
    result: dict[Label, Circuit] = {}
    for number, label in enumerate(found.coordinates["seed"]):
        cells = found.values[..., number]
        effects = {
            Edge(str(sender), str(receiver)): float(cells[row, column])
            for column, receiver in enumerate(found.coordinates["receiver"])
            for row, sender in enumerate(found.coordinates["sender"])
            if np.nan_to_num(cells[row, column]) != 0
        }
        result[label] = Circuit(effects)
    return result


def _found(
    model: HookedTransformer,
    items: Procedure | Pairs,
    pair: str | None,
    controls: Sequence[str],
    threshold: float | None,
    label: Label,
    seed: int,
    n_items: int | None,
) -> tuple[Circuit, dict[str, Any]]:
    """The circuit of one model, and what it was decided by."""
    effects, scores = edge_effects(model, items, pair, label=label, seed=seed, n_items=n_items)
    sizes = {}
    if threshold is None:
        found = control_effects(model, items, pair, controls, label=label, seed=seed, n_items=n_items)
        sizes = {name: size(each, QUANTILE) for name, each in found.items()}
        threshold = max(FLOOR * abs(scores["clean"] - scores["corrupt"]), *sizes.values())
    kept = {edge: effect for edge, effect in effects.items() if effect != 0 and abs(effect) >= threshold}
    return connected(kept), {"threshold": threshold, "controls": sizes, **scores}


def _judged(scores: dict[str, dict[str, float]], n_pairs: int) -> str:
    """How good the circuits are, over the models: medians, and the lowest and highest."""

    def of(measure: str) -> str:
        values = list(scores[measure].values())
        low, middle, high = (f"{value:.3g}" for value in (min(values), np.median(values), max(values)))
        return middle if low == high else f"{middle} ({low} to {high})"

    edges = f"Circuits of {of('edges')} edges"
    if not scores["faithfulness"]:
        return f"{edges}: none can be judged."
    return (
        f"{edges}, judged on {n_pairs} other pairs: alone they have {of('faithfulness')} of what the pairs change "
        f"({of('faithfulness of random edges')} of as many random edges), without them "
        f"{of('left without the circuit')} is left; incompleteness {of('incompleteness')}; the share of edges that "
        f"matter is {of('minimality')}."
    )


def _halves(
    items: Procedure | Pairs, pair: str | None, seed: int, n_items: int | None
) -> tuple[Procedure | Pairs, Pairs]:
    """What the circuit is found on, and the pairs that it is judged on."""
    if isinstance(items, Procedure):
        chosen, _, _ = asked_pairs(items, pair, "changed", None, seed + 1, min(n_items or N_EVALUATED, N_EVALUATED))
        return items, chosen.pairs
    require(isinstance(items, Pairs), "items", items, "a procedure, such as get('sort')(), or Pairs")
    require(len(items) >= 2, "items", f"{len(items)} pairs", "at least 2: half of them judge the circuit")
    half = len(items) // 2
    judged, _, _ = asked_pairs(items.take(slice(half, None)), None, "changed", None, seed, None)
    return items.take(slice(half)), judged.pairs.take(slice(N_EVALUATED))
