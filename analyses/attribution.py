"""Attribution patching: what patching a part would change, estimated from gradients, beside the exact effect.

**Gradient.** The effect of putting the source run's activation a' in place of the base run's a is estimated to first
order, (a' - a) . dm/da, with the gradient of the metric m taken in the base run (Nanda 2023, "Attribution patching";
Syed, Rager and Conmy 2023, arXiv 2310.10348). One backward pass gives every part. Behind a saturated softmax or at a
flat place of the metric the slope is near zero, whatever the part does.

**Integrated.** The same difference times the mean of the gradient over ``steps`` runs between the two, as in integrated
gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365), here along the path of the *inputs*: the token embeddings
go in a straight line from those of the base to those of the source, at the midpoints of ``steps`` equal stretches, and
every other activation follows (EAP-IG of Hanna, Pezzelle and Belinkov 2024, arXiv 2403.17806). At the embeddings
themselves this sums up to the difference of the two runs when the steps are many: ``metadata["completeness"]`` has what
it sums up to, as a share.

**Exact.** Beside both stands the exact activation patch, on the first ``n_exact`` pairs, and in
``metadata["deviation"]`` how far the estimates are from it on these pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr

from analyses.interventions.activations import Activations, gradients, record
from analyses.interventions.exchange import DIRECTIONS, Cell, Exchange, exchanged
from analyses.interventions.items import Pairs, Tokens, asked, check_items, chosen_pairs, cut, inputs, order_of_length
from analyses.interventions.metrics import METRICS, Function, Metric, key_of, metric_of, scored_tokens
from analyses.interventions.patch import Patch
from analyses.interventions.rows import sites_of_rows
from analyses.interventions.standing import standing
from analyses.models import Models, batches_of, by_seed, sized_threads
from mechproc.errors import PartError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site, components
from mechproc.procedures.base import Items, Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result

METHODS = ("gradient", "integrated", "exact")
STEPS = 8
"""Runs between base and source."""
N_EXACT = 64
"""Pairs on which the exact effects are measured."""
LARGE = 0.25
"""The mean deviation from the exact effects, as a share of their mean size, that is warned of."""
DOES_NOT_SHOW = (
    "the effect of a patch where the deviation from the exact one is large; a part that does the same in both runs. "
    "A gradient misses parts behind a saturated softmax: on 100 plantings of each family it found every part of a "
    "haystack whose keys change in 0 %, and of brackets whose depth changes in 1 % (integrated: 100 and 89 %; exact "
    "patching: 100 %). It flags parts without effect: in 0 to 22 % of the plantings, by question (integrated: 0 to 8 %)"
)


@sized_threads
def run(
    models: Models,
    items: Procedure | Pairs,
    pair: str | None = None,
    parts: Sequence[str] | None = None,
    metric: str | Metric | Function | None = None,
    direction: str = "clean_into_corrupt",
    *,
    positions: Literal["each"] | None = None,
    tokens: Tokens = "changed",
    steps: int = STEPS,
    n_exact: int = N_EXACT,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """Estimated and exact effects of patching each part: axes ``method``, ``part``, (``position``,) ``seed``.

    ``method`` is ``"gradient"``, ``"integrated"`` (both over all pairs) or ``"exact"`` (over the first ``n_exact``).
    Values are means over scored tokens, in the unit of the metric; sign as in ``analyses.patching``: positive where the
    patch moves the base run towards the source's answer. ``metadata["deviation"]``, by method and seed: ``mean`` and
    ``largest`` distance from the exact effects on the same pairs, ``mean_exact``, the mean size of those, and
    ``rank_correlation`` (Spearman, over parts, and positions).

    - ``models``, ``items``, ``pair``, ``parts``, ``metric``, ``direction``, ``tokens``: as for ``analyses.patching``;
      the metric must have a gradient, so not ``"accuracy"``;
    - ``positions``: ``"each"`` keeps positions apart; by default they are patched together;
    - ``steps``: runs between base and source for the integrated gradient.

    Errors: ``ConfigError`` and ``PartError`` as for ``analyses.patching``, and for a metric without a gradient.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    require(direction in DIRECTIONS, "direction", direction, f"one of {', '.join(DIRECTIONS)}")
    require(positions in (None, "each"), "positions", positions, "None, or 'each'")
    require(steps >= 1, "steps", steps, "at least 1")
    require(n_exact >= 1, "n_exact", n_exact, "at least 1")
    rows = sites_of_rows(components(cfg) if parts is None else parts, cfg)
    for part, sites in rows.items():
        if any(site.hook.endswith("hook_attn_scores") for site in sites):
            raise PartError(f"{part!r} has infinite scores at keys behind the query: attribute to the pattern")
    pairs, settings = chosen_pairs(items, pair, seed, n_items)
    kept, narrowed = asked(pairs, tokens)
    settings["n_pairs_left_out"], pairs = len(pairs) - len(kept), narrowed
    for name, block in (("clean items", pairs.clean), ("corrupt items", pairs.corrupt)):
        check_items(block, cfg, name)
    with_foils = cfg.input == "tokens"
    measured = metric_of(metric if metric is not None else "logit_diff" if with_foils else "loss")
    require(measured is not METRICS["accuracy"], "metric", "accuracy", "one with a gradient: 'loss', 'logit_diff'")
    allowed = with_foils or measured is not METRICS["logit_diff"]
    require(allowed, "metric", "logit_diff", "'loss' or one's own for models that read vectors")
    places: list[Label] = list(range(cut(pairs.clean).tokens.shape[1] - 1)) if positions == "each" else ["all"]
    cells = [Cell(sites, np.array([p]) if p != "all" else None) for sites in rows.values() for p in places]
    into_clean = direction == "corrupt_into_clean"
    base, source = (pairs.clean, pairs.corrupt) if into_clean else (pairs.corrupt, pairs.clean)
    asked_of = Exchange(base, source, pairs.clean, pairs.corrupt if with_foils else None, cells, measured)
    sample = asked_of.take(slice(n_exact))

    sign = -measured.sign if into_clean else measured.sign
    n_tokens = pairs.clean.scored.sum(axis=1)
    columns, deviation, known = [], {method: {} for method in METHODS[:2]}, {}
    for label, model in progress(of_seed.items(), "attribution"):
        exact = exchanged(model, sample, label)
        estimates, completeness = _estimates(model, asked_of, list(rows.values()), places, steps)
        effects = (exact.patched - exact.base).sum(-1) / exact.n_tokens.sum()
        for method, found in zip(METHODS, estimates, strict=False):
            on_sample = found[:, : len(exact.base)].sum(-1) / exact.n_tokens.sum()
            deviation[method][str(label)] = _deviation(on_sample, effects)
        columns.append(sign * np.stack([*(one.sum(-1) / n_tokens.sum() for one in estimates), effects]) + 0.0)
        ends = {end: float(getattr(exact, end).sum() / exact.n_tokens.sum()) for end in ("base", "source")}
        for key, value in {**ends, "completeness": completeness, "accuracy": exact.accuracy}.items():
            known.setdefault(key, {})[str(label)] = value
    name = key_of(measured)
    axes: dict[str, list[Label]] = {"method": list(METHODS), "part": list(rows)}
    axes |= {"position": places} if positions == "each" else {}
    axes["seed"] = list(of_seed)
    settings |= standing(items if isinstance(items, Procedure) else None, sample.answers, known.pop("accuracy"), name)
    settings["warnings"] = [*settings["warnings"], *_warnings(deviation)]
    names = ("clean", "corrupt") if into_clean else ("corrupt", "clean")
    return Result(
        name=f"{measured.name} by attribution",
        values=np.stack(columns, -1).reshape([len(labels) for labels in axes.values()]),
        axes=tuple(axes),
        coordinates=axes,
        unit=measured.unit,
        direction=DIRECTIONS[direction],
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        metadata={
            **settings,
            **{run: known.pop(end) for run, end in zip(names, ("base", "source"), strict=True)},
            **known,
            "deviation": deviation,
            "metric": name,
            "direction": direction,
            "tokens": tokens,
            "steps": steps,
            "n_items": len(pairs),
            "n_exact": len(sample.answers),
            "n_scored_tokens": int(pairs.clean.scored.sum()),
        },
    )


