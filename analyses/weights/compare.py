"""Do rules leave different structure in the weights, and where? One table, judged against two nulls.

The first null is the spread between seeds of one rule: rules differ at a part where models of different rules are
further apart than models of one rule, by the permutation test of ``mechproc.statistics.permutation``, whose unit is the
model. The second null is untrained models: where those of the rules' shapes differ as well, the difference is one of
shape. Holm's correction makes the layer-level parts one family; there is no word with fewer than ``MIN_SEEDS`` models
of a rule. Distances are taken between models of different starts; between rules that share a start they stand by
themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from analyses.matrices import layer_parts
from analyses.models import Models
from analyses.weights.distances import NOT_DEFINED, NOT_SHOWN, UNITS, Measure, check_measure, pairwise
from analyses.weights.population import UNTRAINED, Member, Population, Starts, population
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Label, Result, Where
from mechproc.statistics.comparisons import MIN_SEEDS
from mechproc.statistics.paired import holm
from mechproc.statistics.permutation import GroupTest, group_test
from mechproc.threads import one_thread

QUANTITIES = ("within a rule", "between rules", "excess", "same start", "untrained", "to untrained", "own rule nearest",
              "untrained excess", "untrained p", "p", "adjusted p", "called different")  # fmt: skip
N_ITEMS = 256
"""Of a procedure."""
DIFFERENT, UNDECIDED, BY_SHAPE = "different", "undecided", "different before training"
NO_SHARED = "no two rules have models that share a start"


def compare(
    models: Mapping[str, Models],
    measure: Measure = "spectrum",
    *,
    starts: Starts = "shared",
    items: Procedure | Items | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Result:
    """Whether rules leave different structure, and where: axes ``part`` and ``quantity``.

    - ``models``: by rule, and for each rule by seed, such as ``{"set": [...], "identity": [...]}``; of the same widths;
    - ``measure``: ``"spectrum"``, ``"norm"``, ``"composition"``, ``"matched"`` (weights of matched heads and neurons)
      or ``"activations"`` (linear CKA on ``items``); the last two need models with the same tokens and context;
    - ``starts``: the models at step 0, by rule and seed, from which it is seen which models share a start; or
      ``"shared"``, models of one seed share one, as the shipped ones do; or ``"different"``. Without the models, fresh
      ones of the same shapes are drawn from ``seed``;
    - ``items``: what activations are compared on; of a procedure the first 256 test items of ``seed``, and no other
      measure reads any;
    - ``alpha``: the chance, at most, of any false word among the parts.

    Quantities, in units of the measure: mean distances ``within a rule`` and ``between rules`` (different starts),
    their difference, the ``excess``, and between rules with the ``same start``; among ``untrained`` models, from
    trained ``to untrained`` ones, and the ``untrained excess`` between the rules' shapes. ``own rule nearest`` is the
    share of models that are nearer, on average, to the other models of their rule than to those of any other;
    ``metadata["chance"]`` is what guessing gives. ``p`` is that of the permutation test (one-sided), ``adjusted p``
    after Holm; ``called different``: 1 or 0, undefined where no word may be said.
    ``metadata["words"]`` has the word of each part, ``metadata["sentences"]`` what it says.
    """
    require(0 < alpha < 1, "alpha", alpha, "above 0, below 1")
    items = _items(items, measure, seed)
    everyone = population(models, starts, seed)
    rows = _rows(everyone)
    with one_thread():
        d = pairwise([*everyone.trained, *everyone.untrained], rows, measure, items)
        return _judged(everyone, rows, d, measure, alpha, seed, {} if items is None else {"n_items": len(items)})


def between(
    models: Mapping[str, Models], measure: Measure = "spectrum", *, starts: Starts = "shared",
    items: Procedure | Items | None = None, seed: int = 0,
) -> Result:  # fmt: skip
    """The mean distance between models of two rules and different starts: axes ``part``, ``first`` and ``second``.

    The rules stand in the order given, ``"untrained"`` at the end; a rule with itself: its seeds. Arguments are those
    of ``compare``.
    """
    items = _items(items, measure, seed)
    everyone = population(models, starts, seed)
    rows, labels = _rows(everyone), [*everyone.rules, UNTRAINED]
    members = [*everyone.trained, *everyone.untrained]
    with one_thread():
        d = pairwise(members, rows, measure, items)
    groups = np.array([m.rule for m in everyone.trained] + [UNTRAINED] * len(everyone.untrained))
    values = np.full((len(rows), len(labels), len(labels)), np.nan)
    for (i, one), (j, other) in itertools.product(enumerate(labels), repeat=2):
        values[:, i, j] = _mean(d, (groups == one)[:, None] & (groups == other) & _apart(members))
    return Result(
        name=f"distance between models: {measure}",
        values=values,
        axes=("part", "first", "second"),
        coordinates={"part": rows, "first": labels, "second": labels},
        unit=UNITS[measure],
        direction="higher: the models are further apart",
        what_it_does_not_show=f"{NOT_SHOWN[measure]}.",
        undefined=_not_defined(rows, d, measure),
        metadata={"measure": measure, "n_models": _counts(everyone)},
    )


# ---- inside ----------------------------------------------------------------------------------------------------------


def _judged(
    everyone: Population, rows: list[str], d: np.ndarray, measure: str, alpha: float, seed: int, settings: dict
) -> Result:
    n = len(everyone.trained)
    known = [row for row in range(len(rows)) if np.isfinite(d[row]).all()]
    test = _test(everyone.trained, d[known][:, :n, :n], seed)
    fresh = _test(everyone.untrained, d[known][:, n:, n:], seed)
    adjusted = holm(test.p)
    members = [*everyone.trained, *everyone.untrained]
    rules, apart = np.array([m.rule for m in members]), _apart(members)
    same_rule, trained = rules[:, None] == rules, np.arange(len(members)) < n
    both, neither = trained[:, None] & trained, ~trained[:, None] & ~trained
    masks = {
        "within a rule": both & same_rule & apart,
        "between rules": both & ~same_rule & apart,
        "same start": both & ~same_rule & ~apart,
        "untrained": neither & apart,
        "to untrained": (trained[:, None] ^ trained) & apart,
    }
    values = np.full((len(rows), len(QUANTITIES)), np.nan)
    for name, mask in masks.items():
        values[:, QUANTITIES.index(name)] = _mean(d, mask)
    values[:, QUANTITIES.index("own rule nearest")] = _own_nearest(d[:, :n, :n], everyone.trained)
    found = {"excess": test.excess, "untrained excess": fresh.excess, "untrained p": fresh.p, "p": test.p,
             "adjusted p": adjusted}  # fmt: skip
    for name, column in found.items():
        values[known, QUANTITIES.index(name)] = column
    words = {rows[row]: _word(everyone, adjusted[i], fresh.p[i], alpha) for i, row in enumerate(known)}
    undefined = _not_defined(rows, d, measure)
    if not masks["same start"].any():
        undefined.append(({"quantity": "same start"}, NO_SHARED))
    for row in known:
        word = words[rows[row]]
        if word in (DIFFERENT, UNDECIDED):
            values[row, -1] = float(word == DIFFERENT)
        else:
            undefined.append(({"part": rows[row], "quantity": QUANTITIES[-1]}, word))
    table = dict(zip(rows, values, strict=True))
    return Result(
        name=f"differences between the weights of {', '.join(everyone.rules[:-1])} and {everyone.rules[-1]}: {measure}",
        values=values,
        axes=("part", "quantity"),
        coordinates={"part": rows, "quantity": list(QUANTITIES)},
        unit=f"{UNITS[measure]}; p: probability",
        direction="positive excess: models of different rules are further apart than models of one rule",
        what_it_does_not_show=f"{NOT_SHOWN[measure]}; nor that the rule is the cause rather than anything else in "
        "which the trainings differ, such as their length.",
        undefined=undefined,
        metadata={
            **settings,
            "measure": measure,
            "alpha": alpha,
            "rules": everyone.rules,
            "chance": 1 / len(everyone.rules),
            "n_models": _counts(everyone),
            "starts": "seen in the weights at step 0" if everyone.known_starts else "as declared",
            "layernorms": "folded into what reads them; the row ln has the gains as they are",
            "permutations": {"n": test.n_labellings, "exact": test.exact, "seed": seed},
            "words": words,
            "sentences": [_sentence(part, words[part], table[part], measure, len(known)) for part in words],
        },
    )


def _items(items: Procedure | Items | None, measure: str, seed: int) -> Items | None:
    """The items of a measure, checked."""
    if isinstance(items, Procedure):
        items = items.items(N_ITEMS, seed=seed) if measure == "activations" else None
    check_measure(measure, items)
    return items


def _rows(everyone: Population) -> list[str]:
    return layer_parts(ModelConfig.from_dict(everyone.trained[0].model.cfg.to_dict()))


def _test(members: list[Member], d: np.ndarray, seed: int) -> GroupTest:
    return group_test(d, [m.rule for m in members], [m.start for m in members], seed)


def _word(everyone: Population, adjusted: float, fresh_p: float, alpha: float) -> str:
    if everyone.fewest < MIN_SEEDS:
        return f"too few seeds ({everyone.fewest} of {MIN_SEEDS})"
    if adjusted > alpha:
        return UNDECIDED
    return BY_SHAPE if fresh_p <= alpha else DIFFERENT


def _sentence(part: str, word: str, row: np.ndarray, measure: str, m: int) -> str:
    cell = dict(zip(QUANTITIES, row.tolist(), strict=True))
    heads = {
        DIFFERENT: f"The rules leave different structure at {part} ({measure})",
        UNDECIDED: f"Undecided whether the rules leave different structure at {part} ({measure})",
        BY_SHAPE: f"No word on {part} ({measure}), as untrained models of these shapes differ as well",
    }
    head = heads.get(word, f"No word on {part} ({measure}), {word}")
    return (
        f"{head}: distance {cell['between rules']:.3g} between rules, {cell['within a rule']:.3g} between seeds of "
        f"one, {cell['untrained']:.3g} between untrained models (permutation p = {cell['adjusted p']:.2g} after Holm "
        f"over {m})."
    )


def _apart(members: list[Member]) -> np.ndarray:
    """bool [model, model]: whether two models have different starts."""
    starts = np.array([member.start for member in members])
    return starts[:, None] != starts


def _mean(d: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mean of each row over the pairs of a mask; NaN where there is none."""
    return d[:, mask].mean(axis=1) if mask.any() else np.full(len(d), np.nan)


