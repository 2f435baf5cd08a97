"""Circuits: the edges that carry a contrast, how good they are, what their heads do, and what differs between models.

``run`` finds and judges the circuit of each model, ``circuits`` makes graphs of its Result. ``compare`` lays the
circuits of several rules and seeds beside each other by what their heads attend to, ``by_function`` those of one
Result.
``maps`` has the QK and OV maps on the edges of a circuit, ``path_map`` one of a circuit that it finds first.
"""

from analyses.circuit.compare import compare
from analyses.circuit.evaluate import evaluate
from analyses.circuit.find import circuits, run
from analyses.circuit.functions import by_function, head_functions, similarity
from analyses.circuit.graph import Circuit
from analyses.circuit.maps import maps, path_map

__all__ = [
    "Circuit",
    "by_function",
    "circuits",
    "compare",
    "evaluate",
    "head_functions",
    "maps",
    "path_map",
    "run",
    "similarity",
]
