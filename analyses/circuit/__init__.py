"""Circuits: the edges that carry a contrast, how good they are, what their heads do, and what differs between models.

``find.run`` finds and judges the circuit of each model, ``circuits`` makes graphs of its Result, ``by_function``
compares them by what their heads do, ``edge_map`` gives QK and OV maps along their edges.
"""

from analyses.circuit.evaluate import evaluate
from analyses.circuit.find import circuits, run
from analyses.circuit.graph import Circuit

__all__ = ["Circuit", "circuits", "evaluate", "run"]
