"""Where in a model is the structure? One file for each question, each with functions that return a ``Result``.

Analyses measure; they never print, plot or train. ``figures`` draws Results, ``report`` puts everything on one page.
"""

ANALYSES = {
    "ablation": "ablation.run",
    "ablation-kinds": "ablation.compare",
    "ablation-pairs": "ablation.pairs",
    "ablation-shapley": "ablation.shapley",
    "attention": "attention.run",
    "attention-entropy": "attention.entropy",
    "attention-compare": "attention.compare",
    "patching": "patching.run",
    "attribution": "attribution.run",
    "logits": "logits.run",
    "logit-lens": "logits.lens",
    "path-patching": "path_patching.run",
    "circuit": "circuit.run",
    "circuit-functions": "circuit.compare",
    "circuit-map": "circuit.path_map",
    "probing": "probing.run",
    "probing-causal": "probing.causal_effect",
    "spectrum": "weights.spectrum",
    "weight-circuit": "weights.circuit",
    "composition": "weights.composition",
    "principal-angles": "weights.angles",
    "weight-change": "weights.change",
    "compare-weights": "weights.compare",
    "weight-distances": "weights.between",
    "loss-barriers": "weights.barriers",
    "donor-statistics": "donor_statistics.run",
    "over-training": "over_training.run",
    "transfer-map": "transfer_map.run",
    "agreement": "predicted.run",
}
"""Name of an analysis in commands -> its function, below ``analyses``; ``analyses.registry`` reads their signatures."""
