"""The models of a comparison, their starts, and untrained models of the same shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch

from analyses.models import Models, by_seed
from mechproc.errors import ConfigError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.state import init_state
from mechproc.result import Label

Starts = Mapping[str, Models] | Literal["shared", "different"]
"""The models at step 0, by rule; or what is known of them: ``"shared"``, models of one seed share a start."""
WIDTHS = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "normalization_type", "tied_embeddings")
"""What the models of all rules must share; tokens and context may differ."""
UNTRAINED = "untrained"


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One model."""

    rule: str
    seed: Label
    model: HookedTransformer
    start: str
    """The same text for models that share a start."""

    @property
    def name(self) -> str:
        """Seed and rule, for messages: ``"3 of sort"``."""
        return f"{self.seed} of {self.rule}"


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """Trained models of several rules, and untrained ones beside them."""

    trained: list[Member]
    untrained: list[Member]
    """As many of each rule's shape; the models at step 0 where they are known, else fresh ones."""
    known_starts: bool

    @property
    def rules(self) -> list[str]:
        """The rules, in the order given."""
        return list(dict.fromkeys(member.rule for member in self.trained))

    @property
    def fewest(self) -> int:
        """The number of models of the rule that has fewest."""
        return min(sum(m.rule == rule for m in self.trained) for rule in self.rules)


def population(models: Mapping[str, Models], starts: Starts = "shared", seed: int = 0) -> Population:
    """The models of ``compare``, checked.

    Models whose weights at step 0 have a tensor in common share a start, where ``starts`` has these weights; two models
    of one rule must not. Errors: ``ConfigError`` for fewer than two rules or two models of a rule, for a rule that is
    called "untrained", and for models that differ in more than tokens and context.
    """
    require(isinstance(models, Mapping), "models", type(models).__name__, "models by rule: {'set': [...], ...}")
    require(len(models) >= 2, "models", list(models), "at least two rules")
    require(
        UNTRAINED not in models, "models", UNTRAINED, "the names of rules; untrained models are added by themselves"
    )
    of_rule = {str(rule): by_seed(group) for rule, group in models.items()}
    for rule, group in of_rule.items():
        require(len(group) >= 2, f"models of {rule}", list(group), "at least two seeds")
    first = next(iter(next(iter(of_rule.values())).values()))
    for rule, group in of_rule.items():
        for field in WIDTHS:
            ours, theirs = getattr(first.cfg, field), getattr(next(iter(group.values())).cfg, field)
            require(theirs == ours, f"{field} of {rule}", theirs, f"{ours!r}, as of the first rule")
    if isinstance(starts, str):
        require(starts in ("shared", "different"), "starts", starts, "'shared', 'different', or the models at step 0")
        shared = starts == "shared"
        names = {(r, s): f"seed {s}" if shared else f"{r} {s}" for r, group in of_rule.items() for s in group}
        before = {r: _fresh(group, seed) for r, group in of_rule.items()}
    else:
        before = _given(of_rule, starts)
        names = _by_weights(before)
    trained = [Member(r, s, model, names[r, s]) for r, group in of_rule.items() for s, model in group.items()]
    untrained = [Member(r, s, model, names[r, s]) for r, group in before.items() for s, model in group.items()]
    return Population(trained, untrained, not isinstance(starts, str))


def _given(of_rule: dict[str, dict], starts: Mapping[str, Models]) -> dict[str, dict]:
    require(set(starts) == set(of_rule), "starts", sorted(starts), f"models at step 0 of {sorted(of_rule)}")
    before = {rule: by_seed(starts[rule]) for rule in of_rule}
    for rule, group in of_rule.items():
        require(list(before[rule]) == list(group), f"seeds of starts of {rule}", list(before[rule]), f"{list(group)}")
        ours, theirs = (next(iter(each.values())).cfg.to_dict() for each in (group, before[rule]))
        require(ours == theirs, f"shape of starts of {rule}", theirs, f"that of the trained models, {ours}")
    return before


def _fresh(group: dict[Label, HookedTransformer], seed: int) -> dict[Label, HookedTransformer]:
    """Freshly initialised models of the shape of a group, one for each of its seeds."""
    cfg = ModelConfig.from_dict(next(iter(group.values())).cfg.to_dict())
    return {
        label: HookedTransformer(cfg, init_state(cfg, seed + number, "untrained")) for number, label in enumerate(group)
    }


def _by_weights(before: dict[str, dict[Label, HookedTransformer]]) -> dict[tuple[str, Label], str]:
    """A name for each start: models share one as soon as a weight matrix is the same in both."""
    names: dict[tuple[str, Label], str] = {}
    seen: dict[tuple[str, bytes], str] = {}
    for rule, group in before.items():
        for label, model in group.items():
            keys = _fingerprints(model)
            known = [seen[key] for key in keys if key in seen]
            name = known[0] if known else f"{rule} {label}"
            if any(names.get((rule, other)) == name for other in group):
                raise ConfigError(f"models of {rule} = {list(group)!r} are not allowed: two of them share a start")
            names[rule, label] = name
            seen |= dict.fromkeys(keys, name)
    return names


def _fingerprints(model: HookedTransformer) -> list[tuple[str, bytes]]:
    return [
        (name, tensor.detach().cpu().to(torch.float64).numpy().tobytes())
        for name, tensor in model.state().items()
        if name.rpartition(".")[2].startswith("W_")
    ]
