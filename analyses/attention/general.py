"""Targets of attention that need no rule: the token before, earlier copies of the token, and what followed them.

The three masks are those of TransformerLens's ``head_detector`` (``previous_token_head``, ``duplicate_token_head`` and
``induction_head``), whose names they have. The scores differ in what they are a mean over: ``detect_head`` divides by
all queries of a sequence, ``scores`` by those that have a target, so that a head which always looks at the target
scores 1. ``detect_head``'s number is the score times the share of queries with a target.
"""

from __future__ import annotations

import numpy as np

from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.procedures.base import Items

GENERAL = {
    "previous_token_head": "from each token but the first to the one before it",
    "duplicate_token_head": "from each token that occurred before to its earlier copies",
    "induction_head": "from each token that occurred before to the tokens that followed its earlier copies",
}
MAX_TOKENS = 64
"""Of a sequence of repeated tokens."""


def general_masks(items: Items) -> dict[str, np.ndarray]:
    """The targets of ``GENERAL`` in the tokens of the items: bool [item, query, key] by name; none in the padding."""
    n_pos = items.tokens.shape[1]
    query, key = np.arange(n_pos)[:, None], np.arange(n_pos)
    inside = (query < items.n_tokens[:, None, None]) & (key <= query)
    same = items.tokens[:, :, None] == items.tokens[:, None, :]
    followed = np.zeros_like(same)
    followed[:, :, 1:] = (same & (key < query))[:, :, :-1]
    return {
        "previous_token_head": inside & (key == query - 1),
        "duplicate_token_head": inside & same & (key < query),
        "induction_head": inside & followed,
    }


def repeated(cfg: ModelConfig, n_items: int, seed: int = 0) -> Items:
    """Sequences x1..xn x1..xn of random tokens, the padding excluded, on which induction can be nothing else.

    They are as long as the context allows, at most ``MAX_TOKENS``; nothing in them is scored (Olsson et al. 2022,
    "In-context Learning and Induction Heads"). Errors: ``ConfigError`` for a context of less than 4 tokens, and a
    model that reads vectors.
    """
    require(cfg.input == "tokens", "input", cfg.input, "'tokens': vectors have no random tokens")
    half = min(cfg.n_ctx, MAX_TOKENS) // 2
    require(half >= 2, "n_ctx", cfg.n_ctx, "at least 4: two tokens and their copies")
    require(n_items >= 1, "n_items", n_items, "at least 1")
    first = np.random.default_rng(seed).integers(1, cfg.d_vocab, size=(n_items, half))
    tokens = np.concatenate([first, first], axis=1)
    return Items(tokens, np.full(n_items, 2 * half), np.zeros(tokens.shape, dtype=bool), {})
