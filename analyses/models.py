"""What every analysis asks of its models: one for each seed, all of one shape."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.procedures.base import Items
from mechproc.result import Label
from mechproc.threads import one_thread

Models = Mapping[Any, HookedTransformer] | Sequence[HookedTransformer]
"""Models by seed; in a sequence the seeds are 0, 1, ..."""
P = ParamSpec("P")
T = TypeVar("T")
ONE_THREAD_WIDTH = 128
"""Models of at most this width are run with one thread."""
WHOLE = {"seed": 0, "n_items": 1, "n_exact": 1, "steps": 1, "n_controls": 1, "n_random": 1, "n_untrained": 1}
"""Settings that are whole numbers, and the least that each may be."""
NAMES = ("parts", "sites", "senders", "receivers", "latents", "targets", "controls")
"""Settings that are lists of names."""
BATCH_ITEMS = 64
"""Items that pass through a model at once, if they are long; more are no faster, and leave the cache."""
BATCH_POSITIONS = 4096
"""Of short items as many as have this many positions together: of fewer, what is called takes longer than what is
computed."""


def by_seed(models: Models) -> dict[Label, HookedTransformer]:
    """The models by seed. Errors: ``ConfigError`` for none, for what is no model, and for shapes that differ."""
    require(
        isinstance(models, (Mapping, Sequence)), "models", type(models).__name__, "models by seed, or a list of them"
    )
    pairs = models.items() if isinstance(models, Mapping) else enumerate(models)
    models_by_seed: dict[Label, HookedTransformer] = dict(pairs)
    require(len(models_by_seed) > 0, "models", models_by_seed, "at least one")
    for seed, model in models_by_seed.items():
        is_model = isinstance(model, HookedTransformer)
        require(is_model, f"model of seed {seed}", type(model).__name__, "a HookedTransformer")
    (first_seed, first), *_ = models_by_seed.items()
    for seed, model in models_by_seed.items():
        if model.cfg != first.cfg:
            ours, theirs = first.cfg.to_dict(), model.cfg.to_dict()
            field = next(f for f in ours if ours[f] != theirs[f])
            raise ConfigError(
                f"models of seeds {first_seed} and {seed} differ: {field} = {ours[field]!r} and {theirs[field]!r}"
            )
    return models_by_seed


def donors_of(donors: Models, models: Mapping[Label, HookedTransformer]) -> dict[Label, HookedTransformer]:
    """The donor of each model, by seed. Errors: ``ConfigError`` for a seed without one, and for another shape.

    The activations of donor and model must have the same shapes; how many tokens and positions they know may differ.
    """
    found = by_seed(donors)
    require(set(found) >= set(models), "seeds of donors", list(found), f"those of the models, {list(models)}")
    ours, theirs = (next(iter(each.values())).cfg for each in (models, found))
    for field in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "input"):
        mine, other = getattr(ours, field), getattr(theirs, field)
        require(mine == other, f"{field} of the donors", other, f"{mine!r}, that of the models")
    return {seed: found[seed] for seed in models}


def untrained(cfg: ModelConfig, n: int = 3) -> list[HookedTransformer]:
    """``n`` models of this shape with the weights that training starts from: the baseline for what training adds."""
    return [HookedTransformer(cfg, init_state(cfg, seed, "untrained")) for seed in range(n)]


def sized_threads(analysis: Callable[P, T]) -> Callable[P, T]:
    """An analysis whose first argument is models, or one: of small ones it takes one thread; its settings are checked.

    Several threads gain nothing on matrices of this size, and on a busy machine each waits for the slowest: ten
    ablation maps of models of width 16 took 14 seconds with one thread where two took minutes.
    """

    takes = inspect.signature(analysis)

    @functools.wraps(analysis)
    def sized(*args: P.args, **kwargs: P.kwargs) -> T:
        given = takes.bind(*args, **kwargs)
        for rest in [p.name for p in takes.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]:
            check_settings(given.arguments.get(rest, {}))
        check_settings(given.arguments)
        first = next(iter(given.arguments.values()), None)
        while isinstance(first, (Mapping, list, tuple)):
            first = next(iter(first.values() if isinstance(first, Mapping) else first), None)
        small = isinstance(first, HookedTransformer) and first.cfg.d_model <= ONE_THREAD_WIDTH
        with one_thread() if small else contextlib.nullcontext():
            return analysis(*given.args, **given.kwargs)

    return sized


def check_settings(settings: dict[str, Any]) -> None:
    """The settings that analyses have in common: seeds and counts are whole numbers, names a list of texts.

    One name by itself is put into a list, in place. Errors: ``ConfigError``.
    """
    for name, least in WHOLE.items():
        value = settings.get(name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least
        require(value is None or bool(whole), name, value, f"a whole number, at least {least}")
    for name in NAMES:
        value = settings.get(name)
        if isinstance(value, str):
            settings[name] = [value]
        elif value is not None:
            texts = isinstance(value, Iterable) and all(isinstance(each, str) for each in value)
            require(texts, name, value, "a list of names")


def batches_of(items: Items) -> Iterator[slice]:
    """``batches`` of items, by their number and length."""
    return batches(len(items), items.tokens.shape[1])


def batches(n_items: int, n_positions: int | None = None) -> Iterator[slice]:
    """Slices that cover all items: of ``BATCH_ITEMS``, or of ``BATCH_POSITIONS`` positions where that is more items."""
    size = BATCH_ITEMS if n_positions is None else max(BATCH_ITEMS, BATCH_POSITIONS // max(1, n_positions))
    for start in range(0, n_items, size):
        yield slice(start, min(start + size, n_items))
