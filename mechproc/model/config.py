"""The shape of a model. Names are TransformerLens's."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Literal

from mechproc.config import Config
from mechproc.errors import require

MODEL_VERSION = "1.0.0"
"""Semantic version of what a config and a state mean together: raised when logits, fresh weights or defaults change."""
MOST_LAYERS, MOST_WEIGHTS = 1_000, 4_000_000_000
"""Of any model; refused before a number is drawn or a file is read."""


@dataclasses.dataclass(frozen=True)
class ModelConfig(Config):
    """A GPT-2-shaped decoder: pre-LayerNorm, learned positions, causal attention scaled by 1/sqrt(d_head)."""

    largest: ClassVar[int] = 1_000_000

    n_layers: int
    n_heads: int
    d_model: int
    n_ctx: int
    """Most positions the model can read."""
    d_vocab: int
    """Input tokens and output logits; with ``input="vectors"``, output logits only."""
    d_head: int | None = None
    """Width of a head; ``None`` stands for d_model / n_heads."""
    d_mlp: int | None = None
    """Width of an MLP; ``None`` stands for 4 d_model; 0 for a model without MLPs."""
    act_fn: Literal["gelu_new", "gelu", "relu"] = "gelu_new"
    normalization_type: Literal["LN", "LNPre"] | None = "LN"
    """``LNPre``: LayerNorms without weight and bias, which are folded into what reads them (``fold_ln``). ``None``: no
    LayerNorm anywhere, the final one included."""
    eps: float = 1e-5
    """Added to the variance in LayerNorm."""
    tied_embeddings: bool = False
    """The unembedding is the transposed token embedding (one tensor, which the ``embed`` part owns)."""
    unembed_bias: bool = False
    input: Literal["tokens", "vectors"] = "tokens"
    """``vectors``: the input is float [batch, pos, d_input], embedded by ``x @ W_E``."""
    d_input: int | None = None
    init_std: float = 0.02
    """GPT-2 initialisation: normal with this deviation, W_O and W_out divided by sqrt(2 n_layers)."""

    def __post_init__(self) -> None:
        for name, low in [("n_layers", 1), ("n_heads", 1), ("d_model", 1), ("n_ctx", 1), ("d_vocab", 2)]:
            require(getattr(self, name) >= low, name, getattr(self, name), f"at least {low}")
        if self.d_head is None:
            require(
                self.d_model % self.n_heads == 0,
                "n_heads",
                self.n_heads,
                f"a divisor of d_model = {self.d_model}, or give d_head",
            )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        if self.d_mlp is None:
            object.__setattr__(self, "d_mlp", 4 * self.d_model)
        require((self.d_head or 0) >= 1, "d_head", self.d_head, "at least 1")
        require((self.d_mlp or 0) >= 0, "d_mlp", self.d_mlp, "0 (no MLPs) or more")
        require(0 < self.eps < math.inf, "eps", self.eps, "above 0 and finite")
        require(0 < self.init_std < math.inf, "init_std", self.init_std, "above 0 and finite")
        require(self.n_layers <= MOST_LAYERS, "n_layers", self.n_layers, f"at most {MOST_LAYERS:,}")
        vectors = self.input == "vectors"
        require((self.d_input is not None) == vectors, "d_input", self.d_input, "given exactly when input is 'vectors'")
        require(not (vectors and self.tied_embeddings), "tied_embeddings", True, "False when input is 'vectors'")

        n, made_of = self.n_weights, "n_layers, n_heads, d_model, d_head, d_mlp, n_ctx and d_vocab"
        require(n <= MOST_WEIGHTS, "weights", n, f"at most {MOST_WEIGHTS:,}, which follow from {made_of}")

    @property
    def n_weights(self) -> int:
        """How many numbers the matrices have."""
        d_head, d_mlp = self.d_head or 0, self.d_mlp or 0
        of_layer = 4 * self.n_heads * self.d_model * d_head + 2 * self.d_model * d_mlp
        unembed = 0 if self.tied_embeddings else self.d_vocab
        return self.n_layers * of_layer + self.d_model * ((self.d_input or self.d_vocab) + self.n_ctx + unembed)

    def following(self) -> dict[str, Any]:
        """The widths that follow from ``d_model`` and ``n_heads``."""
        d_head = {"d_head": self.d_model // self.n_heads} if self.d_model % self.n_heads == 0 else {}
        return {**d_head, "d_mlp": 4 * self.d_model}

    def weight_semantics(self, tensor: str) -> dict[str, Any]:
        """The settings, beside its shape, that decide what the numbers of ``tensor`` compute, with their values here.

        ``tensor`` is a name of ``mechproc.model.state.tensor_shapes``, such as ``"blocks.0.mlp.W_in"``. Its numbers
        mean the same in two models only if these settings agree: what a layer reads is the output of a LayerNorm,
        whose size depends on ``eps``. Attention has no setting of its own, as its scale follows from ``d_head``, which
        is part of the shape. The dtype is not a setting: ``mechproc.model.state.dtype_of`` reads it from a state.
        """
        module = tensor.rpartition(".")[0].rpartition(".")[2]
        names = {"embed": ["input"], "pos_embed": [], "mlp": ["act_fn"]}.get(module, [])
        if module not in ("embed", "pos_embed"):
            names = [*names, "normalization_type", *(["eps"] if self.normalization_type else [])]
        return {name: getattr(self, name) for name in names}

    @property
    def attn_only(self) -> bool:
        """True when there are no MLPs."""
        return self.d_mlp == 0
