"""The methods that calibration runs, by name, each as one effect for every part of a planting."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from analyses import ablation, attention, attribution, patching, path_patching, probing, weights
from analyses.ablation.kinds import undefined_reason
from analyses.planted.planting import Planting
from analyses.planted.roles import MethodKind
from analyses.planted.single_parts import single_part_transfer
from analyses.probing.fit import classifier, information
from analyses.probing.rows import activations_at, questions, split_items
from analyses.probing.sites import sites_of
from mechproc.errors import require
from mechproc.model.parts import components
from mechproc.result import Result

REFERENCE_ITEMS = 1024
"""Validation items that means are taken over, and that probes are fitted to."""
PROBED_PAIRS = 256
"""Pairs of items that are measured when what a probe reads is replaced."""
PROBED_LATENT = "answer"
"""The latent that is probed; every planted rule has it."""
Measure = Callable[[Planting, str], dict[str, float]]
"""A planting and the name of one of its contrasts -> the effect of each part that the method can measure, in the
method's unit; larger: the part matters more."""


@dataclasses.dataclass(frozen=True)
class Method:
    """Something that claims to find the parts that matter."""

    name: str
    kind: MethodKind
    """What it can find, as ``analyses.planted.roles.EXPECTED`` has it."""
    measure: Measure
    unit: str = "nats"
    """Of its effects, and of the threshold above which they are flagged."""


METHODS: dict[str, Method] = {}
"""By name; ``register`` adds one."""


def register(name: str, kind: MethodKind, unit: str = "nats") -> Callable[[Measure], Measure]:
    """A decorator that makes a function a method of calibration."""

    def registered(measure: Measure) -> Measure:
        require(name not in METHODS, "name", name, "the name of no other method")
        METHODS[name] = Method(name, kind, measure, unit)
        return measure

    return registered


