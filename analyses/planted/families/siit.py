"""Models with dense weights, trained by interchange: the circuit of ``haystack``, blurred and trained back.

Strict interchange intervention training (Gupta et al. 2024, *InterpBench*): the loss is that of the task, plus that of
the answer that the mechanism implies when a part of the circuit has another item's activation, plus that of the item's
own answer when parts outside the circuit have it. From scratch that often fails; from a blurred planting it does not.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from analyses.planted.design import Design
from analyses.planted.families.haystack import HaystackFamily
from analyses.planted.interchange import hooks_of
from analyses.planted.roles import Role
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Site, components, sites
from mechproc.model.state import State
from mechproc.procedures.base import Items
from mechproc.procedures.items import UNDEFINED

BATCH_ITEMS = 32
LEARNING_RATE = 2e-3
"""The highest, at the start; it falls to zero along a cosine."""


@dataclasses.dataclass(frozen=True)
class SiitFamily(HaystackFamily):
    """A planted ``haystack`` with ``noise`` on every weight, then trained for ``steps`` updates."""

    kind: ClassVar[str] = "siit"
    idle_role: ClassVar[Role | None] = Role.INERT_TRAINED

    noise: float = 0.15
    """Standard deviation of what is added to each weight, relative to the root mean square of its tensor."""
    steps: int = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size == "small", "size", self.size, "'small': training at the other one is not provided for")
        require(self.noise >= 0, "noise", self.noise, "0 or more")
        require(self.steps >= 1, "steps", self.steps, "at least 1")

    def finish(self, design: Design, cfg: ModelConfig, state: State, rng: np.random.Generator) -> State:
        model = HookedTransformer(cfg, _noisy(state, self.noise, rng))
        idle = [part for part in components(cfg) if part not in design.plans]
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        stream = design.procedure.items(self.steps * BATCH_ITEMS, seed=int(rng.integers(2**31)), split="train")
        for step in range(self.steps):
            base = stream.take(slice(step * BATCH_ITEMS, (step + 1) * BATCH_ITEMS))
            source = base.take(np.roll(np.arange(BATCH_ITEMS), 1))
            true = str(rng.choice(list(design.variables)))
            implied = self.interchanged(design.variables[true], design.procedure, base, source)
            some = [part for part in idle if rng.random() < 0.5] or idle
            loss = _loss(model, base, source, (([true], implied), (some, base.targets[base.scored])))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return model.state()


def _noisy(state: State, noise: float, rng: np.random.Generator) -> State:
    """Weights with noise on each, float32."""
    noisy = {}
    for name, tensor in state.items():
        size = noise * float(tensor.square().mean().sqrt())
        noisy[name] = (tensor + size * torch.from_numpy(rng.normal(size=tuple(tensor.shape)))).float()
    return noisy


def _loss(
    model: HookedTransformer, base: Items, source: Items, demands: tuple[tuple[list[str], np.ndarray], ...]
) -> Tensor:
    """The loss of the task and of the answers demanded when parts have the activations of ``source``, in nats.

    One forward pass: the items of ``base`` as they are, then once for each demand.
    """
    kept: dict[str, Tensor] = {}
    hooks: list[Any] = [
        (name, functools.partial(_keep, kept=kept)) for name in hooks_of(model, [p for ps, _ in demands for p in ps])
    ]
    model.run_with_hooks(source.tokens, fwd_hooks=hooks, return_type=None)
    n, patches, answers = len(base), [], [base.targets[base.scored]]
    for number, (parts, demanded) in enumerate(demands, 1):
        rows = slice(number * n, (number + 1) * n)
        for site in (site for part in parts for site in sites(part, model.cfg)):
            patches.append((site.hook, functools.partial(_patch_rows, rows=rows, site=site, value=kept[site.hook])))
        answers.append(demanded)
    logits = model.run_with_hooks(np.concatenate([base.tokens] * len(answers)), fwd_hooks=patches)
    scored = torch.from_numpy(np.concatenate([base.scored] * len(answers)))
    losses = [
        F.cross_entropy(rows, torch.from_numpy(of_rows), ignore_index=UNDEFINED)
        for rows, of_rows in zip(logits[scored].split(n), answers, strict=True)
    ]
    return torch.stack(losses).sum()


def _keep(activation: Tensor, hook: Any, kept: dict[str, Tensor]) -> None:
    kept[hook.name] = activation  # with its graph, which a cache would not have


def _patch_rows(activation: Tensor, hook: Any, rows: slice, site: Site, value: Tensor) -> Tensor:
    patched = activation.clone()
    site.view(patched[rows]).copy_(site.view(value))
    return patched
