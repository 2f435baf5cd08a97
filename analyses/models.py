"""What every analysis asks of its models: one for each seed, all of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mechproc.errors import ConfigError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.study.result import Label

Models = Mapping[Any, HookedTransformer] | Sequence[HookedTransformer]
"""Models by seed; in a sequence the seeds are 0, 1, ..."""
BATCH_ITEMS = 64
"""Items that pass through a model at once; more are no faster, and leave the cache."""


def by_seed(models: Models) -> dict[Label, HookedTransformer]:
    """The models by seed. Errors: ``ConfigError`` for none, for shapes that differ, for models that read vectors."""
    require(
        isinstance(models, (Mapping, Sequence)), "models", type(models).__name__, "models by seed, or a list of them"
    )
    pairs = models.items() if isinstance(models, Mapping) else enumerate(models)
    found: dict[Label, HookedTransformer] = dict(pairs)
    require(len(found) > 0, "models", found, "at least one")
    (first_seed, first), *_ = found.items()
    require(first.cfg.input == "tokens", "input", first.cfg.input, "'tokens': procedures are made of tokens")
    for seed, model in found.items():
        if model.cfg != first.cfg:
            ours, theirs = first.cfg.to_dict(), model.cfg.to_dict()
            field = next(f for f in ours if ours[f] != theirs[f])
            raise ConfigError(
                f"models of seeds {first_seed} and {seed} differ: {field} = {ours[field]!r} and {theirs[field]!r}"
            )
    return found


def batches(n_items: int) -> Iterator[slice]:
    """Slices of at most ``BATCH_ITEMS`` items that cover all."""
    for start in range(0, n_items, BATCH_ITEMS):
        yield slice(start, min(start + BATCH_ITEMS, n_items))
