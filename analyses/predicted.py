"""Does a map of the pretrained model tell what transfers? The maps of a transfer map's donors beside it.

The target is what transfers: one of the maps of ``analyses.transfer_map``, for each rule that the study moves. Held
against it are the other maps of the same runs, which describe the same models, and those of ``analyses.donor_maps``,
which describe the donors before anything was moved. ``analyses.agreement`` has the statistics.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from analyses import agreement, donor_maps, transfer_map
from analyses.agreement import Map
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.progress import progress
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.studies.study import Study
from mechproc.studies.transfer_map import RULES, TASK, arm
from mechproc.transfer.recipe import assemble

Target = Literal["shapley", "alone", "removed"]
N_ITEMS = 256
"""Items and pairs of a rule that its donors are run on."""
OF_RUNS: tuple[Target, ...] = get_args(Target)
"""The maps of the study's own runs."""
OF_DONORS = ("ablation", "resampling", "patching", "probing", "weight change", "rank of change")
"""The maps of the donors."""


def run(study: Study, store: Store, target: Target = "shapley", *, seed: int = 0, n_items: int = N_ITEMS) -> Result:
    """Whether other maps rank parts as what transfers does: axes ``map`` and ``case``.

    - ``study``: one that ``mechproc.studies.transfer_map.study`` made;
    - ``store``: where its runs, or their records, are, and the weights of its donors;
    - ``target``: the map that is predicted;
    - ``seed``: of the items, and of the arrangements of the null;
    - ``n_items``: items and pairs that the donors are run on.

    A case is a rule and the task. Values, ``metadata["mean"]`` and ``metadata["p"]`` are those of
    ``analyses.agreement.run``: rank correlations within a rule, task and seed, averaged; the null permutes the part
    labels, the same way for all seeds of a case. A seed counts for the maps of donors where the weights of its donor
    are here; ``metadata["warnings"]`` says what is not. Errors: ``ConfigError`` for a study that is no transfer map, or
    without a seed whose target map is complete.
    """
    require(target in OF_RUNS, "target", target, f"one of {', '.join(OF_RUNS)}")
    rules = [rule for rule in _known_rules() if arm(rule, transfer_map.EVERYTHING) in study.by_arm]
    require(bool(rules), "study", study.name, "a transfer map, with arms of all parts of a rule")
    found = {rule: transfer_map.run(study, store, rule) for rule in rules}
    cases = {rule: f"{rule}, {TASK}" for rule in rules}
    measured = {cases[rule]: each.select(map=target) for rule, each in found.items()}
    whole = {case: each for case, each in measured.items() if not (each.is_missing | each.is_undefined).all()}
    counts = {rule: each.metadata["complete"] for rule, each in found.items()}
    needs = f"runs of which a seed is complete for the map {target!r}; complete runs by rule and seed: {counts}"
    require(bool(whole), "study", study.name, needs)
    of_runs = found[rules[0]].metadata["describes"].replace(rules[0], "the rule")
    others = {
        name: Map({cases[rule]: each.select(map=name) for rule, each in found.items()}, of_runs)
        for name in OF_RUNS if name != target
    }  # fmt: skip
    donors = {rule: _donors(study, store, rule) for rule in rules}
    maps = {
        rule: donor_maps.maps(*_models(of_rule, store), next(iter(of_rule.values())).procedure, seed, n_items)
        for rule, of_rule in progress(donors.items(), "maps of donors", unit="rule")
        if of_rule
    }
    for name in OF_DONORS:
        others[name] = Map({cases[rule]: of_rule[name] for rule, of_rule in maps.items()}, donor_maps.DESCRIBES)
    result = agreement.run(Map(measured, of_runs), others, seed)
    warnings = [f"{rule}: {sentence}" for rule, each in found.items() for sentence in each.warnings]
    warnings += [sentence for rule in rules if (sentence := _without(study, rule, donors[rule]))]
    metadata = {
        **result.metadata, "target": target, "seed": seed, "n_items": n_items, "warnings": warnings,
        "sentences": [_means(result)],
    }  # fmt: skip
    return dataclasses.replace(result, name=f"agreement with the map {target!r}", metadata=metadata)


def _means(found: Result) -> str:
    """The mean of each map over cases, with its p."""
    mean, p = found.metadata["mean"], found.metadata["p"]
    each = ", ".join(f"{name} {mean[name]:.2f} (p = {p[name]:.2g})" for name in mean)
    return f"Means over cases: {each}; p: the share of arrangements of the part labels with a mean as high."


def _known_rules() -> list[str]:
    return list(dict.fromkeys(rule for rules in RULES.values() for rule in rules))


def _donors(study: Study, store: Store, rule: str) -> dict[int, RunConfig]:
    """The donor of each seed whose weights are in the store."""
    runs = study.by_arm[arm(rule, transfer_map.EVERYTHING)]
    donors = {seed: run.donors[rule] for seed, run in runs.items()}
    return {s: each for s, each in donors.items() if isinstance(each, RunConfig) and store.has_weights(each)}


def _models(donors: dict[int, RunConfig], store: Store) -> tuple[dict, dict]:
    """The donors, and what each was before its first update, by seed."""
    models = {seed: HookedTransformer(*store.model(donor)) for seed, donor in donors.items()}
    starts = {
        seed: HookedTransformer(donor.model, assemble(donor.recipe, donor.model, donor.seed, {}, donor.start))
        for seed, donor in donors.items()
    }
    return models, starts


def _without(study: Study, rule: str, donors: dict[int, RunConfig]) -> str:
    """What is said where donors have no weights here; empty where all have."""
    n = len(study.by_arm[arm(rule, transfer_map.EVERYTHING)])
    if len(donors) == n:
        return ""
    which = f"those of seeds {', '.join(map(str, donors))} count" if donors else "no map of donors counts"
    return f"{rule}: the weights of {n - len(donors)} of {n} donors are not here, so that {which}"
