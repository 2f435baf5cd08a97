"""What a model loses when a part of it is replaced.

    ablation.run(models, rule, ["L0.H1", "L1.mlp"], "mean")   each part as a whole
    ablation.run(models, rule, ["layers"], "mean")            the attention and the MLP of each layer, and both
    ablation.run(models, rule, None, "frozen_scale")          each LayerNorm
    ablation.run(models, rule, None, "mean_row")              token and position embeddings
    ablation.compare(models, rule), ablation.agreement(...)   several kinds side by side, and how alike they rank parts
    ablation.pairs(models, rule)                              what two parts cost together beyond what each costs alone
    ablation.shapley(models, rule, parts)                     all coalitions of up to 10 parts

``kinds`` says what each kind of ablation puts in a part's place, and where it is defined; ``run`` measures.
"""

from analyses.ablation.compare import agreement, compare
from analyses.ablation.joint import pairs, shapley
from analyses.ablation.kinds import Kind, kind_of, map_parts
from analyses.ablation.run import run

__all__ = ["Kind", "agreement", "compare", "kind_of", "map_parts", "pairs", "run", "shapley"]
