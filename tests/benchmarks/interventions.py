"""Interventions beside their peers: ``python tests/benchmarks/interventions.py [--peer FOLDER] [--quick]``.

- ``patching``: every head at every position of the paper's haystack model (2 layers, 4 heads, width 16), 64 pairs of
  63 positions, logit difference; peer: ``transformer_lens.patching`` on the same model and pairs.
- ``ablation``: 3 kinds x (8 heads, 2 MLPs, 128 neurons) x 10 seeds x 512 haystack items, loss; peer:
  ``analyses.ablation`` of an earlier commit, checked out in FOLDER, in a process of its own.

Prints one JSON object: median seconds on one thread (of the survey CPU seconds), and ratios. Nothing is asserted: a
benchmark is not a test.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformer_lens import patching

from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import components
from mechproc.procedures import Fixed, Haystack

N_LAYERS, N_HEADS, N_NEURONS = 2, 4, 64


def model_of(task: Haystack, seed: int) -> HookedTransformer:
    """A fresh model of the paper's shape whose weights are large enough that parts have effects."""
    return HookedTransformer(
        ModelConfig(
            n_layers=N_LAYERS, n_heads=N_HEADS, d_model=16, n_ctx=task.n_ctx, d_vocab=task.d_vocab, init_std=0.2
        ),
        seed=seed,
    )


def seconds_of(work: Any, rounds: int) -> float:
    """Median seconds after one round that warms up."""
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[(rounds - 1) // 2]


def patching_sweep(rounds: int) -> dict[str, float]:
    """Head x position activation patching of both, and how far their numbers are apart."""
    from analyses import patching as our_patching
    from analyses.interventions.items import minimal_pairs
    from analyses.interventions.metrics import METRICS, scored_tokens

    task = Haystack(lengths=Fixed(30))
    pairs, model = minimal_pairs(task, "answer", 64), model_of(task, 0)
    tokens = scored_tokens(pairs.clean, foils=pairs.corrupt)
    parts = [f"L{layer}.H{head}" for layer in range(N_LAYERS) for head in range(N_HEADS)]

    def ours() -> torch.Tensor:
        found = our_patching.run([model], pairs, parts=parts, positions="each")
        effects = torch.from_numpy(our_patching.effect(found).values[..., 0].copy())
        return effects.view(N_LAYERS, N_HEADS, -1) + found.metadata["corrupt"]["0"]

    clean_tokens, corrupt_tokens = torch.from_numpy(pairs.clean.tokens), torch.from_numpy(pairs.corrupt.tokens)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return METRICS["logit_diff"](logits[tokens.item, tokens.position].double(), tokens).mean()

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        cache = model.run_with_cache(clean_tokens)[1]
        with open(os.devnull, "w") as nothing:  # noqa: PTH123  its progress bar
            stderr, sys.stderr = sys.stderr, nothing
            try:
                found = patching.get_act_patch_attn_head_out_by_pos(model, corrupt_tokens, cache, metric)
            finally:
                sys.stderr = stderr
        return found.transpose(1, 2)

    mine, other = ours(), theirs()
    apart = float((mine - other[..., : mine.shape[-1]]).abs().max())  # the last position is that of the answer
    fast, slow = seconds_of(ours, rounds), seconds_of(theirs, 1)
    return {"ours": fast, "transformer_lens.patching": slow, "ratio": slow / fast, "largest difference": apart}


def ablation_survey(n_seeds: int, n_items: int) -> list[Any]:
    """The survey by whichever ``analyses.ablation`` is imported: seconds, and the values."""
    from analyses import ablation
    from mechproc.model.parts import Ablation

    task = Haystack()
    models = {seed: model_of(task, seed) for seed in range(n_seeds)}
    neurons = [f"L{layer}.mlp.N{n}" for layer in range(N_LAYERS) for n in range(N_NEURONS)]
    parts = [*components(models[0].cfg), *neurons]
    ask = getattr(ablation, "compare", None) or ablation.survey  # pyright: ignore[reportAttributeAccessIssue]
    started = time.process_time()  # other processes of the machine do not count
    result = ask(models, task, parts, tuple(Ablation), "loss", n_items=n_items)
    return [time.process_time() - started, result.values.tolist()]


def in_process(folder: Path, n_seeds: int, n_items: int) -> list[Any]:
    """``ablation_survey`` with the packages of ``folder``."""
    program = [sys.executable, __file__, "--survey", str(n_seeds), str(n_items)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run both and print the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="folder of an earlier commit, for the ablation survey")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of the survey")
    parser.add_argument("--quick", action="store_true", help="one seed and 128 items in the survey")
    parser.add_argument("--survey", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.survey:
        print(json.dumps(ablation_survey(*args.survey)))
        return
    record: dict[str, Any] = {"patching": patching_sweep(1 if args.quick else 5)}
    sizes = (1, 128) if args.quick else (args.seeds, 512)
    ask = functools.partial(in_process, n_seeds=sizes[0], n_items=sizes[1])
    seconds, _ = ask(Path(__file__).parents[2])
    record["ablation"] = {"seeds": sizes[0], "items": sizes[1], "ours": seconds}
    if args.peer:
        slow, _ = ask(args.peer)
        record["ablation"] |= {"peer": slow, "ratio": slow / seconds}
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
