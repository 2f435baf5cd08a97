"""What linear probes read in a model's activations, and whether the model uses what they read.

``run`` says where each latent of a rule is readable, beside its baselines; ``causal_effect`` changes what the probe
reads and measures the loss of the model. ``read`` has the first, ``causal`` the second; ``rows`` chooses the positions,
``fit`` fits the probes, ``sites`` names the activations.
"""

from analyses.probing.causal import causal_effect
from analyses.probing.read import QUANTITIES, run
from analyses.probing.sites import all_sites, residual_sites

__all__ = ["QUANTITIES", "all_sites", "causal_effect", "residual_sites", "run"]
