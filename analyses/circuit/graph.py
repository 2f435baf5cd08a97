"""A circuit as a small graph: the edges of a model that carry a contrast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from analyses.interventions.edges import LOGITS, Edge


@dataclasses.dataclass(frozen=True)
class Circuit:
    """Edges and their effects (logits), of which each lies on a path from the embeddings to the logits."""

    effects: Mapping[Edge, float]

    @property
    def edges(self) -> list[Edge]:
        """The edges, in the order of the forward pass."""
        return list(self.effects)

    @property
    def nodes(self) -> list[str]:
        """What sends or receives: embeddings, heads, MLPs, ``"logits"``; a head once, whatever it reads."""
        both = [node for edge in self.effects for node in (edge.sender, node_of(edge.receiver))]
        return sorted(dict.fromkeys(both), key=place)

    @property
    def parts(self) -> list[str]:
        """The heads and MLPs of the circuit."""
        return [node for node in self.nodes if node.startswith("L") and not node.endswith("b_O")]

    @property
    def heads(self) -> list[str]:
        """The heads of the circuit."""
        return [node for node in self.parts if ".H" in node]

    def into(self, node: str) -> dict[Edge, float]:
        """The edges into a node and their effects."""
        return {edge: effect for edge, effect in self.effects.items() if node_of(edge.receiver) == node}

    def without(self, *removed: Edge) -> list[Edge]:
        """The other edges."""
        return [edge for edge in self.effects if edge not in removed]


def node_of(receiver: str) -> str:
    """The head, MLP or logits that a receiver belongs to: ``"L1.H0"`` of ``"L1.H0.q"``."""
    return receiver.rpartition(".")[0] if receiver.endswith((".q", ".k", ".v")) else receiver


def place(node: str) -> tuple[int, int, str]:
    """What sorts nodes in the order of the forward pass."""
    if node == LOGITS:
        return (10**6, 0, node)
    if not node.startswith("L"):
        return (-1, 0, node)
    layer, module = node[1:].split(".")
    return (int(layer), 1 if module == "mlp" else 0, module)


def connected(effects: Mapping[Edge, float]) -> Circuit:
    """The edges that lie on a path from the token or position embeddings to the logits.

    The others carry nothing: what reaches their sender is the corrupt run's in every part, or what leaves their
    receiver goes nowhere. Leaving them out changes no logit of the circuit.
    """
    reached, leads = {"embed", "pos"}, {LOGITS}
    for _ in effects:  # a path is no longer than the number of edges
        reached |= {node_of(edge.receiver) for edge in effects if edge.sender in reached}
        leads |= {edge.sender for edge in effects if node_of(edge.receiver) in leads}
    return Circuit({e: x for e, x in effects.items() if e.sender in reached and node_of(e.receiver) in leads})
