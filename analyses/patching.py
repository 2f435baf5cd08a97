"""Activation patching: run a model on one item, put in what a part does in another run, and see what that changes.

**Direction.** Clean into corrupt (denoising): the model reads the corrupt item, a part does what it does in the clean
one, and the score says how far the clean answer comes back: what is enough. Corrupt into clean (noising): the reverse,
and the score says how far the clean answer is lost: what is needed. Scores are always taken against the clean item's
answer; ``logit_diff`` is the logit of that answer less the logit of the corrupt item's.

**Recovery.** (patched - base) / (source - base), where the base is the run that is patched and the source the run that
the activation comes from: 0, the patch changes nothing; 1, it gives the score of the source. It is undefined where the
two runs score the same. Directions and normalisation as in Heimersheim and Nanda 2024 (arXiv 2404.15255).

**Across models.** With ``donors`` the activation comes from another model of the same shape: from the end of a training
into its beginning, or from a pretrained model into a fresh one.

**Controls.** Before anything is measured, every part is replaced by its own activation, which must change the logits by
exactly 0, and all embeddings by those of the other item, which must give the other run's logits exactly. In the sweeps
an untouched row is held to the run that is patched, and a row with all embeddings patched to the other run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from analyses.interventions.exchange import DIRECTIONS, Cell, Exchange, Exchanged, exchanged
from analyses.interventions.items import N_PAIRS, Pairs, Tokens, asked, check_items, chosen_pairs, cut
from analyses.interventions.metrics import METRICS, Function, Metric, key_of, metric_of
from analyses.interventions.patch import Positions, checked_positions
from analyses.interventions.rows import sites_of_rows
from analyses.interventions.standing import standing
from analyses.models import Models, by_seed, donors_of, sized_threads
from mechproc.errors import require
from mechproc.model.parts import Ablation, components
from mechproc.procedures.base import Items, Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result, Where

Places = Positions | Literal["each"] | Mapping[str, Positions]
OF_A_DONOR = "positive: the part's activation of the donor makes the answers better"
RECOVERY = "0: the patch changes nothing; 1: it gives the score of the run that the activation comes from"
DOES_NOT_SHOW = (
    "a part that does the same in both runs, such as one that finds a place which the pair leaves where it is (of "
    "planted parts that are needed and do so, 0 % are flagged); whether a part reaches the answer directly or through "
    "later parts"
)
ONE_WAY = {"clean_into_corrupt": "that the part is needed", "corrupt_into_clean": "that the part is enough"}
SAME = 1e-6
"""Two runs whose scores are no further apart than this, relative to the larger one (or 1), have no recovery."""


@sized_threads
def run(
    models: Models,
    items: Procedure | Pairs | Items,
    pair: str | None = None,
    parts: Sequence[str] | Any = None,
    metric: str | Metric | Function | None = None,
    direction: str = "clean_into_corrupt",
    *,
    positions: Places = None,
    tokens: Tokens = "changed",
    by_item: bool = False,
    donors: Models | None = None,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """What patching each part changes: axes ``quantity``, ``part``, (``position``, ``item``,) ``seed``.

    ``quantity`` is ``"effect"`` (the change of the score, in the unit of the metric and with the sign that the
    direction says) or ``"recovery"`` (a share of the distance between the two runs); the functions of these names take
    one of them out. A value is a mean over scored tokens. ``metadata`` has the scores of the ``clean`` and ``corrupt``
    run by seed (with donors: of ``base`` and ``source``), and ``warnings`` that a reader needs first.

    - ``models``: one for each seed, all of one shape;
    - ``items``: the procedure, of which the first ``n_items`` (256 by default) test pairs of the kind ``pair`` and of
      ``seed`` are taken, or ``Pairs`` of one's own; with donors also items, or a procedure without ``pair``: model and
      donor then read the same items;
    - ``parts``: the rows, each patched as a whole: part expressions, or hooks such as ``"blocks.0.hook_resid_pre"`` and
      ``"blocks.1.attn.hook_q[:, :, 2]"``; ``None`` for every head and MLP;
    - ``metric``: ``"logit_diff"`` (the default where there are pairs of tokens), ``"loss"`` (nats; the default
      elsewhere), ``"accuracy"``, a ``Metric``, or a function of logits and ``ScoredTokens``;
    - ``direction``: ``"clean_into_corrupt"`` or ``"corrupt_into_clean"``;
    - ``positions``: where parts are patched: everywhere by default; whole numbers [k], or [item, k]; ``"each"``, one
      after the other; or such numbers by name. The last two make the axis ``position``. Positions of a pattern are its
      queries. In the mean over items an item counts at the positions that it has;
    - ``tokens``: which scored tokens of a pair count: ``"changed"``, those whose right answer differs between its two
      items; ``"unchanged"``, those whose answer is the same; or ``"all"``, as without pairs;
    - ``by_item``: keep the items apart, numbered as the pairs that were given or drawn;
    - ``donors``: the model, by seed, that activations are taken from.

    Errors: ``ConfigError`` for models, pairs or positions that do not fit; ``PartError`` for a part that does not exist
    or whose patch means nothing; ``RuntimeError`` when a check fails.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    require(direction in DIRECTIONS, "direction", direction, f"one of {', '.join(DIRECTIONS)}")
    donor_of = None if donors is None else donors_of(donors, of_seed)
    rows = sites_of_rows(
        components(cfg) if parts is None else parts, cfg, Ablation.RESAMPLE if donors is None else None
    )
    paired = donors is None or isinstance(items, Pairs) or pair is not None
    pairs, settings = chosen_pairs(items, pair, seed, n_items) if paired else _alone(items, seed, n_items)
    kept, asked_about = asked(pairs, tokens if paired else "all")
    places = {k: p[kept] if p is not None and p.ndim == 2 else p for k, p in _places(positions, pairs.clean).items()}
    settings["n_pairs_left_out"], pairs = len(pairs) - len(kept), asked_about
    for name, block in (("clean items", pairs.clean), ("corrupt items", pairs.corrupt)):
        check_items(block, cfg, name)
        if donor_of is not None:
            check_items(block, next(iter(donor_of.values())).cfg, f"{name} of the donors")
    with_foils = paired and cfg.input == "tokens"
    measured = metric_of(metric if metric is not None else "logit_diff" if with_foils else "loss")
    needs_foils = measured is METRICS["logit_diff"]
    require(
        with_foils or not needs_foils, "metric", "logit_diff", "'loss', 'accuracy' or one's own without token pairs"
    )

    into_clean = direction == "corrupt_into_clean"
    base, source = (pairs.clean, pairs.corrupt) if into_clean else (pairs.corrupt, pairs.clean)
    cells = [Cell(sites, place) for sites in rows.values() for place in places.values()]
    exchange = Exchange(base, source, pairs.clean, pairs.corrupt if with_foils else None, cells, measured)
    found = {}
    for label, model in progress(of_seed.items(), "patching"):
        found[label] = exchanged(model, exchange, label, None if donor_of is None else donor_of[label])

    name = key_of(measured)
    procedure = items if isinstance(items, Procedure) else None
    ends = ("base", "source") if donors is not None else ("clean", "corrupt") if into_clean else ("corrupt", "clean")
    settings |= standing(procedure, pairs.clean, {str(k): each.accuracy for k, each in found.items()}, name)
    for end, which in zip(ends, ("base", "source"), strict=True):
        settings[end] = {str(k): float(getattr(e, which).sum() / e.n_tokens.sum()) for k, e in found.items()}
    settings |= {"metric": name, "direction": direction, "tokens": tokens if paired else "all", "n_items": len(pairs)}
    settings |= {"n_scored_tokens": int(pairs.clean.scored.sum()), "donors": donors is not None}
    sign = -measured.sign if into_clean else measured.sign
    absent = _absent(places, pairs.clean) if positions is not None and isinstance(positions, str) else None
    effects, recoveries = zip(*(_values(each, sign, absent, by_item) for each in found.values()), strict=True)
    axes: dict[str, list[Label]] = {"quantity": ["effect", "recovery"], "part": list(rows)}
    if _is_axis(positions):
        axes["position"] = list(places)
    if by_item:
        axes["item"] = kept.tolist()
    axes["seed"] = list(of_seed)
    values = np.stack([np.stack(effects, -1), np.stack(recoveries, -1)])
    values = values.reshape([len(labels) for labels in axes.values()])
    return Result(
        name=f"{measured.name} by patching",
        values=values,
        axes=tuple(axes),
        coordinates=axes,
        unit=f"{measured.unit} (recovery: fraction)",
        direction=DIRECTIONS[direction] if paired else OF_A_DONOR,
        what_it_does_not_show=f"{DOES_NOT_SHOW}; and {ONE_WAY[direction]}.",
        undefined=_undefined(values, axes),
        metadata=settings,
    )


