"""One model laid over another: the residual streams' bases, heads and neurons matched, so that weights can be compared.

With LayerNorms folded, a model computes the same when its residual stream is turned (about the all-ones direction), its
heads are exchanged, the basis inside each head is changed, or its neurons are exchanged. ``laid_over`` undoes all four:

- the turn is the orthogonal Procrustes solution, first for what both models have an embedding for (tokens and
  positions), then for all that matched parts read and write, in turn with the matching, until it settles;
- heads are assigned by the sum of the cosines of their QK and of their OV matrices, neurons by the inner product of
  what they read and write (weight matching, Ainsworth et al. 2023), both by ``scipy.optimize.linear_sum_assignment``;
- inside each head, both models take the balanced factors of their singular value decomposition, turned onto each
  other.

Everything is undone exactly where one model is the other in disguise and its embeddings span the residual stream.
Between models of different starts the result is a local optimum: another start of the search may end elsewhere.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from analyses.matrices import Matrices, product
from analyses.models import sized_threads
from analyses.weights.composition import visible_basis
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import components
from mechproc.model.state import State
from mechproc.result import Result

ONE_SHAPE = "models of two shapes, of other tokens or of another context have no line between them"
SHAPE = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab", "input", "d_input", "act_fn",
         "normalization_type")  # fmt: skip
"""What two models must share to be laid over each other."""
READS = ("W_Q", "W_K", "W_V", "W_in", "W_U")
WRITES = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")


ROUNDS = 6
"""Of matching and turning, at most."""
SETTLED = 1e-9
"""The largest entry by which a turn that changes nothing differs from the identity."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A second model in the bases and orders of a first one."""

    state: dict[str, np.ndarray]
    """The second model's weights, float64, folded: the same function, laid over the first. Key biases are 0."""
    heads: dict[str, str]
    """The head of the second model for each head of the first, by name."""
    neurons: dict[int, np.ndarray]
    """For each layer, the neuron of the second model for each of the first's, int64 [neuron]."""


@sized_threads
def match(first: HookedTransformer, second: HookedTransformer, *, turned: bool = True) -> Result:
    """How far each part of ``second`` is from the part of ``first`` that it is matched with: axis ``part``.

    The value is 1 less the cosine between the two parts' matrices: of a head's QK and OV the mean of both, of an MLP's
    neurons what they read and write, of embeddings the tables. 0: the same but for scale; 1: orthogonal.
    ``metadata["heads"]`` names the head of ``second`` for each of ``first``, ``metadata["neurons"]`` numbers neurons.

    ``turned=False`` leaves the residual streams' bases as they are, for models that share a start. Errors:
    ``ConfigError`` for models that differ in shape, tokens or context.
    """
    one, other = Matrices.of(first), Matrices.of(second)
    found = laid_over(one, other, turned=turned)
    distances = part_distances(one, other, found)
    return Result(
        name="distance of matched parts",
        values=np.array(list(distances.values())),
        axes=("part",),
        coordinates={"part": list(distances)},
        unit="1 - cosine",
        direction="higher: the parts of the two models are more different",
        what_it_does_not_show="that the models compute differently: the same function can be spread over parts in "
        "other ways than by the exchanges that are undone; and scales of whole matrices are left out.",
        metadata={
            "layernorms": "folded into what reads them; writing weights centred",
            "biases": "left out",
            "turned": turned,
            "heads": found.heads,
            "neurons": {f"L{layer}.mlp": order.tolist() for layer, order in found.neurons.items()},
        },
    )


def check_same_shape(first: Matrices, second: Matrices) -> None:
    """Raise a ``ConfigError`` unless the two models can be laid over each other."""
    for field in SHAPE:
        ours, theirs = getattr(first.cfg, field), getattr(second.cfg, field)
        require(ours == theirs, field, theirs, f"{ours}, as of the other model: {ONE_SHAPE}")


