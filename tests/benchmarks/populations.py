"""How many trainings of the paper's model an hour: populations of 1, 2, 4, ... beside one GPT-2 at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import peers
import torch
from measure import medians
from sections import GPT2, TASKS, paper_model, threads

from mechproc.model.state import init_state
from mechproc.procedures import Procedure
from mechproc.training.config import TASK
from mechproc.training.data import TrainStream
from mechproc.training.engines.population import Population

GAIN = 1.1
"""A population fills the device when those twice and four times as large get less than this many times as many runs
done."""
MOST = 4096


def populations(quick: bool) -> dict[str, Any]:
    """Runs of 10,000 updates an hour on the first CUDA device, or on one core of the CPU where there is none.

    Validations and tests are left out on both sides. Of populations with their items ready, as GPT-2's are, and with
    their items made by the loop.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if device == "cuda" else "one core of the CPU"}
    with threads(1):
        for task, procedure in TASKS.items():
            for n_items in (4,) if quick else (64, 1_000):
                found[f"{task}, {n_items} items"] = filled(procedure, n_items, device, 2 if quick else MOST)
    return found


def filled(procedure: Procedure, n_items: int, device: str, most: int) -> dict[str, Any]:
    """Runs an hour of GPT-2 and by size of the population, up to the size that fills the device, and that size.

    The size is ``None`` when the memory or ``most`` ended the search before.
    """
    cfg = paper_model(procedure)
    peer = peers.gpt2(cfg, init_state(cfg, 0), procedure, TASK)
    peer.model.to(device)
    items = tuple(tensor.to(device) for tensor in peer.batch(n_items))
    found: dict[str, Any] = {GPT2: an_hour(1, medians({GPT2: lambda: peer.step(items)}, 5)[GPT2])}
    ready: dict[str, float] = {}
    found |= {"ready": ready, "with data": {}, "fills": None}
    size, best = 1, 1
    while size <= most and found["fills"] is None:
        with contextlib.ExitStack() as streams:
            try:
                seconds = medians(rounds(procedure, n_items, size, device, streams), 5)
            except torch.OutOfMemoryError:
                break
        for name, each in seconds.items():
            found[name][str(size)] = an_hour(size, each)
        if ready[str(size)] >= GAIN * ready[str(best)]:
            best = size
        elif size >= 4 * best:
            found["fills"] = best
        size *= 2
    return found


def rounds(
    procedure: Procedure, n_items: int, size: int, device: str, opened: contextlib.ExitStack
) -> dict[str, Callable[[], object]]:
    """One update of every member, on ready items and with the making of new ones."""
    cfg = paper_model(procedure)
    training = TASK.replace(batch_size=n_items)
    population = Population(cfg, training, device)
    members = [population.member(cfg, init_state(cfg, seed), training, seed) for seed in range(size)]
    streams = [opened.enter_context(TrainStream(procedure, seed, n_items)) for seed in range(size)]
    batches = [stream.batch(0, None) for stream in streams]
    made = 0

    def with_data() -> object:
        nonlocal made
        made += 1
        return population.step(members, [stream.batch(made, None) for stream in streams], [0] * size)

    return {"ready": lambda: population.step(members, batches, [0] * size), "with data": with_data}


def an_hour(n_runs: int, seconds: float) -> float:
    """Runs of ``TASK`` an hour, when ``seconds`` is what an update of ``n_runs`` of them takes."""
    return 3600 * n_runs / (seconds * TASK.steps)
