"""Weights: what training changed in them, and how those of different rules differ.

    weights.spectrum(models)                              norm, ranks, singular values of every part's matrices
    weights.circuit(model, "L1.H0.OV", basis="tokens")    one head's QK or OV as a matrix
    weights.composition(models), weights.angles(models)   how much of what a part writes a later one reads
    weights.change(models, starts)                        norm, rank and direction of the change since step 0
    weights.match(first, second), weights.cka(first, second, items)   two models, part by part
    weights.barrier(first, second, items)                 the loss on the line between two models
    weights.compare({"set": models, "identity": models})  do rules leave different structure, and where

``matrices`` folds LayerNorms; ``features``, ``matching`` and ``activations`` make what does not depend on bases and
orders; ``population`` and ``distances`` lay many models beside each other. Biases of keys are left out everywhere: they
reach no pattern, so that their gradient is rounding noise.
"""

from analyses.weights.activations import cka
from analyses.weights.barrier import barrier, barriers
from analyses.weights.change import change
from analyses.weights.circuits import circuit
from analyses.weights.compare import between, compare
from analyses.weights.composition import angles, composition
from analyses.weights.matching import match
from analyses.weights.run import run
from analyses.weights.spectra import spectrum

__all__ = [
    "angles",
    "barrier",
    "barriers",
    "between",
    "change",
    "circuit",
    "cka",
    "compare",
    "composition",
    "match",
    "run",
    "spectrum",
]
