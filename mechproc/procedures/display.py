"""Items as text."""

from __future__ import annotations

import numpy as np

from mechproc.procedures.base import Procedure


def show(procedure: Procedure, n: int = 3) -> str:
    """The first ``n`` test items in token names, one a line, the scored tokens in square brackets."""
    block = procedure.items(n)
    lines = []
    for row, count, scored in zip(block.tokens, block.n_tokens, block.scored, strict=True):
        names = [procedure.token_names[t] for t in row]
        end = max(int(count), int(np.flatnonzero(scored).max(initial=-1)) + 2)
        lines.append(" ".join(f"[{names[p]}]" if p and scored[p - 1] else names[p] for p in range(end)))
    return "\n".join(lines)
