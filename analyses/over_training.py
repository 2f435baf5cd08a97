"""When does it appear? What a model can do, what its heads look at and what can be read in it, by training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from analyses import attention, probing, weights
from analyses.checkpoint_gains import gains
from analyses.interventions.metrics import METRICS, scored_tokens
from analyses.interventions.patch import run_with_activations
from analyses.interventions.standing import standing
from analyses.models import Models, batches, by_seed, sized_threads
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import UNDEFINED, Items, Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result, Where

Checkpoints = Mapping[int, Models]
"""Models by the number of updates after which they are, each by seed; one training for each seed."""
N_ITEMS = 256
MAX_VALUES = 6
"""Values of a latent up to which accuracy is given for each of them."""
SMALLEST = 0.1
"""The smallest difference between two levels that is a change."""
DOES_NOT_SHOW = (
    "that what appears together is one mechanism, or which of two causes the other; nor what happens between two "
    "checkpoints, and gradual change is given a step too"
)


@sized_threads
def run(
    checkpoints: Checkpoints,
    rule: Procedure,
    *,
    latents: list[str] | None = None,
    probe: bool = True,
    records: str = "results/records",
    seed: int = 0,
    n_items: int | None = None,
) -> Result:
    """Accuracy, attention, probes, ranks and transfer by training step: axes ``measure``, ``step`` and ``seed``.

    All measures are fractions, and higher is more:

    - ``accuracy``, and ``accuracy: depth = 3`` on the scored tokens at which a latent has this value;
    - ``head: target``: the attention on a target of the rule of the head that has most of it at the last step;
    - ``probe: latent``: selectivity of a linear probe of the last residual stream at scored tokens, its accuracy less
      that of a control;
    - ``rank: matrix``: effective rank as a share of the largest possible, mean over the parts that have the matrix;
    - ``gain: task, arm``: test accuracy of runs that began with parts of the checkpoint, less that of a random start,
      where ``records`` has such runs.

    - ``checkpoints``: models by step and seed, at least two steps of each seed; cells of other steps are missing;
    - ``rule``: the procedure, of which ``n_items`` (256 by default) test items are read;
    - ``latents``: some of the rule's; by default all with at most 6 values at scored tokens;
    - ``probe``: whether to fit probes, which takes most of the time;
    - ``records``: a folder of records, in which transfers from the checkpoints are looked up;
    - ``seed``: of the items;
    - ``n_items``: how many items, 256 by default.

    Errors: ``ConfigError`` for fewer than two steps of a seed, shapes that differ, or an unknown latent.
    """
    of_step = {int(step): by_seed(models) for step, models in sorted(checkpoints.items())}
    require(len(of_step) >= 2, "steps", list(of_step), "at least two checkpoints")
    seeds = list(dict.fromkeys(seed for models in of_step.values() for seed in models))
    for label in seeds:
        known = [step for step, models in of_step.items() if label in models]
        require(len(known) >= 2, f"steps of seed {label}", known, "at least two checkpoints")
    items = rule.items(N_ITEMS if n_items is None else n_items, seed=seed, split="test")
    chosen = latents if latents is not None else list(rule.latent_names)
    for name in chosen:
        require(name in rule.latent_names, "latents", name, f"some of {', '.join(rule.latent_names)}")
    found: dict[str, dict[int, np.ndarray]] = {}
    masks = rule.attention_targets(items)
    uniform: dict[str, float] = {}
    heads: dict[int, np.ndarray] = {}
    for step, models in progress(of_step.items(), "checkpoints"):
        rows = _accuracies(models, items, chosen)
        rows |= _ranks(models)
        if probe and chosen:
            rows |= _probes(models, rule, chosen, seed, len(items))
        here = [seeds.index(label) for label in models]
        if masks:
            scores = attention.scores(models, items, masks)
            uniform = scores.metadata["uniform"]
            heads[step] = _spread(scores.values, here, len(seeds))
        for name, values in rows.items():
            found.setdefault(name, {})[step] = _spread(values, here, len(seeds))
    if heads:
        _add_heads(found, heads, list(masks))
    cfg = next(iter(next(iter(of_step.values())).values())).cfg
    transferred, warnings = gains(records, rule, cfg, list(of_step), seeds)
    measures = found | transferred
    known = standing(rule, items, _at_the_end(found["accuracy"], seeds), "accuracy")
    nothing = np.full(len(seeds), np.nan)
    values = np.stack([np.stack([rows.get(step, nothing) for step in of_step]) for rows in measures.values()])
    return Result(
        name="over training",
        values=values,
        axes=("measure", "step", "seed"),
        coordinates={"measure": list(measures), "step": list(of_step), "seed": seeds},
        unit="fraction",
        direction="higher: more of it is there",
        what_it_does_not_show=f"{DOES_NOT_SHOW}.",
        undefined=_undefined(values, list(measures)),
        metadata={
            "procedure": rule.to_dict(), "seed": seed, "n_items": len(items),
            "baselines": _baselines(known, uniform, list(found)),
            "warnings": [*known["warnings"], *warnings],
        },
    )  # fmt: skip


def changes(found: Result, smallest: float = SMALLEST) -> Result:
    """The change point of each measure in each seed: axes ``measure`` and ``seed``, in steps.

    It is where two levels fit best by least squares, one change (Hinkley 1970): the first checkpoint of the second
    level, so that the change lies between it and the one before. Undefined where the levels differ by less than
    ``smallest``, and where fewer than three checkpoints are known. ``when`` has the interval over seeds.
    """
    steps = [int(step) for step in found.coordinates["step"]]
    order = [tuple(found.axes).index(axis) for axis in ("measure", "seed", "step")]
    curves = found.values.transpose(order)
    values = np.full(curves.shape[:2], np.nan)
    undefined: list[tuple[Where, str]] = []
    for row, column in np.ndindex(values.shape):
        known = np.flatnonzero(np.isfinite(curves[row, column]))
        place = {"measure": found.coordinates["measure"][row], "seed": found.coordinates["seed"][column]}
        if len(known) < 3:
            undefined.append((place, "fewer than three checkpoints are known"))
            continue
        at, before, after = change_point(curves[row, column][known])
        if abs(after - before) < smallest:
            undefined.append((place, f"no change of {smallest:g} or more"))
        else:
            values[row, column] = steps[known[at]]
    return Result(
        name="change point",
        values=values,
        axes=("measure", "seed"),
        coordinates={axis: found.coordinates[axis] for axis in ("measure", "seed")},
        unit="steps",
        direction="lower: it changed sooner",
        what_it_does_not_show=f"{DOES_NOT_SHOW}; a second change is not looked for.",
        undefined=undefined,
        metadata={"smallest": smallest, "steps": steps},
    )


def change_point(values: np.ndarray) -> tuple[int, float, float]:
    """The index at which the second of two levels begins, and both levels, by least squares; float64 [n], n >= 2."""
    costs = [float(np.var(values[:at]) * at + np.var(values[at:]) * (len(values) - at)) for at in range(1, len(values))]
    at = int(np.argmin(costs)) + 1
    return at, float(values[:at].mean()), float(values[at:].mean())


# ---- inside ----------------------------------------------------------------------------------------------------------


def _accuracies(models: Mapping[Label, HookedTransformer], items: Items, latents: list[str]) -> dict[str, np.ndarray]:
    """Accuracy on all scored tokens, and at each value of each latent, float64 [seed]."""
    right = np.stack([_right(model, items) for model in models.values()])
    scored = items.scored
    rows = {"accuracy": right[:, scored].mean(axis=1)}
    for name in latents:
        labels = items.latents[name]
        values = np.unique(labels[scored & (labels != UNDEFINED)])
        if len(values) > MAX_VALUES or len(values) < 2:
            continue
        for value in values.tolist():
            rows[f"accuracy: {name} = {value}"] = right[:, scored & (labels == value)].mean(axis=1)
    return rows


@torch.inference_mode()
def _right(model: HookedTransformer, items: Items) -> np.ndarray:
    """How right each scored token is, float64 [item, position]; 0 elsewhere."""
    right = np.zeros(items.scored.shape)
    for batch in batches(len(items)):
        part = items.take(batch)
        logits, _ = run_with_activations(model, part, [])
        tokens = scored_tokens(part, logits.device, cells=model.cfg.input == "vectors")
        scores = METRICS["accuracy"](logits[tokens.item, tokens.position], tokens)
        right[batch][tokens.item.cpu().numpy(), tokens.position.cpu().numpy()] = scores.cpu().numpy()
    return right


def _ranks(models: Mapping[Label, HookedTransformer]) -> dict[str, np.ndarray]:
    """Effective rank of each kind of matrix, as a share of the largest that its shape allows, float64 [seed]."""
    spectrum = weights.spectrum(models)
    most = next(iter(models.values())).cfg.d_head  # of both: they are products through the width of a head
    ranks = spectrum.select(quantity="effective rank")
    known = [matrix for matrix in ranks.coordinates["matrix"] if matrix in ("QK", "OV")]
    return {f"rank: {matrix}": np.nanmean(ranks.select(matrix=matrix).values, axis=0) / most for matrix in known}


def _probes(
    models: Mapping[Label, HookedTransformer], rule: Procedure, latents: list[str], seed: int, n_items: int
) -> dict[str, np.ndarray]:
    """Selectivity of a probe of the last residual stream at scored tokens, by latent, float64 [seed]."""
    cfg = next(iter(models.values())).cfg
    site = f"L{cfg.n_layers - 1}.resid_post"
    read = probing.run(models, rule, latents, [site], positions="scored", seed=seed, n_items=n_items)
    rows = {f"probe: {name}": read.select(quantity="selectivity", site=site, latent=name).values for name in latents}
    return {name: values for name, values in rows.items() if np.isfinite(values).any()}


def _at_the_end(accuracy: dict[int, np.ndarray], seeds: list[Label]) -> dict[str, float]:
    """The accuracy of each seed at its last step."""
    last = {seed: [float(of[n]) for of in accuracy.values() if np.isfinite(of[n])][-1] for n, seed in enumerate(seeds)}
    return {str(seed): score for seed, score in last.items()}


def _baselines(known: dict[str, Any], uniform: dict[str, float], measures: list[str]) -> dict[str, dict[str, float]]:
    """What measures are to be held against, by measure: predictors without the rule, and uniform attention."""
    best, levels = known.get("best_baseline"), {}
    if best:
        levels = {f"best baseline ({best['name']})": best["accuracy"]}
    if "ceiling" in known:
        levels["best attainable"] = known["ceiling"]
    found = {"accuracy": levels} if levels else {}
    of_heads = {f"head: {target}": {"uniform attention": share} for target, share in uniform.items()}
    return found | {name: of for name, of in of_heads.items() if name in measures}


def _add_heads(found: dict[str, dict[int, np.ndarray]], heads: dict[int, np.ndarray], masks: list[str]) -> None:
    """Follow, for each target and seed, the head that has most of the attention at the seed's last step."""
    flat = {step: scores.reshape(len(masks), -1, scores.shape[-1]) for step, scores in heads.items()}
    n_seeds = next(iter(flat.values())).shape[-1]
    last = [
        max(step for step, scores in flat.items() if np.isfinite(scores[..., seed]).any()) for seed in range(n_seeds)
    ]
    for row, mask in enumerate(masks):
        ends = np.stack([flat[step][row, :, seed] for seed, step in enumerate(last)])
        if not np.isfinite(ends).all():
            continue
        best = ends.argmax(axis=1)
        for step, scores in flat.items():
            found.setdefault(f"head: {mask}", {})[step] = scores[row, best, np.arange(n_seeds)]


def _spread(values: np.ndarray, here: list[int], n_seeds: int) -> np.ndarray:
    """Values of the seeds that are there among all seeds, the last axis; the others are missing."""
    whole = np.full((*values.shape[:-1], n_seeds), np.nan)
    whole[..., here] = values
    return whole


def _undefined(values: np.ndarray, measures: list[str]) -> list[tuple[Where, str]]:
    """Measures that have no value at any step."""
    return [({"measure": name}, "not measured at any checkpoint") for name, rows in zip(measures, values, strict=True)
            if np.isnan(rows).all()]  # fmt: skip
