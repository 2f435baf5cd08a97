"""QK and OV maps on the edges of a circuit: which token looks for which, and which token raises which.

Only linear paths have such a map: from the embeddings or positions into a head directly, or through the values of
earlier heads of the circuit. What an MLP sends is a non-linear function of all that it reads, and has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from analyses.circuit.find import circuits, run
from analyses.circuit.graph import Circuit
from analyses.interventions.edges import LOGITS, edges
from analyses.matrices import Matrices, product, said_of
from analyses.models import sized_threads
from analyses.weights.circuits import token_labels
from mechproc.config import nearest
from mechproc.errors import ConfigError, PartError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result

SOURCES = {"embed": "embed.W_E", "pos": "pos_embed.W_pos"}
OF_THE_CIRCUIT = ("procedure", "pair", "seed", "n_pairs", "threshold", "evaluation", "warnings")
"""What a map says of the circuit that it belongs to."""
DOES_NOT_SHOW = (
    "what the head does in an item: there the LayerNorm divides by a scale that depends on the item, biases add to it, "
    "the head reads all its inputs at once, and a head in between passes on a mixture of the tokens that it attends to"
)


@sized_threads
def path_map(
    model: HookedTransformer,
    procedure: Procedure,
    pair: str,
    path: str | None = None,
    *,
    controls: Sequence[str] = (),
    threshold: float | None = None,
    folded: bool = True,
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """The QK or OV map of a head along the paths into it in the model's circuit: axes ``query`` and ``key``, or
    ``source`` and ``output``.

    The circuit is found first (``analyses.circuit.run``), then one of its ``maps`` is taken.

    - ``procedure``: what the circuit is found on; its names of tokens are the labels;
    - ``pair``: the kind of minimal pair that the circuit is found with;
    - ``path``: which map, such as "L1.H2.QK: embed, embed > L0.H1" or "L1.H2.OV: embed"; by default that of the
      strongest edges into a head;
    - ``controls``: kinds of pairs that change something else, for the threshold;
    - ``threshold``: the smallest size of an edge (logits), by default from the controls;
    - ``folded``: whether the gains of the LayerNorms are multiplied in;
    - ``seed``: of the pairs;
    - ``n_items``: how many pairs the circuit is found on.

    Directions and units are those of ``maps``. ``metadata["maps"]`` names all maps of the circuit, and
    ``OF_THE_CIRCUIT`` is there as ``analyses.circuit.run`` has it.
    Errors: ``ConfigError`` for a path that the circuit lacks, and for a circuit without a head that has a map.
    """
    found = run([model], procedure, pair, controls=controls, threshold=threshold, seed=seed, n_items=n_items)
    (circuit,) = circuits(found).values()
    every = maps(model, circuit, folded=folded, procedure=procedure)
    require(bool(every), "circuit", circuit.edges, "one circuit with a head that something of the embeddings reaches")
    if path is None:
        path = max(every, key=lambda name: sum(map(abs, every[name].metadata["effects"].values())))
    if path not in every:
        known = "; ".join(every)
        raise ConfigError(f"path = {path!r} is not allowed: one of {known}{nearest(path, every)}")
    others = [name for name in every if name != path]
    told = [f"Other maps of the circuit: {'; '.join(others)}."] if others else []
    chosen = every[path]
    shared = {name: found.metadata[name] for name in OF_THE_CIRCUIT}
    return dataclasses.replace(chosen, metadata={**chosen.metadata, **shared, "maps": list(every), "sentences": told})


@sized_threads
def maps(
    model: HookedTransformer, circuit: Circuit, *, folded: bool = True, procedure: Procedure | None = None
) -> dict[str, Result]:
    """The QK and OV map of each head of the circuit, for each linear path into it.

    The names say head, map and path: ``"L1.H2.OV: embed"`` is what a token does when the head attends to it,
    ``"L1.H2.QK: embed, embed > L0.H1"`` how much the token at the query looks for the token that L0.H1 brought to the
    key. A path is an origin, ``embed`` or ``pos``, and the heads whose values it goes through, by edges of the circuit.

    - OV, axes ``source`` and ``output``: P W_V W_O W_U, in logits, where the head has an edge into the logits;
    - QK, axes ``query`` and ``key``: P_q W_Q (P_k W_K)^T / sqrt(d_head), in nats before the softmax, for each pair of a
      path into the queries and one into the keys. Where the circuit has an edge into one of the two only, the pairs do
      not change the other, and both ``embed`` and ``pos`` stand for it;

    with P = W_E or W_pos, times W_V W_O of each head on the way. Labels are tokens, by the names that ``procedure``
    gives them if there is one, or positions. ``folded``: whether the gains of LayerNorms are multiplied in and writing
    weights are centred, as in ``analyses.weights``.

    ``metadata`` has ``part``, ``effects`` (logits of the circuit's edges into the head that the map is about) and, for
    maps from tokens to tokens, ``diagonal``: the share of rows whose largest entry is at the same token, which is 1
    for a head that copies, or that looks for the token it stands on. Rows are those that differ from zero.
    Errors: ``PartError`` for a circuit with edges that the model lacks.
    """
    known = [f"{edge.sender} -> {edge.receiver}" for edge in edges(model.cfg)]
    for edge in circuit.edges:
        name = f"{edge.sender} -> {edge.receiver}"
        if name not in known:
            raise PartError(f"circuit: {name!r} is no edge of this model{nearest(name, known)}")
    matrices = Matrices.of(model, folded)
    found: dict[str, Result] = {}
    for head in circuit.heads:
        queries, keys, values = (_paths(matrices, circuit, f"{head}.{which}") for which in "qkv")
        if LOGITS in [edge.receiver for edge in circuit.edges if edge.sender == head]:
            ov = product(matrices.of_part(f"{head}.OV")["OV"])
            for path, source in values.items():
                name = f"{head}.OV: {path}"
                table = source @ ov @ matrices.state["unembed.W_U"]
                found[name] = _result(name, table, circuit, matrices, path.startswith("embed"), procedure)
        if queries or keys:
            every = {origin: matrices.state[name] for origin, name in SOURCES.items()}
            qk = product(matrices.of_part(f"{head}.QK")["QK"]) / np.sqrt(matrices.cfg.d_head or 1)
            for path, query in (queries or every).items():
                for other, key in (keys or every).items():
                    name = f"{head}.QK: {path}, {other}"
                    alike = path.startswith("embed") and other.startswith("embed")
                    found[name] = _result(name, query @ qk @ key.T, circuit, matrices, alike, procedure)
    return found


def _paths(matrices: Matrices, circuit: Circuit, receiver: str) -> Mapping[str, np.ndarray]:
    """What each linear path of the circuit brings to a receiver: [token or position, d_model], by path."""
    found = {}
    for edge in circuit.edges:
        if edge.receiver != receiver:
            continue
        if edge.sender in SOURCES:
            found[edge.sender] = matrices.state[SOURCES[edge.sender]]
        elif edge.sender in circuit.heads:
            ov = product(matrices.of_part(f"{edge.sender}.OV")["OV"])
            for path, source in _paths(matrices, circuit, f"{edge.sender}.v").items():
                found[f"{path} > {edge.sender}"] = source @ ov
    return found


def _labels(axis: str, path: str, n: int, procedure: Procedure | None) -> list[Label]:
    """Of tokens or of positions, as the path begins; of logits always tokens."""
    return token_labels(n, procedure) if axis == "output" or path.startswith("embed") else [*range(n)]


def _result(
    name: str, values: np.ndarray, circuit: Circuit, matrices: Matrices, alike: bool, procedure: Procedure | None
) -> Result:
    part, _, paths = name.partition(": ")
    is_qk, head = part.endswith(".QK"), part.rpartition(".")[0]
    axes = ("query", "key") if is_qk else ("source", "output")
    inputs = (f"{head}.q", f"{head}.k") if is_qk else (f"{head}.v",)
    rows = np.flatnonzero(np.abs(values).max(1) > 0)
    about = {"diagonal": float((values[rows].argmax(1) == rows).mean()) if len(rows) else 0.0} if alike else {}
    return Result(
        name=name,
        values=values,
        axes=axes,
        coordinates={
            axis: _labels(axis, path, n, procedure)
            for axis, path, n in zip(axes, [*paths.split(", "), ""], values.shape, strict=False)
        },
        unit="nats" if is_qk else "logits",
        direction="higher: the query attends more to the key" if is_qk else "higher: the source raises the output more",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        metadata={
            **said_of([matrices]),
            "part": part,
            "effects": {f"{e.sender} -> {e.receiver}": x for e, x in circuit.effects.items() if e.receiver in inputs},
            **about,
        },
    )