def effect(found: Result) -> Result:
    """The change of the score, without the axis ``quantity``: in the unit of the metric."""
    one = found.select(quantity="effect")
    return dataclasses.replace(one, unit=found.unit.removesuffix(" (recovery: fraction)"), selected={})


def recovery(found: Result) -> Result:
    """The recovery, without the axis ``quantity``: a fraction."""
    one = found.select(quantity="recovery")
    return dataclasses.replace(one, name=f"recovery of {found.name}", unit="fraction", direction=RECOVERY, selected={})


def _alone(items: Any, seed: int, n_items: int | None) -> tuple[Pairs, dict[str, Any]]:
    """Items without partners: model and donor read the same."""
    if isinstance(items, Procedure):
        n = N_PAIRS if n_items is None else n_items
        block = items.items(n, seed=seed, split="test")
        return Pairs(block, block), {"seed": seed, "procedure": items.to_dict(), "split": "test"}
    require(isinstance(items, Items), "items", type(items).__name__, "a procedure, its items, or Pairs")
    require(n_items is None, "n_items", n_items, "None when items are given: take them with Items.take")
    return Pairs(items, items), {"seed": seed}


def _is_axis(positions: Places) -> bool:
    return isinstance(positions, (str, Mapping))


def _places(positions: Places, items: Items) -> dict[Label, np.ndarray | None]:
    """Where parts are patched, by the labels of the axis ``position``; one label where there is no such axis."""
    n_items, n_pos = items.tokens.shape
    if isinstance(positions, str):
        require(positions == "each", "positions", positions, "'each', whole numbers, or whole numbers by name")
        last = cut(items).tokens.shape[1] - 1  # what comes after the last scored position changes nothing
        return {place: np.array([place]) for place in range(last)}
    if isinstance(positions, Mapping):
        require(len(positions) > 0, "positions", {}, "at least one name")
        return {name: checked_positions(p, n_items, n_pos, f"positions {name!r}") for name, p in positions.items()}
    return {"all": None if positions is None else checked_positions(positions, n_items, n_pos)}


