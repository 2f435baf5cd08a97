"""What several tests of pages show."""

from __future__ import annotations

import numpy as np

from analyses import figures
from mechproc.result import Result

HOSTILE = "</script><img src=x onerror=\"document.body.dataset.owned='yes'\">"


def view(tokens: list[str], n_heads: int = 2, n_items: int = 1) -> figures.AttentionView:
    """The patterns of one layer whose heads look equally at all that lies before."""
    n = len(tokens)
    values = np.tril(np.ones((1, n_heads, n_items, n, n)))
    sizes = {"layer": 1, "head": n_heads, "item": n_items, "query": n, "key": n}
    patterns = Result(
        "attention", values / values.sum(-1, keepdims=True), tuple(sizes), {a: range(k) for a, k in sizes.items()},
        "fraction", "higher: more attention", "that it is used", metadata={"tokens": [list(range(n))] * n_items},
    )  # fmt: skip
    return figures.attention_view(patterns, token_names=tokens)
