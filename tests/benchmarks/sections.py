"""What is timed. Each section returns plain values for the record."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import peers
import torch
from measure import medians

from mechproc.model.config import ModelConfig
from mechproc.model.state import init_state
from mechproc.procedures import Fixed, Haystack, Procedure, ReversedAddition
from mechproc.threads import usable_cores
from mechproc.training.config import TASK, TrainingConfig
from mechproc.training.data import Batch, TrainStream
from mechproc.training.engines import choose
from mechproc.training.loop import train

TASKS: dict[str, Procedure] = {
    "haystack": Haystack(),
    "reversed addition": ReversedAddition(lengths=Fixed(10), protocol="paper"),
}
ENGINES = ("cpu", "torch", "reference")
GPT2, NATIVE = "transformers GPT-2, sdpa", "TransformerLens 4.3 native"


def steps(quick: bool) -> dict[str, Any]:
    """One update of the paper's model on 1,000 ready items, one thread: seconds."""
    found = {}
    for task, procedure in TASKS.items():
        cfg, batch = paper_model(procedure), first_batch(procedure, 50 if quick else 1_000)
        with threads(1):
            others = {GPT2: peers.gpt2(cfg, init_state(cfg, 0), procedure, TASK)}
            others[NATIVE] = peers.native(cfg, procedure, TASK)
            work: dict[str, Callable[[], object]] = {e: update(e, cfg, batch) for e in ENGINES}
            for name, peer in others.items():
                items = peer.batch(len(batch))
                work[name] = lambda peer=peer, items=items: peer.step(items)
            found[task] = medians(work, 1 if quick else 7)
    return found


def trainings(quick: bool) -> dict[str, Any]:
    """A hundredth of the paper's protocol, on all cores: seconds.

    Data, 100 steps with 500 items validated, and a test. Drawing the items to validate and to test, which is done once,
    weighs a hundred times more than in the whole.
    """
    n_steps, scale = (2, 100) if quick else (100, 1)
    short = TASK.replace(
        steps=n_steps,
        warmup_steps=0,
        batch_size=1_000 // scale,
        evaluate_every=n_steps,
        n_validation=250 // scale,  # twice: at the first and at the last step
        n_test=20,
        checkpoints_per_decade=None,
    )
    found = {}
    for task, procedure in TASKS.items():
        cfg = paper_model(procedure)
        state = init_state(cfg, 0)
        with threads(usable_cores()):
            gpt2 = peers.gpt2(cfg, state, procedure, short)  # TransformerLens, another 70 s a round: see ``steps``
            engine = choose("cpu", cfg, threads=usable_cores()).make
            slower = choose("torch", cfg).make
            work = {
                "cpu": lambda p=procedure, c=cfg, s=state, e=engine: train(p, c, s, short, 0, engine=e),
                "torch": lambda p=procedure, c=cfg, s=state, e=slower: train(p, c, s, short, 0, engine=e),
                GPT2: gpt2.train,
            }
            found[task] = medians(work, 1 if quick else 2)
    return found


def data(quick: bool) -> dict[str, Any]:
    """Updates with their data made by the thread beside them, and the same updates on ready items: seconds each."""
    n, found = (4 if quick else 40), {}
    with threads(1):
        for task, procedure in TASKS.items():
            cfg = paper_model(procedure)
            engine = choose("cpu", cfg).make(cfg, init_state(cfg, 0), TASK, 0)
            with TrainStream(procedure, 0, 1_000) as stream:
                ready = [stream.batch(step, None) for step in range(n)]

            def alone(engine=engine, ready=ready) -> None:
                for step, batch in enumerate(ready):
                    engine.step(batch, step)

            def beside(engine=engine, procedure=procedure) -> None:
                with TrainStream(procedure, 0, 1_000) as stream:
                    for step in range(n):
                        engine.step(stream.batch(step, None), step)

            def made(procedure=procedure) -> None:
                with TrainStream(procedure, 0, 1_000) as stream:
                    for step in range(n):
                        stream.batch(step, None)

            work = {"steps alone": alone, "steps with their data": beside, "data alone": made}
            found[task] = {name: value / n for name, value in medians(work, 1 if quick else 5).items()}
    return found


