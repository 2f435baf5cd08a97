"""The QK or OV circuit of one head as a matrix: in the residual stream, from token to token, or from place to place."""

from __future__ import annotations

from typing import Literal

import numpy as np

from analyses.matrices import Matrices, product, said_of
from analyses.models import sized_threads
from mechproc.errors import PartError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result

Basis = Literal["residual", "tokens", "positions"]
NOT_SHOWN = (
    "what the head does in an item: there the LayerNorm divides by a scale that depends on the item, biases add to it, "
    "and a head of a later layer reads what earlier parts wrote besides the embeddings"
)


@sized_threads
def circuit(
    model: HookedTransformer,
    part: str,
    basis: Basis = "tokens",
    *,
    folded: bool = True,
    procedure: Procedure | None = None,
) -> Result:
    """The circuit of ``part``, such as ``"L1.H0.OV"``: a matrix, the same for every basis inside the head.

    | basis | QK: axes ``query``, ``key`` | OV: axes ``source``, ``output`` |
    | --- | --- | --- |
    | ``residual`` | W_Q W_K^T / sqrt(d_head), [d_model, d_model] | W_V W_O, [d_model, d_model] |
    | ``tokens`` | W_E QK W_E^T, [d_vocab, d_vocab] | W_E OV W_U, [d_vocab, d_vocab] |
    | ``positions`` | W_pos QK W_pos^T, [n_ctx, n_ctx] | W_pos OV W_U, [n_ctx, d_vocab] |

    - ``part``: the QK or OV of one head, such as L1.H0.OV;
    - ``basis``: of both axes, as in the table;
    - ``folded``: whether the gains of the LayerNorms before the head and before the unembedding are multiplied in;
    - ``procedure``: what the model was trained on, whose names of tokens are the labels; numbers without it.

    Row vectors are multiplied from the left, as in TransformerLens. A QK circuit has scores before the softmax (nats),
    an OV circuit what is added to logits, each for a LayerNorm whose scale is 1. Errors: ``PartError`` for a part that
    is no QK or OV of one head; ``ConfigError`` for an unknown basis.
    """
    require(basis in ("residual", "tokens", "positions"), "basis", basis, "'residual', 'tokens' or 'positions'")
    matrices = Matrices.of(model, folded)
    reads = matrices.cfg.input
    allowed = "'residual' or 'positions': the model reads vectors, not tokens"
    require(basis != "tokens" or reads == "tokens", "basis", basis, allowed)
    if not isinstance(part, str) or not part.endswith((".QK", ".OV")):
        raise PartError(f"{part!r} is not the circuit of one head: name its QK or OV, such as 'L1.H0.OV'")
    ((kind, factors),) = matrices.of_part(part).items()
    is_qk = kind == "QK"
    values = product(factors)
    if basis != "residual":
        left = matrices.state["embed.W_E" if basis == "tokens" else "pos_embed.W_pos"]
        values = left @ values @ (left.T if is_qk else matrices.state["unembed.W_U"])
    if is_qk:
        values = values / np.sqrt(matrices.cfg.d_head or 1)
    axes = ("query", "key") if is_qk else ("source", "output")
    names = procedure if basis == "tokens" else None
    unit = "weight" if basis == "residual" else "nats" if is_qk else "logits"
    return Result(
        name=f"{part} in the basis of {'the residual stream' if basis == 'residual' else basis}",
        values=values,
        axes=axes,
        coordinates={axis: token_labels(n, names) for axis, n in zip(axes, values.shape, strict=True)},
        unit=unit,
        direction="higher: the query attends more to the key" if is_qk else "higher: the source raises the output more",
        what_it_does_not_show=f"{NOT_SHOWN}.",
        metadata={**said_of([matrices]), "basis": basis, "part": part},
    )


def token_labels(n: int, procedure: Procedure | None) -> list[Label]:
    """Of each of ``n`` tokens, the name that the procedure gives it; numbers without a procedure, and where tokens have
    no names of their own."""
    names = [] if procedure is None else list(procedure.token_names)
    return [*names] if len(names) == n == len(set(names)) else [*range(n)]
