"""What the residual stream says about the answer: direct logit attribution and the logit lens.

**Direct logit attribution** (``run``). The residual stream at the end is the sum of what embeddings, heads, MLPs and
biases wrote into it. With the scale of the final LayerNorm *frozen* at its value in the intact run, the logits are
linear in that sum, so that each sender has its share of them (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"; "direct logit attribution" in TransformerLens). The shares, with those of the biases of the final
LayerNorm and of the unembedding, add up to the score itself; each call checks that to 1e-5 of the largest share.

**Logit lens** (``lens``). The residual stream after each layer is read as if it were the last: through the final
LayerNorm, with a scale of its own, and the unembedding (nostalgebraist 2020, "interpreting GPT: the logit lens").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analyses.interventions.edges import contributions
from analyses.interventions.items import N_PAIRS, Pairs, Tokens, asked, check_items, chosen_pairs, cut, order_of_length
from analyses.interventions.metrics import METRICS, Function, Metric, ScoredTokens, key_of, metric_of, scored_tokens
from analyses.interventions.standing import standing
from analyses.interventions.trace import Trace, Weights, at, check_trace, require_finite, trace
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items, Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result

TOLERANCE = 1e-5
"""How far the sum of all shares may be from the score, relative to the largest share (or 1)."""
CHECKED_ITEMS = 8
"""Items on which the forward pass is held to the hooked model first."""
AGAINST_FOIL = "the logit of the right token less that of the corrupt item's right token"
AGAINST_MEAN = "the logit of the right token less the mean over all tokens"
OF_CELLS = "the logits of cells that are 1 less those of cells that are 0, each over the number of cells"
ATTRIBUTION_DOES_NOT_SHOW = (
    "what a sender does through later parts, nor through the scale of the final LayerNorm, which is frozen; a part may "
    "write against the answer because another writes for it, and a large share is no sign that the part is needed"
)
LENS_DOES_NOT_SHOW = (
    "that later layers use what can be read here, nor that what cannot be read with the unembedding is absent: earlier "
    "layers may write it in other directions"
)


@sized_threads
def run(
    models: Models,
    items: Procedure | Pairs | Items,
    pair: str | None = None,
    *,
    tokens: Tokens = "changed",
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """What each sender adds to the score of the intact model: axes ``sender`` and ``seed``, mean over scored tokens.

    With pairs, the score is the logit of the right token of the clean item less that of its corrupt partner's; of items
    without partners, the logit of the right token less the mean of all logits; of vectors, the signed mean of the
    logits of their cells. ``metadata["score"]`` says which, ``metadata["intact"]`` is what the shares of a seed add up
    to. Senders are embeddings, positions, heads, ``b_O`` of each layer and MLPs (``b_out`` included), then
    ``"ln_final.b"`` and ``"b_U"`` where the model has them.

    - ``items``, ``pair``: a procedure and a kind of its minimal pairs, of which the first ``n_items`` (256 by default)
      test pairs are taken, or a procedure alone; ``Pairs`` or items of one's own;
    - ``tokens``: which scored tokens of pairs count, as for ``analyses.patching.run``.

    Errors: ``ConfigError`` for models or items that do not fit; ``RuntimeError`` when the shares do not add up.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    clean, foils, settings = _items(items, pair, tokens, seed, n_items, cfg)
    columns, intact, accuracy = [], {}, {}
    for label, model in progress(of_seed.items(), "logit attribution"):
        sums: dict[str, float] = {}
        right, total = 0.0, 0.0
        for found, tokens_here in _runs(model, clean, foils, label):
            for sender, shares in _shares(found, tokens_here).items():
                sums[sender] = sums.get(sender, 0.0) + float(shares.sum())
            logits = found.logits[found.real].double()
            right += float(METRICS["accuracy"](logits, tokens_here).sum())
            total += float(_score(logits, tokens_here).sum())
        n = int(clean.scored.sum())
        columns.append([each / n for each in sums.values()])
        intact[str(label)], accuracy[str(label)], senders = total / n, right / n, list(sums)
    score = OF_CELLS if cfg.input == "vectors" else AGAINST_MEAN if foils is None else AGAINST_FOIL
    procedure = items if isinstance(items, Procedure) else None
    return Result(
        name="direct logit attribution",
        values=np.array(columns).T,
        axes=("sender", "seed"),
        coordinates={"sender": senders, "seed": list(of_seed)},
        unit="logits",
        direction="positive: the sender writes in favour of the right answer",
        what_it_does_not_show=f"{ATTRIBUTION_DOES_NOT_SHOW}.",
        metadata={
            **settings,
            **standing(procedure, clean, accuracy, "logit_diff"),
            "metric": "logit_diff" if foils is not None else "logit",
            "score": score,
            "layernorm": "the scale of the final LayerNorm is frozen at that of the intact run",
            "intact": intact,
            "n_items": len(clean),
            "n_scored_tokens": int(clean.scored.sum()),
        },
    )