def _estimates(
    model: HookedTransformer,
    exchange: Exchange,
    rows: Sequence[Sequence[Site]],
    places: Sequence[Label],
    steps: int,
) -> tuple[list[np.ndarray], float]:
    """Gradient and integrated estimates, float64 [cell, item], each summed over the scored tokens of an item.

    Beside them the integrated estimate at the embeddings, as a share of the difference of the two runs.
    """
    hooks = sorted({site.hook for sites in rows for site in sites} | {"hook_embed"})
    n, order = len(exchange.answers), order_of_length(exchange.answers)
    found = np.zeros((2, len(rows) * len(places), n))
    at_embeddings, difference = 0.0, 0.0
    for batch in batches_of(exchange.answers):
        chosen = exchange.take(order[batch]).cut()
        base, source = (record(model, items, hooks) for items in (chosen.base, chosen.source))
        slopes = [gradients(model, chosen.base, hooks, chosen.metric, chosen.foils, answers=chosen.answers)]
        along: Activations = {hook: torch.zeros_like(values) for hook, values in slopes[0].items()}
        for step in range(steps):
            share = (step + 0.5) / steps
            between = base["hook_embed"] + share * (source["hook_embed"] - base["hook_embed"])
            here = gradients(
                model, chosen.base, hooks, chosen.metric, chosen.foils, answers=chosen.answers, embeddings=between
            )
            for hook, gradient in here.items():
                along[hook] += gradient / steps
        slopes.append(along)
        n_tokens = torch.from_numpy(chosen.answers.scored.sum(axis=1))  # a gradient is that of an item's mean
        for method, gradient in enumerate(slopes):
            for row, sites in enumerate(rows):
                by_position = sum(_product(site, gradient, base, source) for site in sites)
                values = (by_position * n_tokens[:, None]).double().cpu().numpy()
                if places == ["all"]:
                    found[method, row, order[batch]] = values.sum(-1)
                else:
                    kept = values.T[: len(places)]
                    found[method, row * len(places) : row * len(places) + len(kept), order[batch]] = kept.T
        whole = _product(Site("embed", "hook_embed", None, None), along, base, source).sum(-1)
        at_embeddings += float((whole * n_tokens).sum())
        difference += float(sum(sign * _scores(model, chosen, items) for sign, items in
                                ((1, chosen.source), (-1, chosen.base))))  # fmt: skip
    return list(found), at_embeddings / difference if difference else float("nan")


