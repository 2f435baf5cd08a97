"""Predictors that see a little of an item and guess what is most frequent given that: the fitted baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mechproc.procedures.base import Items, Procedure

Contexts = Callable[[Items], dict[str, np.ndarray]]
"""What each of several predictors sees at each position of a block, as one number: int64 [item, pos] by its name."""

REFERENCE_ITEMS = 32_768
"""Items that such a predictor is fitted to where the rule makes as many as one likes."""


class Guesser(NamedTuple):
    """The most frequent token for each context. A context is a number that says what the predictor sees."""

    known: np.ndarray
    """The contexts that were seen, ascending, int64 [context]."""
    guesses: np.ndarray
    """int64 [context]: the token that followed most often, the lowest of several."""

    @classmethod
    def fit(cls, contexts: np.ndarray, targets: np.ndarray, d_vocab: int) -> Guesser:
        """The best guesses at ``targets`` given ``contexts``, both int64 [prediction]."""
        known, index = np.unique(contexts, return_inverse=True)
        pairs, counts = np.unique(index * d_vocab + targets, return_counts=True)  # few of all pairs occur
        order = np.lexsort((pairs, -counts, pairs // d_vocab))
        first = np.unique(pairs[order] // d_vocab, return_index=True)[1]
        return cls(known, pairs[order][first] % d_vocab)

    def guess(self, contexts: np.ndarray) -> np.ndarray:
        """The guess for each context, int64; for one never seen, that for a neighbouring number."""
        return self.guesses[np.searchsorted(self.known, contexts).clip(max=len(self.known) - 1)]

    def accuracy(self, contexts: np.ndarray, targets: np.ndarray) -> float:
        """The share of right guesses, 0 to 1."""
        return float((self.guess(contexts) == targets).mean())


def fit_all(procedure: Procedure, contexts: Contexts) -> dict[str, Guesser]:
    """The best guesser for each of the contexts, among items of the rule."""
    rng = np.random.default_rng(0)
    items = procedure.draw(rng, procedure.lengths.draw(rng, REFERENCE_ITEMS))
    block = procedure.annotate(*items, latents=False)
    targets = block.targets[block.scored]
    return {
        name: Guesser.fit(context[block.scored], targets, procedure.d_vocab)
        for name, context in contexts(block).items()
    }


def accuracies(guessers: dict[str, Guesser], contexts: Contexts, block: Items) -> dict[str, float]:
    """Token accuracy of each guesser over the scored tokens of ``block``, 0 to 1."""
    targets = block.targets[block.scored]
    return {name: guessers[name].accuracy(context[block.scored], targets) for name, context in contexts(block).items()}
