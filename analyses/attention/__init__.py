"""Where heads look: patterns, entropy, and how much attention lies on targets, of one group of models or of several.

``reading`` gives patterns, ``targets`` scores them on masks, ``general`` has the scores that need no rule, ``analysis``
puts each score beside its baselines, ``heads`` matches heads by what they do, ``groups`` compares groups of models.

A head's index means nothing across seeds. Within one run it does: training keeps each head in its place. So heads of
different seeds are matched by what they do (``match_heads``: by their rank on a target), and heads of one run by name.
"""

from analyses.attention.analysis import entropy, run
from analyses.attention.general import GENERAL, general_masks, repeated
from analyses.attention.groups import compare
from analyses.attention.heads import BestHeads, before_after, best_heads, by_rank, match_heads
from analyses.attention.reading import patterns
from analyses.attention.targets import scores

__all__ = [
    "GENERAL",
    "BestHeads",
    "before_after",
    "best_heads",
    "by_rank",
    "compare",
    "entropy",
    "general_masks",
    "match_heads",
    "patterns",
    "repeated",
    "run",
    "scores",
]
