"""Train the donors and pack them: one file for each seed, one card for each rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechproc.files import atomic_write, write_json
from mechproc.model.io import write_tensors
from mechproc.model.state import n_parameters
from mechproc.pretrained import TRANSFERABLE
from mechproc.runs.config import RunConfig
from mechproc.runs.executors import Report, run_all
from mechproc.runs.store import Store
from mechproc.studies import masters, scales
from mechproc.studies.pretraining import pretraining

MASTERED = 0.01
"""A donor has mastered its rule when its test accuracy is at most this far below the ceiling."""
CURVE = (0, 200, 400, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 20_000, 36_000, 60_000)
"""Steps whose validation accuracy the card shows."""
MIDDLE = 0.6
"""Share of a training after which an accuracy that stays is called a plateau; its step is one of ``CURVE``."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """What models of one name ship for."""

    training: Callable[[str, int], RunConfig]
    """The training of a rule and a seed."""
    seeds: Sequence[int]
    kept: Sequence[int]
    """Steps of which weights are shipped beside the last."""
    to_master: bool
    """Whether they were trained to master their rule."""


MASTERS = Kind(masters.recipe, masters.SEEDS, masters.KEPT, to_master=True)
MOVED = Kind(pretraining, scales.SEEDS, kept=(0, 1_000), to_master=False)
"""Their seeds are those of verdicts, whose transfers the records tell of."""


def kind_of(name: str) -> Kind:
    """What the models of a name of ``mechproc.pretrained.shipped`` ship for."""
    return MOVED if name.startswith(TRANSFERABLE) else MASTERS


def recipe(name: str, seed: int) -> RunConfig:
    """The training of one shipped model, by the name of ``mechproc.pretrained.shipped``. Errors: ``ConfigError``."""
    return kind_of(name).training(name.removeprefix(TRANSFERABLE), seed)


def build(
    rules: Sequence[str],
    store: Store,
    out: Path,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    report: Report | None = None,
) -> list[Path]:
    """Complete the donors' runs in ``store``, then write ``out/RULE``; returns the folders.

    Each file is a pure function of the run that it holds: the same provenance gives the same bytes.
    """
    runs = {rule: [recipe(rule, seed) for seed in (kind_of(rule).seeds if seeds is None else seeds)] for rule in rules}
    run_all([run for of_rule in runs.values() for run in of_rule], store, workers, report, weights=True)
    return [pack(rule, of_rule, store, out / rule) for rule, of_rule in runs.items()]


def pack(rule: str, runs: list[RunConfig], store: Store, folder: Path) -> Path:
    """Write the weights and the card of one rule's complete runs."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = kind_of(rule).kept
    for run in runs:
        last = store.test(run)["steps"]
        states = {step: store.checkpoint(run, step)[1] for step in kept if step < last}
        states[last] = store.model(run)[1]
        tensors = {f"{step}/{name}": t for step, state in states.items() for name, t in state.items()}
        header = {"config": run.model.to_dict(), "steps": list(states), "run": run.identity}
        write_tensors(folder / f"seed_{run.seed}.safetensors", tensors, header)
    card = _card(rule, runs, store)
    write_json(folder / "card.json", card)
    atomic_write(folder / "card.md", page(card).encode())
    return folder


def _card(rule: str, runs: list[RunConfig], store: Store) -> dict[str, Any]:
    first = runs[0]
    test = store.test(first)
    donors = []
    for run in runs:
        score, rows = store.test(run), store.metrics(run).set_index("step")
        curve = dict(zip(rows.index.tolist(), rows["token_accuracy"].tolist(), strict=True))
        donors.append(
            {
                "seed": run.seed,
                "run": run.identity,
                "accuracy": score["accuracy"],
                "item_accuracy": score["item_accuracy"],
                "steps": score["steps"],
                "curve": {str(step): curve[step] for step in CURVE if step in curve},
            }
        )
    return {
        "rule": rule,
        "version": first.procedure.version,
        "about": " ".join((type(first.procedure).__doc__ or "").split("\n\n")[0].split()),
        "procedure": first.procedure.to_dict(),
        "length_unit": first.procedure.length_unit,
        "model": first.model.to_dict(),
        "n_parameters": n_parameters(first.model),
        "training": first.training.to_dict(),
        "n_test": test["n_items"],
        "ceiling": test["ceiling"],
        "baselines": test["baselines"],
        "mastered": [d["seed"] for d in donors if d["accuracy"] >= test["ceiling"] - MASTERED],
        "donors": donors,
        "provenance": store.provenance(first),
    }


def page(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    best, baseline = max(card["baselines"].items(), key=lambda item: item[1])
    lines = [
        f"# Donors of {card['rule']} {card['version']}",
        "",
        card["about"],
        "",
        f"- Settings: {_listed(card['procedure'], ('kind', 'lengths'))}",
        f"- Lengths: {_listed(card['procedure']['lengths'])}; a length counts {card['length_unit']}",
        f"- Model: {_listed(card['model'])}; {card['n_parameters']:,} parameters",
        f"- Training: {_listed(card['training'])}",
        f"- Ceiling {card['ceiling']:.4f}, what the best guesser expects on the {card['n_test']:,} test items; "
        f"best predictor without the rule ({baseline:.4f}): {best}",
        f"- Train and pack again: `mechproc pretrained build {card['rule']}`; load: "
        f'`mechproc.load_pretrained("{card["rule"]}", seed={card["donors"][0]["seed"]})`',
        f"- Trained on: {_listed(card['provenance'])}",
        "",
        f"Mastered (within {MASTERED:.0%} of the ceiling): {len(card['mastered'])} of {len(card['donors'])}.",
        "",
    ]
    to_master = kind_of(card["rule"]).to_master
    if not to_master:
        lines += ["They were pretrained to be moved to a task; to master the rule was not the aim.", ""]
    missed = [d for d in card["donors"] if to_master and d["seed"] not in card["mastered"]]
    lines += [*(f"- Seed {d['seed']}: {_short_of(d, card, baseline)}" for d in missed), *([""] if missed else [])]
    steps = [str(step) for step in CURVE if any(str(step) in donor["curve"] for donor in card["donors"])]
    lines += ["Test accuracy (tokens, whole items), updates made, validation accuracy after so many updates:", ""]
    lines += ["| seed | tokens | items | updates | " + " | ".join(steps) + " |", "|" + " --- |" * (4 + len(steps))]
    for d in card["donors"]:
        curve = " | ".join(f"{d['curve'][step]:.3f}" if step in d["curve"] else "" for step in steps)
        lines += [f"| {d['seed']} | {d['accuracy']:.4f} | {d['item_accuracy']:.4f} | {d['steps']} | {curve} |"]
    return "\n".join(lines) + "\n"


def _short_of(donor: dict[str, Any], card: dict[str, Any], baseline: float) -> str:
    """By how much a donor misses its ceiling, and what its curve says about why."""
    step = round(MIDDLE * card["training"]["steps"])
    middle, last = donor["curve"][str(step)], list(donor["curve"].values())[-1]
    missing = f"{100 * (card['ceiling'] - donor['accuracy']):.1f} points below the ceiling"
    versus = "above" if donor["accuracy"] > baseline else "not above"
    if last - middle > MASTERED:
        why = f"validation still rose by {100 * (last - middle):.1f} points after step {step}: more steps may help"
    else:
        why = f"validation did not rise after step {step} ({middle:.3f}, then {last:.3f}): a plateau"
    return f"{missing}, {versus} the best predictor without the rule; {why}."


def _listed(settings: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if name not in without and value != "")
