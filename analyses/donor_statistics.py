"""Numbers of a model that may tell whether its parts will help elsewhere: where its heads look, and its weights.

The attention scores need no rule: they are taken on random tokens that are repeated once, x1..xn x1..xn, as in Olsson
et al. 2022, so that models of different rules and vocabularies are measured alike. Each is the highest score of any
head: a head's index means nothing across models.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from analyses import attention
from analyses.models import Models, by_seed, sized_threads, untrained
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items
from mechproc.result import Label, Result, Where

ATTENTION = {
    "previous token": "highest attention of any head to the token before, on random tokens that are repeated once",
    "induction": "highest attention of any head to the token after the earlier copy, on the same tokens",
    "duplicate token": "highest attention of any head to the earlier copy, on the same tokens",
}
WEIGHTS = {
    "attention norm": "root mean square of the weights of attention, relative to their standard deviation when fresh",
    "QK trace": "highest trace of any head's W_Q W_K^T, divided by its Frobenius norm and the root of d_head: near 1, "
    "the head compares like with like",
    "OV trace": "the trace of largest size, with its sign, of any head's W_V W_O, in the same unit",
    "QK stable rank": "mean over heads of the squared Frobenius norm of W_Q W_K^T over its squared largest singular "
    "value",
}
ABOUT = ATTENTION | WEIGHTS
"""Each statistic, and what it is."""
FRESH = 0.02
"""Standard deviation of fresh weights."""
N_ITEMS = 64
N_UNTRAINED = 3
"""Untrained models whose statistics are what those of a model are held against."""


@sized_threads
def run(models: Models, n_items: int = N_ITEMS, seed: int = 0) -> Result:
    """Statistics that need no rule (attention on repeated tokens, norms, ranks): axes ``seed`` and ``statistic``.

    Which they are, and what each is, stands in ``ABOUT``. ``n_items`` sequences of repeated tokens, drawn from
    ``seed``, as long as the context allows, at most 64 tokens. Of a model that reads vectors the attention scores are
    undefined. ``metadata["baselines"]`` has by statistic the mean of untrained models of the same shape.
    """
    found = by_seed(models)
    cfg = next(iter(found.values())).cfg
    require(n_items >= 1, "n_items", n_items, "at least 1")
    undefined: list[tuple[Where, str]] = []
    if cfg.input != "tokens":
        undefined = [({"statistic": name}, "the model reads vectors, not tokens") for name in ATTENTION]
    fresh = _values(by_seed(untrained(cfg, N_UNTRAINED)), n_items, seed).mean(axis=0)
    return Result(
        name="statistics of the model",
        values=_values(found, n_items, seed),
        axes=("seed", "statistic"),
        coordinates={"seed": list(found), "statistic": list(ABOUT)},
        unit="norm: of fresh weights; stable rank: directions; others: fraction",
        direction="higher: more of what the statistic measures",
        what_it_does_not_show="that a model works as a statistic suggests, or that its parts help elsewhere",
        undefined=undefined,
        metadata={
            "about": ABOUT,
            "n_items": n_items if cfg.input == "tokens" else 0,
            "baselines": {name: {f"mean of {N_UNTRAINED} untrained models": float(value)}
                          for name, value in zip(ABOUT, fresh, strict=True) if np.isfinite(value)},
        },
    )  # fmt: skip


def _values(models: Mapping[Label, HookedTransformer], n_items: int, seed: int) -> np.ndarray:
    """Float64 [model, statistic]; NaN for attention scores of models that read vectors."""
    cfg = next(iter(models.values())).cfg
    values = np.full((len(models), len(ABOUT)), np.nan)
    if cfg.input == "tokens":
        items, masks = repeated(cfg, n_items, seed)
        scores = attention.scores(models, items, masks).values  # [mask, layer, head, seed]
        values[:, : len(ATTENTION)] = scores.max(axis=(1, 2)).T
    for row, model in enumerate(models.values()):
        values[row, len(ATTENTION) :] = _weights(model)
    return values


def repeated(cfg: ModelConfig, n_items: int, seed: int) -> tuple[Items, dict[str, np.ndarray]]:
    """Sequences x1..xn x1..xn of random tokens, the padding excluded, and where each kind of head would look."""
    items = attention.repeated(cfg, n_items, seed)
    half = items.tokens.shape[1] // 2
    query, key = np.arange(2 * half)[:, None], np.arange(2 * half)[None]
    second = query >= half
    places = {
        "previous token": (key == query - 1) & (query > 0),
        "induction": second & (key == query - half + 1),
        "duplicate token": second & (key == query - half),
    }
    return items, {name: np.broadcast_to(mask, (n_items, *mask.shape)) for name, mask in places.items()}


def _weights(model: HookedTransformer) -> list[float]:
    state = {name: tensor.detach().double() for name, tensor in model.state_dict().items()}
    layers = [f"blocks.{layer}.attn." for layer in range(model.cfg.n_layers)]
    joined = torch.cat([state[f"{layer}W_{kind}"].flatten() for layer in layers for kind in "QKVO"])
    qk = torch.cat([state[f"{layer}W_Q"] @ state[f"{layer}W_K"].mT for layer in layers])  # [head, d_model, d_model]
    ov = torch.cat([state[f"{layer}W_V"] @ state[f"{layer}W_O"] for layer in layers])
    d_head = state["blocks.0.attn.W_Q"].shape[-1]
    like, copies = _trace(qk, d_head), _trace(ov, d_head)
    ranks = torch.linalg.matrix_norm(qk) ** 2 / torch.linalg.matrix_norm(qk, ord=2).clamp_min(1e-12) ** 2
    return [
        float(joined.square().mean().sqrt() / FRESH),
        float(like.max()),
        float(copies[copies.abs().argmax()]),
        float(ranks.mean()),
    ]


def _trace(matrices: Tensor, d_head: int) -> Tensor:
    """Trace over Frobenius norm and root of the rank, of each matrix: at most 1, for a multiple of a projection."""
    norms = torch.linalg.matrix_norm(matrices).clamp_min(1e-12)
    return matrices.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / norms / d_head**0.5