def _own_nearest(d: np.ndarray, members: list[Member]) -> np.ndarray:
    """The share of models whose own rule is nearest, of each row; models that share its start do not count."""
    rules, apart = np.array([member.rule for member in members]), _apart(members)
    names = list(dict.fromkeys(rules.tolist()))
    means = np.full((len(d), len(members), len(names)), np.nan)
    for column, name in enumerate(names):
        mask = apart & (rules == name)
        n = mask.sum(axis=1)
        means[:, :, column] = (d * mask).sum(axis=2) / np.where(n > 0, n, np.nan)
    own = np.array([names.index(rule) for rule in rules])
    others = np.where(np.arange(len(names)) == own[:, None], np.inf, means).min(axis=2)
    return np.where(np.isfinite(d).all(axis=(1, 2)), (means[:, np.arange(len(own)), own] < others).mean(axis=1), np.nan)


def _counts(everyone: Population) -> dict[Label, int]:
    return {rule: sum(m.rule == rule for m in everyone.trained) for rule in everyone.rules}


def _not_defined(rows: list[str], d: np.ndarray, measure: str) -> list[tuple[Where, Any]]:
    return [({"part": part}, NOT_DEFINED[measure]) for row, part in enumerate(rows) if not np.isfinite(d[row]).all()]
