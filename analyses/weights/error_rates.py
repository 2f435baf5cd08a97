"""How often the comparison of weights says a wrong word, finds a difference, and what norms say of planted parts.

    python -m analyses.weights.error_rates --out results/analyses/weights/error_rates.json

- *Same rule*: two groups of eight models of one rule, trained from different starts, or from the same starts with other
  data: any word "different" is wrong.
- *One part changed*: of the second group, the first MLP reads two directions less: a word there is a hit, any other is
  wrong.
- *Within a model*: whether a weight statistic is the largest (or the smallest) of all eight heads at one that was
  planted (``analyses.planted``). Chance is one in eight for each head that carries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from analyses.matrices import Matrices, singular_values
from analyses.planted.family import families
from analyses.planted.planting import plant
from analyses.weights.compare import DIFFERENT, compare
from analyses.weights.spectra import ranks
from mechproc.files import atomic_write
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import heads
from mechproc.model.state import State, init_state
from mechproc.procedures import get
from mechproc.progress import progress
from mechproc.threads import one_thread
from mechproc.training.config import TrainingConfig
from mechproc.training.engines.choice import choose
from mechproc.training.loop import train

MEASURES = ("spectrum", "norm", "composition")
RULE = {"kind": "identity", "n_symbols": 6, "lengths": {"kind": "uniform", "low": 2, "high": 5}}
TRAINING = TrainingConfig(steps=60, batch_size=32, learning_rate=1e-2, warmup_steps=20, weight_decay=0.01,
                          evaluate_every=60, n_validation=8, n_test=64)  # fmt: skip
GROUP = 8
CHANGED, FEWER = "L0.mlp", 2
"""The part that is changed, and how many directions fewer it reads."""
PLANTED = {"offset": 1, "haystack": 2, "decoy": 1}
"""Families, and how many heads each has that carry."""


def simulate(n_trials: int, n_shared: int, n_plantings: int) -> list[dict[str, Any]]:
    """The measured rates, one row for each question: ``rate``, its 95 % Wilson interval, ``n``."""
    outcomes: dict[tuple[str, str, str], list[bool]] = {}
    with one_thread():
        for starts, n in (("different", n_trials), ("shared", n_shared)):
            for trial in progress(range(n), f"{starts} starts", unit="trial"):
                a, b = _trained(trial, shared=starts == "shared")
                for measure in MEASURES:
                    words = _words(a, b, measure, starts)
                    key = ("same rule", f"{starts} starts", measure)
                    outcomes.setdefault((*key[:2], f"{measure}: any wrong word"), []).append(bool(words))
                if starts == "different":
                    words = _words(a, {seed: _changed(model) for seed, model in b.items()}, "spectrum", starts)
                    hit, wrong = CHANGED in words, bool(words - {CHANGED})
                    name = ("one part changed", f"{CHANGED} reads {FEWER} directions less")
                    outcomes.setdefault((*name, "spectrum: found there"), []).append(hit)
                    outcomes.setdefault((*name, "spectrum: any word elsewhere"), []).append(wrong)
        for kind in PLANTED:
            for seed in progress(range(n_plantings), kind, unit="planting"):
                for name, found in _extreme(kind, seed):
                    outcomes.setdefault(("within a model", kind, name), []).append(found)
    return [_row(*key, happened) for key, happened in outcomes.items()]


def _trained(trial: int, shared: bool) -> tuple[dict[int, HookedTransformer], dict[int, HookedTransformer]]:
    """Two groups of models of one rule."""
    rule = get("identity").from_dict(RULE)
    cfg = ModelConfig(2, 2, 8, rule.n_ctx, rule.d_vocab, tied_embeddings=True)
    engine, groups = choose("auto", cfg).make, []
    for second in range(2):
        group = {}
        for number in range(GROUP):
            data = (2 * trial + second) * GROUP + number
            start = trial * GROUP + number if shared else data
            state = init_state(cfg, start, "error rates" + " shared" * shared)
            result = train(rule, cfg, state, TRAINING, 10_000 + data, engine=engine)
            group[number] = HookedTransformer(cfg, result.state)
        groups.append(group)
    return groups[0], groups[1]


def _words(a: dict, b: dict, measure: Any, starts: Any) -> set[str]:
    words = compare({"a": a, "b": b}, measure, starts=starts).metadata["words"]
    return {part for part, word in words.items() if word == DIFFERENT}


def _changed(model: HookedTransformer) -> HookedTransformer:
    """The model, its first MLP blind to the directions of its smallest singular values."""
    state: State = model.state()
    u, s, vt = torch.linalg.svd(state["blocks.0.mlp.W_in"], full_matrices=False)
    s[-FEWER:] = 0.0
    state["blocks.0.mlp.W_in"] = u @ torch.diag(s) @ vt
    return HookedTransformer(ModelConfig.from_dict(model.cfg.to_dict()), state)


def _extreme(kind: str, seed: int) -> Iterator[tuple[str, bool]]:
    """For each statistic, whether its largest value of all heads is at one that carries."""
    planting = plant(families()[kind](), seed)
    matrices = Matrices.of(planting.model)
    found: dict[str, dict[str, float]] = {}
    for head in heads(planting.cfg):
        for circuit, factors in matrices.of_part(head).items():
            s = singular_values(factors)
            found.setdefault(f"largest norm of {circuit}", {})[head] = float(np.linalg.norm(s))
            stable = ranks(s)[0]
            found.setdefault(f"smallest stable rank of {circuit}", {})[head] = -np.inf if np.isnan(stable) else -stable
    for name, by_head in found.items():
        yield name, max(by_head, key=lambda head: by_head[head]) in planting.variables


def _row(question: str, setting: str, quantity: str, happened: list[bool]) -> dict[str, Any]:
    interval = binomtest(sum(happened), len(happened)).proportion_ci(0.95, method="wilson")
    return {
        "question": question,
        "setting": setting,
        "quantity": quantity,
        "rate": round(float(np.mean(happened)), 4),
        "low": round(float(interval.low), 4),
        "high": round(float(interval.high), 4),
        "n": len(happened),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the table of measured rates as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m analyses.weights.error_rates", description="measure the error rates"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--trials", type=int, default=100, help="comparisons of models of different starts")
    parser.add_argument("--shared", type=int, default=50, help="comparisons of models that share their starts")
    parser.add_argument("--plantings", type=int, default=50, help="planted models of each family")
    settings = parser.parse_args(arguments)
    rows = simulate(settings.trials, settings.shared, settings.plantings)
    table = {
        "alpha": 0.05,
        "models": f"2 groups of {GROUP} models of width 8",
        "rule": RULE,
        "training": TRAINING.to_dict(),
        "heads that carry": PLANTED,
        "rates": rows,
    }
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(settings.out, (json.dumps(table, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
