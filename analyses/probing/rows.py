"""What a probe is fitted to: activations at positions of items, and the value of a latent at each.

Training rows come from the validation split of the rule and test rows from its test split, so that no sequence (and no
twin of one, where a rule has equivalence classes) is in both.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from analyses.interventions.metrics import metric_of, scored_tokens
from analyses.interventions.patch import run_with_activations
from analyses.interventions.trace import require_finite
from analyses.models import batches_of
from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site
from mechproc.procedures.base import Items, Procedure
from mechproc.procedures.items import UNDEFINED
from mechproc.result import Label

TRAIN_ROWS, TEST_ROWS = 1000, 2000
"""The most rows that a probe is fitted to and tested on; of more, a random choice."""
MIN_ROWS = 50
"""The fewest rows that a probe is fitted to."""
MAX_VALUES = 64
"""The most different values of a latent that a classifier is fitted to."""
N_ITEMS = 500
"""Items for training and as many for test, unless another number is asked for."""
Positions = Literal["defined", "scored"] | Sequence[int] | np.ndarray
"""``"defined"``: wherever the latent has a value; ``"scored"``: of these the scored positions; or positions [k]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Positions of items, and a label for each; items in random order, the rows of one item together."""

    item: np.ndarray
    """int64 [row]."""
    position: np.ndarray
    """int64 [row]."""
    label: np.ndarray
    """int64 [row]."""

    def __len__(self) -> int:
        return len(self.label)

    def of(self, activation: np.ndarray) -> np.ndarray:
        """The activation [item, pos, d] at these rows, [row, d]."""
        return activation[self.item, self.position]

    def labelled(self, labels: np.ndarray) -> Rows:
        """The same rows with labels from an array [item, pos]."""
        return dataclasses.replace(self, label=labels[self.item, self.position])


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """One latent: the rows of its probes, and its control labels."""

    latent: str
    ordinal: bool
    train: Rows
    test: Rows
    control_train: Rows
    control_test: Rows
    why_not: str = ""
    """Why no probe can be fitted; empty when one can."""

    @property
    def values(self) -> np.ndarray:
        """The different values in training and test rows, sorted."""
        return np.union1d(self.train.label, self.test.label)

    @property
    def why_no_classifier(self) -> str:
        """Why the values cannot be told apart one by one; empty when they can."""
        many = len(self.values) > MAX_VALUES
        return self.why_not or (f"it has {len(self.values)} values, more than {MAX_VALUES}" if many else "")


def split_items(rule: Procedure, n_items: int | None, seed: int) -> tuple[Items, Items]:
    """Items to fit probes to and items to test them on."""
    require(
        isinstance(rule, Procedure), "rule", type(rule).__name__, "a procedure, such as get('stack')(): it has latents"
    )
    require(bool(rule.latent_names), "rule", rule.kind, "a procedure that defines latents")
    n = N_ITEMS if n_items is None else n_items
    require(n >= 2, "n_items", n, "at least 2")
    return rule.items(n, seed=seed, split="validation"), rule.items(n, seed=seed, split="test")


def questions(
    rule: Procedure,
    latents: Sequence[str] | None,
    train: Items,
    test: Items,
    cfg: ModelConfig,
    positions: Positions,
    seed: int,
) -> list[Question]:
    """A question for each latent; all latents of the rule when ``None``. Errors: ``ConfigError``."""
    names = list(rule.latent_names) if latents is None else list(latents)
    require(bool(names) and len(set(names)) == len(names), "latents", names, "at least one, each once")
    for name in names:
        if name not in rule.latent_names:
            known = ", ".join(rule.latent_names)
            raise ConfigError(f"latent {name!r} of {rule.kind} is not one of {known}{nearest(name, rule.latent_names)}")
    return [_question(rule, name, train, test, cfg, positions, seed) for name in names]


def _question(
    rule: Procedure, latent: str, train: Items, test: Items, cfg: ModelConfig, positions: Positions, seed: int
) -> Question:
    rng = np.random.default_rng([seed, zlib.crc32(latent.encode())])
    fitted = _rows(train, latent, positions, cfg.n_ctx, TRAIN_ROWS, rng)
    tested = _rows(test, latent, positions, cfg.n_ctx, TEST_ROWS, rng)
    why_not = ""
    if len(fitted) < MIN_ROWS or len(tested) < MIN_ROWS:
        why_not = f"it has a value at {len(fitted)} such positions for training, {len(tested)} for test: too few"
    elif len(np.unique(fitted.label)) == 1:
        why_not = "it has the same value at all of these positions"
    if why_not:
        return Question(latent, latent in rule.ordinal_latents, fitted, tested, fitted, tested, why_not)
    both = Items.join([train, test])  # so that a token has one control label in both
    control = rule.control_labels(both, latent, seed)
    return Question(
        latent,
        latent in rule.ordinal_latents,
        fitted,
        tested,
        fitted.labelled(control[: len(train)]),
        tested.labelled(control[len(train) :]),
    )


def _rows(items: Items, latent: str, positions: Positions, n_ctx: int, most: int, rng: np.random.Generator) -> Rows:
    values = items.latents[latent][:, :n_ctx]
    kept = (values != UNDEFINED) & chosen_positions(positions, items, n_ctx)
    item, position = np.nonzero(kept)
    chosen = rng.permutation(len(item))[:most]
    place = rng.permutation(len(items))  # the order of the items
    chosen = chosen[np.lexsort((position[chosen], place[item[chosen]]))]
    return Rows(item[chosen], position[chosen], values[item[chosen], position[chosen]])


def chosen_positions(positions: Positions, items: Items, n_ctx: int) -> np.ndarray:
    """Which positions are asked for, bool [item, pos]. Errors: ``ConfigError``."""
    width = min(items.tokens.shape[1], n_ctx)
    if isinstance(positions, str):
        require(positions in ("defined", "scored"), "positions", positions, "'defined', 'scored', or whole numbers [k]")
        return items.scored[:, :width] if positions == "scored" else np.ones((len(items), width), dtype=bool)
    places = np.asarray(positions)
    fits = places.ndim == 1 and places.size > 0 and np.issubdtype(places.dtype, np.integer)
    fits = bool(fits and places.min() >= 0 and places.max() < width)
    require(fits, "positions", places.tolist(), f"'defined', 'scored', or whole numbers [k] from 0 to {width - 1}")
    return np.broadcast_to(np.isin(np.arange(width), places), (len(items), width))


def activations_at(
    model: HookedTransformer, items: Items, sites: Mapping[str, Site], seed: Label
) -> tuple[dict[str, np.ndarray], float]:
    """The activation at each site, float64 [item, pos, d], and the model's accuracy on these items.

    Errors: ``ConfigError`` where the logits are not finite, ``PartError`` for a hook that was left on the model.
    """
    model.require_no_hooks()
    hooks, cells = sorted({site.hook for site in sites.values()}), model.cfg.input == "vectors"
    found: dict[str, list[np.ndarray]] = {name: [] for name in sites}
    right = []
    for batch in batches_of(items):
        part = items.take(batch)
        logits, cache = run_with_activations(model, part, hooks)
        require_finite(logits, seed)
        tokens = scored_tokens(part, logits.device, None, cells)
        right.append(metric_of("accuracy")(logits[tokens.item, tokens.position].double(), tokens))
        for name, site in sites.items():
            values: Any = site.view(cache[site.hook]).double().cpu().numpy()
            found[name].append(values)
    return {name: np.concatenate(pieces) for name, pieces in found.items()}, float(torch.cat(right).mean())
