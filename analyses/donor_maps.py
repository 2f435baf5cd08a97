"""What other methods say of the donors of the transfer map, in its rows: the models before anything was moved.

Each map is of the pretrained models, on the rule that they were pretrained on, and higher where the part matters more:

- ``ablation``: loss gained; means in the place of attention and MLPs, identity affines of LayerNorms, mean rows of the
  embeddings;
- ``resampling``: loss gained with the activations of another item;
- ``patching``: how far the clean answer comes back, clean into corrupt; the mean over the rule's kinds of ``PAIRS``;
- ``probing``: how much better the rule's latents are read off what the part writes than in untrained models, mean over
  latents;
- ``weight change``: how far training moved the weights, relative to their size before;
- ``rank of change``: over how many directions it moved them (effective rank).

The embeddings are left out of patching, where they give the other run by construction; resampling, patching and probing
have no row for LayerNorms, which pass on the whole residual stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from analyses import ablation, patching, probing, weights
from analyses.models import Models
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Procedure
from mechproc.result import Label, Result
from mechproc.studies.transfer_map import EMBEDDINGS, LAYERNORMS, PLAYERS

INSIDE = PLAYERS[:4]
"""The attention and the MLP of each layer."""
DESCRIBES = "the pretrained model, on its own rule"
PAIRS = {"set": ("symbol",), "k-dyck": ("kind", "nesting")}
"""Of each rule the kinds of pairs of equal layout that change the answer."""
MOST_PROBED = 200
"""Items whose activations probes are fitted to."""


def maps(
    models: Mapping[Label, HookedTransformer],
    starts: Mapping[Label, HookedTransformer],
    rule: Procedure,
    seed: int,
    n_items: int,
) -> dict[str, Result]:
    """Every map by its name, each with the axes ``part`` and ``seed``.

    - ``models``: the donors by seed, and ``starts``, what each was before its pretraining;
    - ``rule``: what they were pretrained on;
    - ``seed``, ``n_items``: of the items.
    """
    changed = weights.change(models, starts, list(PLAYERS))
    rank = changed.select(part=[part for part in PLAYERS if part != LAYERNORMS])
    return {
        "ablation": _ablation(models, rule, seed, n_items),
        "resampling": ablation.run(models, rule, INSIDE, "resample", "loss", seed=seed, n_items=n_items),
        "patching": _patching(models, rule, seed, n_items),
        "probing": _probing(models, rule, seed, min(n_items, MOST_PROBED)),
        "weight change": changed.select(quantity="relative change"),
        "rank of change": rank.select(quantity="effective rank of the change"),
    }


def _ablation(models: Models, rule: Procedure, seed: int, n_items: int) -> Result:
    kinds = (("mean", INSIDE), ("identity_affine", [LAYERNORMS]), ("mean_row", [EMBEDDINGS]))
    found = [ablation.run(models, rule, parts, kind, "loss", seed=seed, n_items=n_items) for kind, parts in kinds]
    return dataclasses.replace(
        found[0],
        name="loss gained by ablation",
        values=np.concatenate([each.values for each in found]),
        coordinates={**found[0].coordinates, "part": list(PLAYERS)},
    )


def _patching(models: Models, rule: Procedure, seed: int, n_items: int) -> Result:
    each = [
        patching.recovery(patching.run(models, rule, kind, INSIDE, seed=seed, n_items=n_items))
        for kind in PAIRS[rule.short_name]
    ]
    return dataclasses.replace(each[0], values=np.mean([one.values for one in each], axis=0))


def _probing(models: Models, rule: Procedure, seed: int, n_items: int) -> Result:
    found = probing.run(models, rule, None, INSIDE, seed=seed, n_items=n_items)
    better = _difference(found, "accuracy", "untrained"), _difference(found, "r2", "untrained r2")
    gained = np.where(np.isfinite(better[0]), better[0], better[1])  # [latent, site, seed]
    known = gained[np.isfinite(gained).all(axis=(1, 2))]
    one = found.select(latent=found.coordinates["latent"][0], quantity="accuracy")
    return dataclasses.replace(
        one,
        name="latents read better than in untrained models",
        values=known.mean(axis=0),
        axes=("part", "seed"),
        coordinates={"part": list(INSIDE), "seed": one.coordinates["seed"]},
        undefined=(),
        selected={},
    )


def _difference(found: Result, quantity: str, baseline: str) -> np.ndarray:
    """Float64 [latent, site, seed]."""
    values: Sequence[np.ndarray] = [found.select(quantity=each).values for each in (quantity, baseline)]
    return values[0] - values[1]