def _absent(places: Mapping[Label, Any], items: Items) -> np.ndarray:
    """bool [position, item]: where an item has ended before a position."""
    return np.array(list(places))[:, None] >= items.n_tokens


def _values(found: Exchanged, sign: float, absent: np.ndarray | None, by_item: bool) -> tuple[np.ndarray, np.ndarray]:
    """Effect and recovery of every cell, [cell] or [cell, item]; NaN where there is none."""
    changes, distances = found.patched - found.base, found.source - found.base
    counts = np.broadcast_to(found.n_tokens, changes.shape)
    if absent is not None:
        gone = np.tile(absent, (len(changes) // len(absent), 1))
        changes, counts = np.where(gone, 0.0, changes), np.where(gone, 0.0, counts)
    ends = [np.where(counts > 0, end, 0.0) for end in (found.base, found.source, distances)]
    if not by_item:
        changes, counts, *ends = (each.sum(-1) for each in (changes, counts, *ends))
    with np.errstate(invalid="ignore", divide="ignore"):
        change, base, source, distance = (each / counts for each in (changes, *ends))
        apart = np.abs(distance) > SAME * np.maximum(1.0, np.maximum(np.abs(base), np.abs(source)))
        return sign * change + 0.0, np.where(apart, change / distance, np.nan)


def _undefined(values: np.ndarray, axes: Mapping[str, list[Label]]) -> list[tuple[Where, str]]:
    """Why cells have no value: one entry for all parts, as the reason never depends on the part."""
    part = list(axes).index("part")
    empty = np.array(np.isnan(values).all(axis=part))
    others = [axis for axis in axes if axis != "part"]
    reasons: list[tuple[Where, str]] = []
    ended = empty[0]
    for quantity, absent in zip(axes["quantity"], empty, strict=True):
        for index in np.argwhere(absent):
            where = {axis: axes[axis][i] for axis, i in zip(others[1:], index.tolist(), strict=True)}
            why = "the item has ended" if ended[tuple(index)] else "the two runs score the same"
            reasons.append(({"quantity": quantity, **where}, why))
    return reasons
