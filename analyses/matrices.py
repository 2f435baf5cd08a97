"""The matrices of each part of a model, in float64, with LayerNorms folded into them or not.

Folded is the default, for then what a part reads and writes is all in its matrices: reading weights are multiplied by
the LayerNorm's gain and centred over ``d_model``, writing weights are centred too (``mechproc.model.convert.folding``).
Any orthogonal change of the residual stream's basis that keeps the all-ones direction then leaves the model's function
as it is, so that only quantities that do not depend on that basis mean something across models of different starts.
LayerNorms' scales, which depend on the item, are in no matrix; neither are biases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.convert import folding
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import components, select
from mechproc.model.parts.table import find_row
from mechproc.model.state import State

MATRICES = ("QK", "OV", "W_in", "W_out", "W_E", "W_pos", "W_U")
"""Products of a head's weights (W_Q W_K^T, W_V W_O), and single weights."""
ROUNDING = 1e-6
"""A head or MLP that writes along the all-ones direction writes nothing that is read: what centring leaves of its
output weights is rounding of float32, below this share of them, and is set to 0."""
Factors = tuple[np.ndarray, np.ndarray | None]
"""A matrix as the product of [m, r] and [r, n], or by itself."""


@dataclasses.dataclass(frozen=True, eq=False)
class Matrices:
    """A model as matrices."""

    cfg: ModelConfig
    """The shape that was given; folded weights have another ``normalization_type``."""
    state: dict[str, np.ndarray]
    """float64, by the names of the state; ``"unembed.W_U"`` is there for tied embeddings too."""
    gains: list[np.ndarray]
    """The weights of the LayerNorms as they are in the model, in the order of the forward pass."""
    folded: bool

    @classmethod
    def of(cls, model: HookedTransformer, folded: bool = True, seed: object = None) -> Matrices:
        """Copies of the model's weights. Raises ``ConfigError`` for weights that are not finite.

        ``seed``: the model's label, for the message; None for a model that has none.
        """
        require(isinstance(model, HookedTransformer), "model", type(model).__name__, "a HookedTransformer")
        cfg = ModelConfig.from_dict(model.cfg.to_dict())
        state = finite_state(model, seed)
        gains = [tensor.numpy() for name, tensor in state.items() if name.rpartition(".")[2] == "w"]
        new_cfg, new = folding.untied(cfg, state)
        if folded and cfg.normalization_type is not None:
            if cfg.normalization_type == "LN":
                new_cfg, new = folding.fold_ln(new_cfg, new)
            new_cfg, new = folding.center_writing_weights(new_cfg, new)
        arrays = {name: tensor.numpy() for name, tensor in new.items()}
        for name, raw in state.items():
            if name.endswith((".W_O", ".W_out")):
                axes = (1, 2) if name.endswith(".W_O") else (0, 1)
                size = np.linalg.norm(raw.numpy(), axis=axes, keepdims=True)
                left = np.linalg.norm(arrays[name], axis=axes, keepdims=True)
                arrays[name] = np.where(left > ROUNDING * size, arrays[name], 0.0)
        return cls(cfg, arrays, gains, folded)

    def head(self, layer: int, head: int, circuit: str) -> Factors:
        """W_Q and W_K^T for ``"QK"``, W_V and W_O for ``"OV"``: [d_model, d_head], [d_head, d_model]."""
        attn = f"blocks.{layer}.attn"
        if circuit == "QK":
            return self.state[f"{attn}.W_Q"][head], self.state[f"{attn}.W_K"][head].T
        return self.state[f"{attn}.W_V"][head], self.state[f"{attn}.W_O"][head]

    def of_part(self, part: str) -> dict[str, Factors]:
        """The matrices of one part, by their label in ``MATRICES``: a head has two, so has an MLP.

        Raises ``PartError`` for a part that is more than one head or MLP, or that has no matrix.
        """
        select(part, self.cfg)  # what does not exist is the grammar's error
        row, numbers = find_row(part) or (None, {})
        layer, head = numbers.get("layer", 0), numbers.get("head", 0)
        match row.part if row is not None else "":
            case "L{layer}.H{head}":
                return {circuit: self.head(layer, head, circuit) for circuit in ("QK", "OV")}
            case "L{layer}.H{head}.QK" | "L{layer}.H{head}.OV" as address:
                return {address[-2:]: self.head(layer, head, address[-2:])}
            case "L{layer}.mlp":
                mlp = f"blocks.{layer}.mlp"
                return {"W_in": (self.state[f"{mlp}.W_in"], None), "W_out": (self.state[f"{mlp}.W_out"], None)}
            case "embed":
                return {"W_E": (self.state["embed.W_E"], None)}
            case "pos":
                return {"W_pos": (self.state["pos_embed.W_pos"], None)}
            case "unembed":
                return {"W_U": (self.state["unembed.W_U"], None)}
        raise PartError(f"{part!r} has no matrix of its own: name a head, its QK or OV, an MLP, embed, pos or unembed")


def finite_state(model: HookedTransformer, seed: object = None) -> State:
    """The model's weights in float64. Raises ``ConfigError``, which names the seed, unless all are finite."""
    state = {name: tensor.double().cpu() for name, tensor in model.state().items()}
    whose = "" if seed is None else f" of seed {seed}"
    for name, tensor in state.items():
        require(bool(tensor.isfinite().all()), f"{name}{whose}", "NaN or infinity", "finite weights")
    return state


def matrix_parts(cfg: ModelConfig) -> list[str]:
    """The parts that have matrices: embeddings, every head and MLP, and an unembedding of its own."""
    return ["embed", "pos", *components(cfg), *([] if cfg.tied_embeddings else ["unembed"])]


def layer_parts(cfg: ModelConfig) -> list[str]:
    """The layer-level parts, which mean the same in every model: embeddings, attention and MLPs by layer, LayerNorms.

    Six for two layers with MLPs: the family that verdicts across seeds are given for.
    """
    embeddings = "embed + pos" if cfg.tied_embeddings else "embed + pos + unembed"
    kinds = ("attn",) if cfg.attn_only else ("attn", "mlp")
    inside = [f"L{layer}.{kind}" for layer in range(cfg.n_layers) for kind in kinds]
    return [embeddings, *inside, *(["ln"] if cfg.normalization_type == "LN" else [])]


def product(factors: Factors) -> np.ndarray:
    """The matrix itself."""
    left, right = factors
    return left if right is None else left @ right


def singular_values(factors: Factors) -> np.ndarray:
    """The singular values, largest first; of a product of [m, r] and [r, n] only the r that can differ from zero."""
    left, right = factors
    if right is None:
        return np.linalg.svd(left, compute_uv=False)
    inner, outer = (np.asarray(np.linalg.qr(factor, mode="r")) for factor in (left, right.T))
    return np.linalg.svd(inner @ outer.T, compute_uv=False)


def norm(factors: Factors) -> float:
    """The Frobenius norm."""
    return float(np.linalg.norm(singular_values(factors)))


def said_of(matrices: Sequence[Matrices]) -> dict[str, str]:
    """Metadata that says what was done with the LayerNorms and which biases are left out."""
    kind = matrices[0].cfg.normalization_type
    if kind is None:
        norms = "the model has none"
    elif matrices[0].folded:
        norms = "folded into what reads them; writing weights centred"
    else:
        norms = "not folded: gains are left out"
    return {"layernorms": norms, "biases": "left out"}
