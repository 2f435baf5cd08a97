"""The core that analyses share: items, activations, patches, metrics, edges, and sweeps over many interventions.

``patch`` works on the hooked model and is the reference; ``sweep`` does the same for many interventions at once.
"""