def laid_over(first: Matrices, second: Matrices, *, turned: bool = True) -> Match:
    """``second`` in the bases and orders of ``first``; see the module."""
    check_same_shape(first, second)
    ours, state = (in_balance(m) for m in (first, second))
    layers, basis = range(first.cfg.n_layers), visible_basis(first)
    heads = [np.arange(first.cfg.n_heads) for _ in layers]
    neurons = [np.arange(first.cfg.d_mlp or 0) for _ in layers]
    if turned:
        state = _turned(state, _turn(ours, state, basis, parts=False))
    for _ in range(ROUNDS if turned else 1):
        for layer in layers:
            block = f"blocks.{layer}"
            order = _assigned_heads(ours, state, f"{block}.attn")
            heads[layer] = heads[layer][order]
            for name in ("W_Q", "b_Q", "W_K", "b_K", "W_V", "b_V", "W_O"):
                state[f"{block}.attn.{name}"] = state[f"{block}.attn.{name}"][order]
            state |= _turned_inside(ours, state, f"{block}.attn")
            if not first.cfg.attn_only:
                gain = _neurons(ours, f"{block}.mlp") @ _neurons(state, f"{block}.mlp").T
                order = linear_sum_assignment(gain, maximize=True)[1]
                neurons[layer] = neurons[layer][order]
                for name, axis in (("W_in", 1), ("b_in", 0), ("W_out", 0)):
                    state[f"{block}.mlp.{name}"] = state[f"{block}.mlp.{name}"].take(order, axis=axis)
        turn = _turn(ours, state, basis, parts=True)
        if not turned or np.abs(turn - np.eye(len(turn))).max() < SETTLED:
            break
        state = _turned(state, turn)
    names = {f"L{layer}.H{h}": f"L{layer}.H{o}" for layer in layers for h, o in enumerate(heads[layer].tolist())}
    return Match(state, names, {layer: neurons[layer] for layer in layers if not first.cfg.attn_only})


def in_balance(matrices: Matrices) -> dict[str, np.ndarray]:
    """The model's weights with every head ``balanced``."""
    state = dict(matrices.state)
    for layer in range(matrices.cfg.n_layers):
        state |= balanced(state, f"blocks.{layer}.attn")
    return state


def balanced(state: dict[str, np.ndarray], attn: str) -> dict[str, np.ndarray]:
    """The same heads in the balanced factors of their singular value decompositions; key biases, which reach no
    pattern, are 0.

    Biases of queries and values are one more row of what is factored, so that they stay what they are to the head.
    """
    d_head = state[f"{attn}.W_Q"].shape[-1]
    queries = np.concatenate([state[f"{attn}.W_Q"], state[f"{attn}.b_Q"][:, None]], axis=1)
    values = np.concatenate([state[f"{attn}.W_V"], state[f"{attn}.b_V"][:, None]], axis=1)
    left, right = _factored(queries @ state[f"{attn}.W_K"].transpose(0, 2, 1), d_head)
    of_values, outputs = _factored(values @ state[f"{attn}.W_O"], d_head)
    return {
        f"{attn}.W_Q": left[:, :-1], f"{attn}.b_Q": left[:, -1], f"{attn}.W_K": right.transpose(0, 2, 1),
        f"{attn}.b_K": np.zeros_like(left[:, -1]), f"{attn}.W_V": of_values[:, :-1], f"{attn}.b_V": of_values[:, -1],
        f"{attn}.W_O": outputs,
    }  # fmt: skip


def part_distances(first: Matrices, second: Matrices, found: Match) -> dict[str, float]:
    """1 less the cosine of each part's matrices, by part; ``second`` laid over ``first`` is ``found``."""
    over = dataclasses.replace(second, state=found.state)
    distances = {"embed": _apart(first.state["embed.W_E"], over.state["embed.W_E"]),
                 "pos": _apart(first.state["pos_embed.W_pos"], over.state["pos_embed.W_pos"])}  # fmt: skip
    for part in components(first.cfg):
        if part.endswith(".mlp"):
            mlp = f"blocks.{part[1:].partition('.')[0]}.mlp"
            distances[part] = _apart(_neurons(first.state, mlp), _neurons(over.state, mlp))
        else:
            ours, theirs = first.of_part(part), over.of_part(part)
            distances[part] = float(np.mean([_apart(product(ours[c]), product(theirs[c])) for c in ours]))
    return distances


def tensors(state: dict[str, np.ndarray]) -> State:
    """As torch tensors, float64."""
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.items()}


# ---- inside ----------------------------------------------------------------------------------------------------------