@sized_threads
def lens(
    models: Models,
    items: Procedure | Pairs | Items,
    pair: str | None = None,
    metric: str | Metric | Function = "accuracy",
    *,
    positions: str | None = None,
    tokens: Tokens = "changed",
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """How good the answer is that can be read off the residual stream: axes ``site``, (``position``,) ``seed``.

    Sites are the hooks of the residual stream: before the first layer, after each attention and after each layer; the
    last one gives the model's own score. ``metric``: ``"accuracy"``, ``"loss"``, ``"logit_diff"`` (with pairs), a
    ``Metric`` or a function, as everywhere. ``positions="each"`` keeps scored positions apart. Other arguments and
    errors are those of ``run``.
    """
    of_seed = by_seed(models)
    cfg = next(iter(of_seed.values())).cfg
    require(positions in (None, "each"), "positions", positions, "None, or 'each'")
    clean, foils, settings = _items(items, pair, tokens, seed, n_items, cfg)
    measured = metric_of(metric)
    require(foils is not None or measured is not METRICS["logit_diff"], "metric", "logit_diff", "another without pairs")
    sites = []
    for layer in range(cfg.n_layers):
        mid = [] if cfg.attn_only else [f"blocks.{layer}.hook_resid_mid"]
        sites += [*([] if layer else ["blocks.0.hook_resid_pre"]), *mid, f"blocks.{layer}.hook_resid_post"]
    where = np.flatnonzero(clean.scored.any(axis=0))
    values, accuracy, intact = np.zeros((len(sites), len(where), len(of_seed))), {}, {}
    counts = clean.scored[:, where].sum(axis=0)
    for column, (label, model) in enumerate(progress(of_seed.items(), "logit lens")):
        right, total = 0.0, 0.0
        for found, tokens_here in _runs(model, clean, foils, label):
            place = np.searchsorted(where, tokens_here.position.cpu().numpy())
            for row, site in enumerate(sites):
                logits = found.weights.logits(at(found.activations[site], found.scored))[found.real].double()
                scores = measured(logits, tokens_here).cpu().numpy()
                values[row, :, column] += np.bincount(place, scores, minlength=len(where))
            own = found.logits[found.real].double()
            right += float(METRICS["accuracy"](own, tokens_here).sum())
            total += float(measured(own, tokens_here).sum())
        accuracy[str(label)], intact[str(label)] = right / counts.sum(), total / counts.sum()
    axes: dict[str, Sequence[Label]] = {"site": sites, "position": where.tolist(), "seed": list(of_seed)}
    values = values / counts[:, None] if positions == "each" else values.sum(axis=1) / counts.sum()
    if positions != "each":
        del axes["position"]
    name = key_of(measured)
    procedure = items if isinstance(items, Procedure) else None
    return Result(
        name=f"{measured.name} of the logit lens",
        values=values,
        axes=tuple(axes),
        coordinates=axes,
        unit=measured.unit,
        direction="higher: more of the answer can be read" if measured.higher_is_better else "lower: more can be read",
        what_it_does_not_show=f"{LENS_DOES_NOT_SHOW}.",
        metadata={
            **settings,
            **standing(procedure, clean, accuracy, name),
            "metric": name,
            "intact": intact,
            "n_items": len(clean),
            "n_scored_tokens": int(counts.sum()),
        },
    )


def _items(
    items: Any, pair: str | None, tokens: Tokens, seed: int, n_items: int | None, cfg: Any
) -> tuple[Items, Items | None, dict[str, Any]]:
    """The items that are read, longest first, the partners that the right token is held against, and the settings."""
    foils, settings = None, {"seed": seed}
    if isinstance(items, Pairs) or pair is not None:
        pairs, settings = chosen_pairs(items, pair, seed, n_items)
        kept, narrowed = asked(pairs, tokens)
        settings |= {"n_pairs_left_out": len(pairs) - len(kept), "tokens": tokens}
        clean, foils = narrowed.clean, narrowed.corrupt
    elif isinstance(items, Procedure):
        clean = items.items(N_PAIRS if n_items is None else n_items, seed=seed, split="test")
        settings |= {"procedure": items.to_dict(), "split": "test"}
    else:
        require(isinstance(items, Items), "items", type(items).__name__, "a procedure, its items, or Pairs")
        require(n_items is None, "n_items", n_items, "None when items are given: take them with Items.take")
        clean = items
    check_items(clean, cfg)
    order = order_of_length(clean)
    foils = None if foils is None or cfg.input == "vectors" else foils.take(order)
    return clean.take(order), foils, settings


def _runs(
    model: HookedTransformer, clean: Items, foils: Items | None, label: Label
) -> Iterator[tuple[Trace, ScoredTokens]]:
    """The intact run of each batch, and its scored tokens."""
    model.require_no_hooks()
    weights = Weights.of(model)
    few = cut(clean.take(slice(CHECKED_ITEMS)))
    require_finite(trace(weights, few).logits, label)
    check_trace(model, few)
    for batch in batches(len(clean)):
        items = cut(clean.take(batch))
        found = trace(weights, items)
        require_finite(found.logits, label)
        other = None if foils is None else foils.take(batch)
        yield found, scored_tokens(items, weights.state["embed.W_E"].device, other, model.cfg.input == "vectors")


def _score(logits: Tensor, tokens: ScoredTokens) -> Tensor:
    """The score of each token, [token], linear in the logits [..., token, d_vocab]."""
    if tokens.targets.ndim == 2:
        return (logits * (2 * tokens.targets.to(logits) - 1)).mean(-1)
    index = tokens.targets.expand(logits.shape[:-1])[..., None]
    right = logits.gather(-1, index)[..., 0]
    if tokens.foils is None:
        return right - logits.mean(-1)
    return right - logits.gather(-1, tokens.foils.expand(logits.shape[:-1])[..., None])[..., 0]


def _shares(found: Trace, tokens: ScoredTokens) -> dict[str, Tensor]:
    """The share of each sender in the score of each scored token, [token]. Errors: ``RuntimeError``."""
    cfg, state = found.cfg, found.weights.state
    normalized = cfg.normalization_type is not None
    unembedding = (state["embed.W_E"].T if cfg.tied_embeddings else state["unembed.W_U"]).double()
    final = at(found.activations[f"blocks.{cfg.n_layers - 1}.hook_resid_post"], found.scored)[found.real].double()
    scale = (final.var(-1, unbiased=False, keepdim=True) + cfg.eps).sqrt() if normalized else torch.ones_like(final)
    gain = state["ln_final.w"].double() if cfg.normalization_type == "LN" else torch.ones_like(final[0])
    shares = {}
    for sender, written in contributions(found).items():
        here = at(written, found.scored)[found.real].double()
        centred = here - here.mean(-1, keepdim=True) if normalized else here
        shares[sender] = _score(centred / scale * gain @ unembedding, tokens)
    if cfg.normalization_type == "LN":
        constant = state["ln_final.b"].double() @ unembedding
        shares["ln_final.b"] = _score(constant.expand(len(final), -1), tokens)
    if cfg.unembed_bias:
        shares["b_U"] = _score(state["unembed.b_U"].double().expand(len(final), -1), tokens)
    whole = _score(found.logits[found.real].double(), tokens)
    worst = float((sum(shares.values()) - whole).abs().max())
    if not worst <= TOLERANCE * max(1.0, *(float(each.abs().max()) for each in shares.values())):
        raise RuntimeError(f"what the senders add to the logits misses the score by {worst}; do not trust the shares")
    return shares
