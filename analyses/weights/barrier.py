"""The loss barrier on the straight line between two models, before and after they are laid over each other.

With the loss L and weights a and b, the barrier is the maximum over t of L((1 - t) a + t b) - ((1 - t) L(a) + t L(b))
(Frankle et al. 2020; after matching, Entezari et al. 2022 and Ainsworth et al. 2023). Zero: the two models lie in one
basin, up to the exchanges that ``analyses.weights.matching`` undoes: the basis of the residual stream, the order of
heads, the basis inside each head, the order of neurons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from analyses.interventions.items import check_items, cut, inputs
from analyses.interventions.metrics import ScoredTokens, metric_of, scored_tokens
from analyses.matrices import Matrices
from analyses.models import Models, batches, sized_threads
from analyses.weights.matching import check_same_shape, in_balance, laid_over, tensors
from analyses.weights.population import Member, Starts, population
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.forward import forward
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import State
from mechproc.procedures.base import Items, Procedure
from mechproc.progress import progress
from mechproc.result import Result

KINDS = ("as they are", "matched")
QUANTITIES = ("barrier", "loss of the first", "loss of the second", "largest loss")
N_ITEMS = 256
"""Test items of a rule, unless another number is asked for."""
SAME = 1e-6
"""How far the loss of a model may be from that of the same model laid over another, per nat: a check of every pair."""
GROUPS = ("within a rule", "between rules", "same start", "untrained")


@sized_threads
def barrier(first: HookedTransformer, second: HookedTransformer, items: Items, *, points: int = 11) -> Result:
    """The loss barrier between two models on ``items``: axes ``matching`` and ``quantity``.

    ``matching``: ``as they are`` (the same folded weights, heads in balanced factors, nothing exchanged) and
    ``matched``. The loss (nats) is the mean over scored tokens at ``points`` equally spaced places of the line, ends
    included. Errors: ``ConfigError`` for models of other shapes, or items that they cannot read.
    """
    require(points >= 3, "points", points, "at least 3: both ends and one between")
    check_items(items, ModelConfig.from_dict(first.cfg.to_dict()))
    values = _barriers(Matrices.of(first), Matrices.of(second), [items], points)
    return Result(
        name="loss barrier",
        values=values,
        axes=("matching", "quantity"),
        coordinates={"matching": list(KINDS), "quantity": list(QUANTITIES)},
        **_texts(),  # type: ignore[arg-type]
        metadata={"points": points, "n_items": len(items)},
    )


@sized_threads
def barriers(
    models: Mapping[str, Models],
    items: Mapping[str, Items] | Mapping[str, Procedure],
    *,
    starts: Starts = "shared",
    points: int = 11,
    most_pairs: int = 10,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """Loss barriers between models of one rule, of two, and untrained: axes ``pair``, ``matching`` and ``quantity``.

    - ``models``: by rule, and for each rule by seed; of one shape, with the same tokens and context;
    - ``items``: by rule, items or the rule itself, of which the first ``n_items`` (256 by default) test items of
      ``seed`` are taken: within a rule its items count, between rules those of both alike, and untrained models are
      read on those of their rule;
    - ``starts``: as for ``compare``: shared, models of one seed share a start; or different;
    - ``points``: places on the line at which the loss is taken, both ends included;
    - ``most_pairs``: of each rule or pair of rules;
    - ``seed``: of the pairs that are drawn, and of items;
    - ``n_items``: of rules.

    ``metadata["groups"]`` has the pairs of each of ``GROUPS``: within a rule, between rules, between rules that share a
    start, and between untrained models. Pairs are of different starts, but for the group that shares them. Errors are
    those of ``compare`` and ``barrier``.
    """
    require(points >= 3, "points", points, "at least 3: both ends and one between")
    require(most_pairs >= 1, "most_pairs", most_pairs, "at least 1")
    everyone = population(models, starts, seed)
    require(set(items) == set(everyone.rules), "items", sorted(items), f"items of {sorted(everyone.rules)}")
    read = {rule: _items(of_rule, n_items, seed) for rule, of_rule in items.items()}
    matrices = {id(m): Matrices.of(m.model, seed=m.name) for m in [*everyone.trained, *everyone.untrained]}
    first = everyone.trained[0].model
    for other in matrices.values():
        check_same_shape(matrices[id(everyone.trained[0])], other)
    for of_rule in read.values():
        check_items(of_rule, ModelConfig.from_dict(first.cfg.to_dict()))
    pairs = _pairs(everyone.trained, everyone.untrained, most_pairs, np.random.default_rng(seed))
    values, labels, groups = [], [], {group: [] for group in GROUPS}
    for group, one, other in progress(pairs, "barriers", unit="pair"):
        rules = list(dict.fromkeys([one.rule, other.rule]))
        values.append(_barriers(matrices[id(one)], matrices[id(other)], [read[r] for r in rules], points))
        fresh = " untrained" if group == "untrained" else ""
        labels.append(f"{one.rule} {one.seed}{fresh} | {other.rule} {other.seed}{fresh}")
        groups[group].append(labels[-1])
    return Result(
        name="loss barrier",
        values=np.stack(values),
        axes=("pair", "matching", "quantity"),
        coordinates={"pair": labels, "matching": list(KINDS), "quantity": list(QUANTITIES)},
        **_texts(),  # type: ignore[arg-type]
        metadata={"points": points, "groups": groups, "n_items": {rule: len(i) for rule, i in read.items()}},
    )


def _items(given: Items | Procedure, n_items: int | None, seed: int) -> Items:
    if isinstance(given, Procedure):
        return given.items(N_ITEMS if n_items is None else n_items, seed=seed, split="test")
    require(n_items is None, "n_items", n_items, "None when items are given: take them with Items.take")
    return given


def _texts() -> dict[str, str]:
    return {
        "unit": "nats",
        "direction": "higher barrier: the loss on the line between the models rises further above its ends",
        "what_it_does_not_show": "that no other exchange removes the barrier: matching ends in a local optimum, and "
        "what perfect matching leaves can be lower.",
    }


def _pairs(
    trained: list[Member], untrained: list[Member], most: int, rng: np.random.Generator
) -> list[tuple[str, Member, Member]]:
    """Group and members of the pairs."""
    found: dict[tuple[str, str, str], list[tuple[Member, Member]]] = {}
    for members, fresh in ((trained, False), (untrained, True)):
        for i, one in enumerate(members):
            for other in members[i + 1 :]:
                same_rule, same_start = one.rule == other.rule, one.start == other.start
                if fresh and (not same_rule or same_start):
                    continue
                group = "untrained" if fresh else "within a rule" if same_rule else "between rules"
                group = "same start" if same_start else group
                found.setdefault((group, one.rule, other.rule), []).append((one, other))
    return [
        (group, *pairs[i])
        for (group, _, _), pairs in found.items()
        for i in sorted(rng.permutation(len(pairs))[:most].tolist())
    ]


def _barriers(first: Matrices, second: Matrices, items: Sequence[Items], points: int) -> np.ndarray:
    """Float64 [matching, quantity]."""
    cfg, batches_of = _folded_config(first), [_read(each, first.cfg) for each in items]
    a, b, c = (tensors(state) for state in (in_balance(first), in_balance(second), laid_over(first, second).state))
    ends = [_loss(state, cfg, batches_of) for state in (a, b)]
    moved = _loss(c, cfg, batches_of)
    if abs(moved - ends[1]) > SAME * (1 + abs(ends[1])):
        raise ArithmeticError(f"laid over the other, a model has a loss of {moved:.6g} instead of {ends[1]:.6g}")
    line, rows = np.linspace(ends[0], ends[1], points), []
    for other in (b, c):
        inner = np.linspace(0, 1, points)[1:-1]
        between = [_loss({n: torch.lerp(a[n], other[n], t) for n in a}, cfg, batches_of) for t in inner]
        losses = np.array([ends[0], *between, ends[1]])
        rows.append([float((losses - line).max()), *ends, float(losses.max())])
    return np.array(rows)


def _folded_config(matrices: Matrices) -> ModelConfig:
    """The shape of the folded weights."""
    cfg = matrices.cfg.replace(tied_embeddings=False, unembed_bias="unembed.b_U" in matrices.state)
    return cfg if cfg.normalization_type is None else cfg.replace(normalization_type="LNPre")


def _read(items: Items, cfg: ModelConfig) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, ScoredTokens]]:
    """For each batch what the model reads, the scored positions [item, k], which of these are real, and the tokens."""
    found = []
    for batch in batches(len(items)):
        part = cut(items.take(batch))
        width = int(part.scored.sum(axis=1).max())
        places = torch.from_numpy(np.argsort(~part.scored, axis=1, kind="stable")[:, :width].copy())
        real = torch.from_numpy(np.take_along_axis(part.scored, places.numpy(), axis=1))
        read = inputs(part, cfg)
        places = torch.where(real, places, 0)
        found.append((read, places, real, scored_tokens(part, "cpu", None, cfg.input == "vectors")))
    return found


@torch.inference_mode()
def _loss(state: State, cfg: ModelConfig, batches_of: Sequence[list]) -> float:
    """The mean over scored tokens (nats), of several sets of items the mean of their means."""
    measured = metric_of("loss")
    means = []
    for of_items in batches_of:
        scores = [measured(forward(state, cfg, read, places)[real], tokens) for read, places, real, tokens in of_items]
        means.append(float(torch.cat(scores).mean()))
    return float(np.mean(means))