@register("zero ablation", "zero")
def zero(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss gained when a part writes zeros."""
    return _ablated(planting, contrast, "zero")


@register("mean ablation", "mean")
def mean(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss gained when a part does what it does on average."""
    return _ablated(planting, contrast, "mean")


@register("resample ablation", "resample")
def resample(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss gained when a part does what it does in another item."""
    return _ablated(planting, contrast, "resample")


@register("activation patching", "patching")
def activation_patching(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss gained on the clean item when a part does what it does in the corrupt one."""
    pairs = planting.contrast(contrast)
    parts = _defined(list(pairs.roles), planting, "resample")
    found = patching.run([planting.model], pairs.pairs, None, parts, "loss", "corrupt_into_clean", tokens="all")
    return dict(zip(parts, patching.effect(found).values[:, 0].tolist(), strict=True))


@register("attribution patching", "attribution")
def attribution_patching(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss saved on the corrupt item when a part does what it does in the clean one, to first order.

    Not the reverse: where a model is sure of the clean answer the loss is flat.
    """
    return _attributed(planting, contrast, "gradient")


@register("integrated attribution", "attribution")
def integrated_attribution(planting: Planting, contrast: str) -> dict[str, float]:
    """The same with the gradient integrated between the two inputs."""
    return _attributed(planting, contrast, "integrated")


@register("exact path patching", "patching")
def exact_path_patching(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss gained on the clean item through a part's strongest outgoing edge, read from the corrupt item.

    The strongest, not the sum: what is to be found is whether a part carries the contrast anywhere, and effects of
    edges do not add up. Only losses for the worse count, as for the other methods.
    """
    pairs = planting.contrast(contrast)
    parts = [part for part in pairs.roles if part in components(planting.cfg)]
    result = path_patching.run([planting.model], pairs.pairs, senders=parts, metric="loss", seed=planting.seed)
    return dict(zip(parts, np.nanmax(result.values[..., 0], axis=1).tolist(), strict=True))


@register("linear probe", "reading")
def linear_probe(planting: Planting, contrast: str) -> dict[str, float]:
    """Usable information about the answer, nats: what a probe of a part's output saves against the frequencies of the
    answers."""
    rule, places = planting.procedure, sites_of(_probed(planting, contrast), planting.cfg)
    train, test = split_items(rule, REFERENCE_ITEMS, planting.seed)
    (question,) = questions(rule, [PROBED_LATENT], train, test, planting.cfg, "defined", planting.seed)
    x, _ = activations_at(planting.model, train, places, planting.seed)
    x_test, _ = activations_at(planting.model, test, places, planting.seed)
    found = {}
    for part in places:
        rows, tested = question.train.of(x[part]), question.test.of(x_test[part])
        probe = classifier(rows, question.train.label)
        found[part] = information(probe, tested, question.train.label, question.test.label)
    return found


@register("probe direction patched", "probing")
def probe_direction(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss gained when what a probe of the answer reads in a part's output is taken from another item, above the loss
    gained by the same change in random directions."""
    parts = _probed(planting, contrast)
    effects = probing.causal_effect(
        [planting.model], planting.procedure, [PROBED_LATENT], parts, seed=planting.seed, n_items=PROBED_PAIRS
    ).select(latent=PROBED_LATENT, seed=0)
    above = effects.select(quantity="patched").values - effects.select(quantity="patched, random").values
    return dict(zip(parts, above.tolist(), strict=True))


@register("attention on targets", "looking", "share of attention")
def attention_on_targets(planting: Planting, contrast: str) -> dict[str, float]:
    """Of each head, the share of attention on one of the targets that the procedure names above that of uniform
    attention; the largest over the targets."""
    masks = planting.procedure.attention_targets(planting.items)
    found = attention.scores([planting.model], planting.items, masks)
    floors = [found.metadata["uniform"][name] for name in found.coordinates["mask"]]
    above = (found.values[..., 0] - np.reshape(floors, (-1, 1, 1))).max(axis=0)
    return {f"L{layer}.H{head}": float(value) for (layer, head), value in np.ndenumerate(above)}


@register("composition score", "composing", "composition score")
def composition_score(planting: Planting, contrast: str) -> dict[str, float]:
    """How much of what a part writes another one reads, above the mean over random rotations; the largest over the
    inputs of later parts and the logits. The weights alone decide it."""
    found = weights.composition([planting.model]).select(seed=0)
    above = found.select(quantity="score").values - found.select(quantity="baseline").values
    rows = dict(zip(found.coordinates["writer"], above.reshape(len(above), -1), strict=True))
    # a part that writes along the all-ones vector alone writes nothing that is read
    return {part: float(np.nan_to_num(rows[part], nan=-1.0).max()) for part in _probed(planting, contrast)}


@register("single-part transfer", "training")
def transfer(planting: Planting, contrast: str) -> dict[str, float]:
    """Loss saved over a training that starts with the part of a donor."""
    return single_part_transfer(planting)


def _probed(planting: Planting, contrast: str) -> list[str]:
    """The heads and MLPs of a contrast: what has an output that a probe reads."""
    return [part for part in planting.roles_for[contrast] if "+" not in part and not part.endswith((".QK", ".OV"))]


def _ablated(planting: Planting, contrast: str, kind: str) -> dict[str, float]:
    pairs = planting.contrast(contrast)
    parts = _defined(list(pairs.roles), planting, kind)
    reference = planting.procedure.items(REFERENCE_ITEMS, seed=planting.seed, split="validation")
    result = ablation.run(
        [planting.model],
        pairs.clean,
        parts,
        kind,
        "loss",
        reference=reference if kind == "mean" else None,
        seed=planting.seed,
    )
    return dict(zip(parts, result.values[:, 0].tolist(), strict=True))


def _attributed(planting: Planting, contrast: str, method: str) -> dict[str, float]:
    found = _attribution(planting, contrast).select(method=method)
    return dict(zip(map(str, found.coordinates["part"]), found.values[:, 0].tolist(), strict=True))


@functools.lru_cache(maxsize=1)
def _attribution(planting: Planting, contrast: str) -> Result:
    """Both estimates, which one call of the analysis makes: the two methods are asked one after the other."""
    pairs = planting.contrast(contrast)
    parts = _defined(list(pairs.roles), planting, "resample")
    return attribution.run([planting.model], pairs.pairs, parts=parts, metric="loss", tokens="all", n_exact=1)


def _defined(parts: Sequence[str], planting: Planting, kind: str) -> list[str]:
    """The parts where an ablation means something."""
    return [part for part in parts if not undefined_reason(part, planting.cfg, kind)]
