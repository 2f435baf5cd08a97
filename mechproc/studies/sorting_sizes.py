"""Which sizes of ``sorting`` a random start of the paper's model half learns: how its defaults were chosen.

The paper (arXiv 2505.22308) reports 82.7 % for a random start on a sorting task that it does not describe. A task that
is to show what a transfer adds has to leave room above a random start and must not be out of reach: each candidate is
trained once, and those that end nearest to that number on more seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mechproc.files import read_json, write_json
from mechproc.model.config import ModelConfig
from mechproc.model.state import init_state
from mechproc.procedures.lengths import Uniform
from mechproc.procedures.sorting import Sorting
from mechproc.threads import one_thread
from mechproc.training.config import TASK, TrainingConfig
from mechproc.training.engines import choose
from mechproc.training.loop import train

REPORTED = 0.827
"""Token accuracy of a random start on the paper's sorting task."""
CANDIDATES = {
    "two digits, 2 to 10 numbers": Sorting(Uniform(2, 10), n_digits=2),
    "three digits, 2 to 8 numbers": Sorting(Uniform(2, 8), n_digits=3),
    "two digits, 2 to 9 numbers": Sorting(Uniform(2, 9), n_digits=2),
    "two digits, 2 to 8 numbers": Sorting(Uniform(2, 8), n_digits=2),
}
SEEDS = (100, 101, 102)
"""Seeds that the sizes were chosen on; they share no fresh weights and no data with seeds from 0."""


def measure(task: Sorting, seed: int, training: TrainingConfig = TASK) -> float:
    """Test token accuracy (0 to 1) of a random start of the paper's size after ``training``."""
    cfg = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    result = train(task, cfg, init_state(cfg, seed), training, seed, engine=choose("auto", cfg).make)
    return result.test.token_accuracy


def add_row(out: Path, candidate: str, seed: int, training: TrainingConfig = TASK) -> None:
    """Train one candidate from one seed and write its accuracy into the table, unless it stands there already."""
    task = CANDIDATES[candidate]
    table: dict[str, Any] = read_json(out) if out.exists() else {"reported": REPORTED, "rows": []}
    if any(row["candidate"] == candidate and row["seed"] == seed for row in table["rows"]):
        return
    with one_thread():
        accuracy = measure(task, seed, training)
    items = task.items(training.n_test)
    row = {"candidate": candidate, "task": task.to_dict(), "version": task.version, "seed": seed}
    row |= {"steps": training.steps, "accuracy": round(accuracy, 4)}
    row["best_baseline"] = round(max(task.baselines(items).values()), 4)
    table = read_json(out) if out.exists() else table  # another process may have written meanwhile
    write_json(out, {**table, "rows": [*table["rows"], row]})


def main(arguments: list[str] | None = None) -> int:
    """Train the candidates asked for from the seeds asked for, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m mechproc.studies.sorting_sizes", description="accuracy of random starts on candidate sizes"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file, to which rows are added")
    parser.add_argument("--candidates", nargs="+", choices=list(CANDIDATES), default=list(CANDIDATES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    settings = parser.parse_args(arguments)
    for seed in settings.seeds:
        for candidate in settings.candidates:
            print(f"{candidate}, seed {seed}", flush=True)
            add_row(settings.out, candidate, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