def growth(quick: bool) -> dict[str, Any]:
    """An update on haystack, batch 250, as one size grows; kernel beside the torch path: seconds."""
    sizes: dict[str, list[int]] = {
        "pairs": [4, 8, 16, 30],
        "width": [16, 32, 64, 128],
        "layers": [1, 2, 4, 8],
        "batch": [64, 250, 1_000, 4_000],
        "threads": list(range(1, usable_cores() + 1)),
    }
    found: dict[str, Any] = {}
    for what, values in sizes.items():
        for value in values[:2] if quick else values:
            procedure = Haystack(lengths=Fixed(value)) if what == "pairs" else Haystack()
            width = value if what == "width" else 16
            cfg = paper_model(procedure).replace(d_model=width, n_layers=value if what == "layers" else 2)
            n_items = {"batch": value, "threads": 1_000}.get(what, 250)
            batch = first_batch(procedure, 16 if quick else n_items)
            n_threads = value if what == "threads" else 1
            with threads(n_threads):
                work = {engine: update(engine, cfg, batch, n_threads) for engine in ("cpu", "torch")}
                found.setdefault(what, {})[str(value)] = medians(work, 1 if quick else 5)
    return found


def memory(quick: bool) -> dict[str, Any]:
    """Most memory that a process held, in MB: with everything imported, and after a haystack training's first steps.

    From /proc, so on Linux only: what getrusage says includes the parent's.
    """
    code = (
        "import re, sys; sys.path.insert(0, {here!r}); import sections; sections.{call}; "
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"
    )
    calls = {
        "imports alone": "TASKS",
        "cpu": "few_steps('cpu')",
        "torch": "few_steps('torch')",
        GPT2: "few_steps('gpt2')",
    }
    here, found = __file__.rsplit("/", 1)[0], {}
    for name, call in calls.items():
        run = subprocess.run(
            [sys.executable, "-c", code.format(here=here, call=call)], capture_output=True, text=True, check=True
        )
        found[name] = round(float(run.stdout.split()[-1]))
    return found


def interventions(quick: bool) -> dict[str, Any]:
    """Activation patching of every head at every position beside ``transformer_lens.patching``, one thread: seconds."""
    from interventions import patching_sweep

    with threads(1):
        return {"every head x position, 64 pairs of 63 tokens": patching_sweep(1 if quick else 5)}


def populations(quick: bool) -> dict[str, Any]:
    """Runs an hour of populations on the first CUDA device, or the CPU, beside one GPT-2 of ``transformers`` there."""
    from populations import populations

    return populations(quick)


def gpu(quick: bool) -> dict[str, Any]:
    """The torch path on the first CUDA device beside GPT-2 of ``transformers`` there and the CPU kernel: seconds."""
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device: nothing was timed")
    found: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    for task, procedure in TASKS.items():
        for n_items in (64, 1_000):
            cfg, batch = paper_model(procedure), first_batch(procedure, n_items)
            peer = peers.gpt2(cfg, init_state(cfg, 0), procedure, TASK)
            peer.model.cuda()
            items = tuple(t.cuda() for t in peer.batch(n_items))
            work = {
                "torch": update("torch", cfg, batch, device="cuda"),
                GPT2: lambda peer=peer, items=items: peer.step(items),
                "cpu": update("cpu", cfg, batch),
            }
            found[f"{task}, {n_items} items"] = medians(work, 2 if quick else 20)  # each ends with loss.item(): in step
    return found


def paper_model(procedure: Procedure) -> ModelConfig:
    """2 layers, 4 heads, width 16; 256 logits, as in the paper's haystack task."""
    return ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=procedure.n_ctx + 1, d_vocab=256)


def first_batch(procedure: Procedure, n_items: int) -> Batch:
    """The first batch of seed 0."""
    with TrainStream(procedure, 0, n_items) as stream:
        return stream.batch(0, None)


def update(
    name: str, cfg: ModelConfig, batch: Batch, n_threads: int = 1, device: str = "cpu"
) -> Callable[[], tuple[float, float]]:
    """One update of an engine, to be called again and again."""
    engine = choose(name, cfg, n_threads, device).make(cfg, init_state(cfg, 0), TrainingConfig(), 0)
    return lambda: engine.step(batch, 0)


def few_steps(name: str) -> None:
    """Three updates on 1,000 haystack items each, for the memory they take."""
    procedure = TASKS["haystack"]
    cfg = paper_model(procedure)
    state, short = init_state(cfg, 0), TASK.replace(steps=3, warmup_steps=0, evaluate_every=3)
    if name == "gpt2":
        peers.gpt2(cfg, state, procedure, short).train()
    else:
        train(procedure, cfg, state, short, 0, engine=choose(name, cfg).make)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """torch on ``n`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
