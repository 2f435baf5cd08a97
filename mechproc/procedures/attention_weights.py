"""How much each query counts in the share of its attention that a head puts on a target."""

from __future__ import annotations

import numpy as np


def target_weights(mask: np.ndarray) -> np.ndarray:
    """What each (item, query, key) counts in the score of a head, float64; a score is the sum of weights x attention.

    ``mask``: bool [item, query, key], as ``procedure.attention_targets(items)`` gives it. A query counts where its mask
    has a key; the mean is taken over the counted queries of an item, then over items that have one.
    """
    n_queries = mask.any(axis=2).sum(axis=1)
    n_items = int((n_queries > 0).sum())
    return mask / np.maximum(n_queries * n_items, 1)[:, None, None]
