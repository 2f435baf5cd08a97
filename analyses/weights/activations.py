"""Linear CKA: how alike the activations of two models are on the same items, whatever their bases.

For activations X and Y [observation, feature], centred: |Y^T X|^2 / (|X^T X| |Y^T Y|), Frobenius (Kornblith et al.
2019), from 0 to 1; 1 where one is the other turned and scaled. Observations are the real positions of all items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from analyses.interventions.activations import record
from analyses.interventions.items import check_items, cut
from analyses.matrices import layer_parts
from analyses.models import by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import sites
from mechproc.procedures.base import Items
from mechproc.result import Result

NO_LN = "LayerNorms pass on the whole residual stream: their activations belong to everything before them"
DOES_NOT_SHOW = (
    "that the models compute the same: activations are alike too where both merely pass on what the items have in "
    "common, such as the position; and few directions of large variance decide it"
)


@sized_threads
def cka(
    first: HookedTransformer, second: HookedTransformer, items: Items, parts: Sequence[str] | None = None
) -> Result:
    """Linear CKA of each part's activations in two models on the same items: axis ``part``.

    ``parts``: part expressions that have activations; ``None``: embeddings, attention and MLP of each layer. Errors:
    ``ConfigError`` for models of other shapes, items that one of them cannot read, or activations that are not finite;
    ``PartError`` for a part without an activation.
    """
    by_seed([first, second])
    cfg = ModelConfig.from_dict(first.cfg.to_dict())
    rows = [part for part in layer_parts(cfg) if part != "ln"] if parts is None else list(parts)
    require(bool(rows) and len(set(rows)) == len(rows), "parts", rows, "at least one part, each once")
    pairs = [observed(model, items, rows, seed) for seed, model in enumerate((first, second))]
    return Result(
        name="linear CKA",
        values=np.array([float(linear_cka(pairs[0][part], pairs[1][part])) for part in rows]),
        axes=("part",),
        coordinates={"part": rows},
        unit="fraction",
        direction="higher: the activations of the two models are more alike",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        metadata={"n_items": len(items)},
    )


def observed(model: HookedTransformer, items: Items, parts: Sequence[str], seed: object) -> dict[str, np.ndarray]:
    """The centred activations of each part at every real position: float64 [observation, feature].

    Where a part has several sites, their features stand side by side. Errors: ``ConfigError``, which names the seed,
    for activations that are not finite.
    """
    cfg = ModelConfig.from_dict(model.cfg.to_dict())
    check_items(items, cfg)
    items = cut(items)
    where = {part: sites(part.removesuffix(" + unembed"), cfg) for part in parts}
    hooks = sorted({site.hook for each in where.values() for site in each})
    recorded = record(model, items, hooks)
    n_pos = min(items.tokens.shape[1], cfg.n_ctx)
    real = torch.from_numpy(np.arange(n_pos) < items.n_tokens[:, None])
    found = {}
    for part, of_part in where.items():
        columns = [site.view(recorded[site.hook]) for site in of_part]
        wide = [c.expand(len(items), *c.shape[1:])[real].flatten(1) for c in columns]
        x = torch.cat(wide, dim=1).double().cpu().numpy()
        finite = bool(np.isfinite(x).all())
        require(finite, f"activations of {part} of seed {seed}", "NaN or infinity", "finite numbers")
        found[part] = x - x.mean(axis=0)
    return found


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """CKA of centred activations; 0 where one of the two is constant."""
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size > 0 else 0.0
