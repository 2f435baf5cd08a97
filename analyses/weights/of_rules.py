"""What differs between the weights of rules beyond what differs between seeds: the shipped models, measured.

    python -m analyses.weights.of_rules --out results/analyses/weights/of_rules.json
    python -m analyses.weights.of_rules --donors --out results/analyses/weights/of_donors.json

Four rules with the same tokens and context, ten seeds each, which share their starts across rules. Every measure is
reported. With ``--donors``, the models that ship as donors for other tasks (``transferable/RULE``), whose alphabets and
trainings differ from rule to rule. The tables of ``docs/questions/weights-of-rules.md`` are made from what this writes
(``analyses.weights.page``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from analyses.interventions.items import own_items
from analyses.matrices import layer_parts
from analyses.shipped import asked
from analyses.weights.barrier import GROUPS, barriers
from analyses.weights.change import change
from analyses.weights.compare import between, compare
from analyses.weights.distances import UNITS
from analyses.weights.spectra import spectrum
from mechproc.files import write_json
from mechproc.model.config import ModelConfig
from mechproc.pretrained import TRANSFERABLE, card, load_pretrained
from mechproc.procedures import Procedure
from mechproc.procedures.base import Items
from mechproc.provenance import provenance
from mechproc.result import Result

RULES = ("identity", "reverse", "set", "sort")
OTHER = "k-dyck"
"""A rule with other tokens and a longer context."""
SEEDS = range(10)
DONORS = tuple(f"{TRANSFERABLE}{rule}" for rule in ("identity", "set", "stack", "k-dyck"))
"""Those with tied embeddings: the donors of ``eca`` have two matrices where these have one."""
SEEDS_OF_DONORS = range(10, 20)
EARLY = 1_000
"""Updates after which all rules are compared once more: then none has been trained longer than another."""
N_ITEMS = 64
"""Test items of each rule, for activations and barriers."""
BARRIER_PAIRS = 3
MAIN = "spectrum"


def measure() -> dict[str, Any]:
    """Everything that the page says."""
    models, starts, early = (_load(RULES, step) for step in (None, 0, EARLY))
    items = {rule: Procedure.from_dict(card(rule)["procedure"]).items(N_ITEMS) for rule in RULES}
    comparisons = {}
    for name in UNITS:
        read = _together(items) if name == "activations" else None
        comparisons[name] = _table(compare(models, name, starts=starts, items=read))  # type: ignore[arg-type]
    pairs = {}
    for i, one in enumerate(RULES):
        for other in RULES[i + 1 :]:
            both = {rule: models[rule] for rule in (one, other)}
            found = compare(both, MAIN, starts={rule: starts[rule] for rule in both})
            pairs[f"{one} | {other}"] = {p: row["own rule nearest"] for p, row in _table(found)["rows"].items()}
    with_other = {**models, **_load([OTHER], None)}
    other_starts = {**starts, **_load([OTHER], 0)}
    return {
        "rules": list(RULES),
        "seeds": list(SEEDS),
        "early": EARLY,
        "standing": {rule: _standing(rule) for rule in (*RULES, OTHER)},
        "comparisons": comparisons,
        "early comparison": _table(compare(early, MAIN, starts=starts)),
        "with another shape": _table(compare(with_other, MAIN, starts=other_starts)),
        "own rule nearest in pairs": pairs,
        "distances": _between(between(models, MAIN, starts=starts)),
        "spectra": {rule: _spectra(models[rule]) for rule in RULES},
        "change": {rule: _change(models[rule], starts[rule]) for rule in RULES},
        "barriers": _barriers(barriers(models, items, starts=starts, most_pairs=BARRIER_PAIRS)),
        "environment": {field: text for field, text in provenance("weights").items() if field != "commit"},
    }


def measure_donors() -> dict[str, Any]:
    """What the page says of donors: no distances of activations or barriers, since their tokens differ."""
    models, starts = (_load(DONORS, step, SEEDS_OF_DONORS) for step in (None, 0))
    return {
        "rules": list(DONORS),
        "seeds": list(SEEDS_OF_DONORS),
        "standing": {rule: _standing(rule) for rule in DONORS},
        "comparison": _table(compare(models, MAIN, starts=starts)),
        "spectra": {rule: _spectra(of_rule) for rule, of_rule in models.items()},
        "change": {rule: _change(of_rule, starts[rule]) for rule, of_rule in models.items()},
        "environment": {field: text for field, text in provenance("weights").items() if field != "commit"},
    }


def _load(rules: Any, step: int | None, seeds: Iterable[int] = SEEDS) -> dict[str, dict[int, Any]]:
    return {rule: {seed: load_pretrained(rule, seed, step) for seed in seeds} for rule in rules}


def _together(items: dict[str, Items]) -> Items:
    """The items of all rules as one set."""
    columns = [np.concatenate([getattr(i, f) for i in items.values()]) for f in ("tokens", "n_tokens", "scored")]
    return own_items(columns[0], columns[1], columns[2])


def _table(found: Result) -> dict[str, Any]:
    """Rows by part, with words."""
    quantities = list(found.coordinates["quantity"])
    rows = {
        str(part): {str(q): _rounded(v) for q, v in zip(quantities, row, strict=True)}
        for part, row in zip(found.coordinates["part"], found.values.tolist(), strict=True)
    }
    kept = ("words", "sentences", "permutations", "chance", "n_models")
    return {"unit": found.unit, "rows": rows, **{key: found.metadata[key] for key in kept}}


def _between(found: Result) -> dict[str, Any]:
    return {
        "labels": [str(label) for label in found.coordinates["first"]],
        "means": {
            str(part): [[_rounded(v) for v in row] for row in of_part]
            for part, of_part in zip(found.coordinates["part"], found.values.tolist(), strict=True)
        },
    }


def _spectra(models: dict[int, Any]) -> dict[str, dict[str, float | None]]:
    """Medians over heads of a layer and seeds: heads have no order, so that they are pooled."""
    found, rows = spectrum(models), {}
    for layer in range(next(iter(models.values())).cfg.n_layers):
        heads = [part for part in found.coordinates["part"] if str(part).startswith(f"L{layer}.H")]
        for matrix in ("QK", "OV"):
            for quantity in ("norm", "stable rank", "copying"):
                if (matrix, quantity) != ("QK", "copying"):
                    values = found.select(part=heads, matrix=matrix, quantity=quantity).values
                    rows.setdefault(f"L{layer} {matrix}", {})[quantity] = _rounded(float(np.nanmedian(values)))
        for matrix in ("W_in", "W_out"):
            for quantity in ("norm", "stable rank"):
                values = found.select(part=f"L{layer}.mlp", matrix=matrix, quantity=quantity).values
                rows.setdefault(f"L{layer} {matrix}", {})[quantity] = _rounded(float(np.median(values)))
    for part, matrix in (("embed", "W_E"), ("pos", "W_pos")):
        for quantity in ("norm", "stable rank"):
            values = found.select(part=part, matrix=matrix, quantity=quantity).values
            rows.setdefault(matrix, {})[quantity] = _rounded(float(np.median(values)))
    return rows


def _change(models: dict[int, Any], starts: dict[int, Any]) -> dict[str, dict[str, float | None]]:
    """Medians over seeds by layer-level part."""
    parts = layer_parts(ModelConfig.from_dict(next(iter(models.values())).cfg.to_dict()))
    found = change(models, starts, parts)
    wanted = ("relative change", "cosine", "effective rank of the change")
    return {
        part: {q: _rounded(float(np.median(found.select(part=part, quantity=q).values))) for q in wanted}
        for part in parts
    }


def _barriers(found: Result) -> dict[str, Any]:
    rows = {}
    for group in GROUPS:
        pairs = found.metadata["groups"][group]
        values = found.select(pair=pairs, quantity="barrier")
        rows[group] = {"n_pairs": len(pairs)} | {
            kind: [_rounded(float(f(values.select(matching=kind).values))) for f in (np.median, np.min, np.max)]
            for kind in found.coordinates["matching"]
        }
    return {"median, smallest, largest": rows, "points": found.metadata["points"], "n_items": N_ITEMS}


def _standing(rule: str) -> dict[str, Any]:
    """Accuracy of the models beside the ceiling and the best predictor that does not know the rule."""
    known = card(rule)
    scores = [donor["accuracy"] for donor in known["donors"]]
    name = max(known["baselines"], key=lambda each: known["baselines"][each])
    return {
        "lowest": _rounded(min(scores)),
        "median": _rounded(float(np.median(scores))),
        "baseline": _rounded(known["baselines"][name]),
        "baseline name": name,
        "mastered": len(known["mastered"]),
        "updates": [min(d["steps"] for d in known["donors"]), max(d["steps"] for d in known["donors"])],
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the file."""
    settings = asked("analyses.weights.of_rules", "weights of shipped models", arguments, out="JSON file to write")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(settings.out, measure_donors() if settings.donors else measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