def _product(site: Site, gradient: Activations, base: Activations, source: Activations) -> torch.Tensor:
    """(source - base) . gradient of a site at each position (of a pattern, each query): [item, pos]."""
    patch = Patch(site, None, site.view(source[site.hook] - base[site.hook]) * site.view(gradient[site.hook]))
    moved = patch.values.movedim(patch.pos_axis, 1)
    return moved.flatten(2).sum(-1)


def _scores(model: HookedTransformer, exchange: Exchange, items: Items) -> float:
    """The sum of the scores of a run over the scored tokens."""
    cells = model.cfg.input == "vectors"
    tokens = scored_tokens(exchange.answers, model.cfg.device, exchange.foils, cells)
    with torch.inference_mode():
        logits = model(inputs(items, model.cfg))
    return float(exchange.metric(logits[tokens.item, tokens.position].double(), tokens).sum())


def _deviation(found: np.ndarray, exact: np.ndarray) -> dict[str, float | None]:
    """How far estimates are from the exact effects; the rank correlation is ``None`` where one side is constant."""
    apart = np.abs(found - exact)
    alike = len(exact) < 2 or np.ptp(found) == 0 or np.ptp(exact) == 0
    ranks: Any = None if alike else spearmanr(found, exact)
    correlation = None if ranks is None else float(ranks.statistic)
    return {
        "mean": float(apart.mean()),
        "largest": float(apart.max()),
        "mean_exact": float(np.abs(exact).mean()),
        "rank_correlation": correlation,
    }


def _warnings(deviation: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """A sentence for each method that is far from the exact effects in some model."""
    sentences = []
    for method, of_seed in deviation.items():
        shares = [100 * d["mean"] / d["mean_exact"] for d in of_seed.values() if d["mean_exact"] > 0]
        far = [share for share in shares if share > 100 * LARGE]
        if far:
            sentences.append(
                f"The {method} estimate is off by up to {max(far):.0f} % of the mean exact effect, and by more than "
                f"{100 * LARGE:.0f} % in {len(far)} of {len(of_seed)} models: read the exact one."
            )
    return sentences