def _turn(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], basis: np.ndarray, parts: bool) -> np.ndarray:
    """The rotation of the second model's residual stream onto the first's, [d_model, d_model]: Procrustes of the
    embeddings, and with ``parts`` of what matched heads and neurons read and write; each tensor counts alike."""
    gain = np.zeros((len(basis), len(basis)))
    for name, values in ours.items():
        leaf = name.rpartition(".")[2]
        if not leaf.startswith("W_") or not (parts or leaf in ("W_E", "W_pos")):
            continue
        one, other = (_rows(name, v) @ basis.T for v in (values, theirs[name]))
        size = np.linalg.norm(one) * np.linalg.norm(other)
        gain += other.T @ one / (size if size > 0 else 1.0)
    u, _, vt = np.linalg.svd(gain)
    return basis.T @ (u @ vt) @ basis + np.eye(basis.shape[1]) - basis.T @ basis


def _rows(name: str, values: np.ndarray) -> np.ndarray:
    """A weight's vectors in the residual stream as rows, [., d_model]."""
    reads = name.rpartition(".")[2] in READS
    return (values.swapaxes(-1, -2) if reads else values).reshape(-1, values.shape[-2 if reads else -1])


def _turned(state: dict[str, np.ndarray], turn: np.ndarray) -> dict[str, np.ndarray]:
    turned = dict(state)
    for name, values in state.items():
        leaf = name.rpartition(".")[2]
        if leaf in WRITES:
            turned[name] = values @ turn
        elif leaf in READS:
            turned[name] = turn.T @ values
    return turned


def _assigned_heads(first: dict[str, np.ndarray], second: dict[str, np.ndarray], attn: str) -> np.ndarray:
    gain = np.zeros((len(first[f"{attn}.W_Q"]),) * 2)
    for left, right, flip in (("W_Q", "W_K", True), ("W_V", "W_O", False)):
        flat = []
        for state in (first, second):
            outer = state[f"{attn}.{right}"]
            whole = state[f"{attn}.{left}"] @ (outer.transpose(0, 2, 1) if flip else outer)
            sizes = np.linalg.norm(whole, axis=(1, 2), keepdims=True)
            flat.append((whole / np.where(sizes > 0, sizes, 1.0)).reshape(len(whole), -1))
        gain += flat[0] @ flat[1].T
    return linear_sum_assignment(gain, maximize=True)[1]


def _turned_inside(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], attn: str) -> dict[str, np.ndarray]:
    """The second model's heads turned inside onto the first's, where both are balanced."""
    turned = {}
    for left, right, bias in (("W_Q", "W_K", "b_Q"), ("W_V", "W_O", "b_V")):
        flip = right == "W_O"
        stacked = [
            np.concatenate(
                [s[f"{attn}.{left}"], s[f"{attn}.{right}"].swapaxes(1, 2) if flip else s[f"{attn}.{right}"]], 1
            )
            for s in (theirs, ours)
        ]  # [head, 2 d_model, d_head]
        u, _, vt = np.linalg.svd(stacked[0].swapaxes(1, 2) @ stacked[1])
        inner = u @ vt
        turned[f"{attn}.{left}"] = theirs[f"{attn}.{left}"] @ inner
        turned[f"{attn}.{bias}"] = (theirs[f"{attn}.{bias}"][:, None] @ inner)[:, 0]
        whole = theirs[f"{attn}.{right}"]
        turned[f"{attn}.{right}"] = inner.swapaxes(1, 2) @ whole if flip else whole @ inner
    return turned


def _factored(whole: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Balanced factors [head, m, rank], [head, rank, n] of matrices of at most this rank."""
    u, s, vt = np.linalg.svd(whole, full_matrices=False)
    root = np.sqrt(s[:, :rank])
    left, right = u[:, :, :rank] * root[:, None], root[:, :, None] * vt[:, :rank]
    return left, right


def _neurons(state: dict[str, np.ndarray], mlp: str) -> np.ndarray:
    """What each neuron reads, its bias, and what it writes, [neuron, 2 d_model + 1]."""
    return np.concatenate([state[f"{mlp}.W_in"].T, state[f"{mlp}.b_in"][:, None], state[f"{mlp}.W_out"]], axis=1)


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    """1 less the cosine of two matrices; 0 when both are 0."""
    sizes = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    if sizes == 0:
        return float(np.any(first) or np.any(second))
    return float(max(1 - (first * second).sum() / sizes, 0.0))
