"""Weights that ship beside the records: runs of the paper's size before and after their training on the haystack.

One file for each arm, float32, with both ends of every seed's training:

    results/weights/haystack-set-attention.safetensors      10/before/blocks.0.attn.W_Q, 10/after/..., 11/before/...

``mechproc study pack`` writes them from a folder of runs that are complete, and ``load_trained`` reads one model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from mechproc.config import nearest
from mechproc.errors import ConfigError, StoreError, require
from mechproc.model.config import ModelConfig
from mechproc.model.hooked import HookedTransformer
from mechproc.model.io import read_tensors, write_tensors
from mechproc.model.state import State, check_state, n_parameters
from mechproc.runs.config import RunConfig
from mechproc.runs.store import Store
from mechproc.studies.registry import load
from mechproc.transfer.recipe import assemble

WEIGHTS = Path("results/weights")
MOST_BYTES = 10_000_000
"""Of all files together."""
ARMS = {
    "haystack: random": "rules-by-task",
    "haystack: set, full": "rules-by-task",
    "haystack: set, attention": "rules-by-task",
    "haystack: set attention + eca MLPs": "composition",
}
"""Arm -> the study that has it, at the paper's scale; of the composition the first seed alone is packed."""


def runs_to_pack() -> dict[str, list[RunConfig]]:
    """The runs of each arm that ships."""
    studies = {name: load(name, "paper") for name in dict.fromkeys(ARMS.values())}
    chosen = {arm: [*studies[name].by_arm[arm].values()] for arm, name in ARMS.items()}
    return {arm: runs[:1] if ARMS[arm] == "composition" else runs for arm, runs in chosen.items()}


def pack(store: Store, out: Path = WEIGHTS, runs: Mapping[str, Sequence[RunConfig]] | None = None) -> list[Path]:
    """Write the files of all arms into ``out``; returns their paths. The same weights give the same bytes.

    Errors: ``StoreError`` before anything is written, where weights of runs or of their donors are not in ``store``;
    ``ConfigError`` where the files would take more than ``MOST_BYTES``.
    """
    runs = runs_to_pack() if runs is None else runs
    needed = {r.identity: r for of_arm in runs.values() for run in of_arm for r in run.with_donors()}
    missing = [run for run in needed.values() if not store.has_weights(run)]
    if missing:
        raise StoreError(
            f"{store.root} has no weights of {len(missing)} of {len(needed)} runs that are to be packed, such as "
            f"{missing[0].name} ({missing[0].label}); train them there: records alone do not have weights"
        )
    size = sum(2 * 4 * n_parameters(run.model) for of_arm in runs.values() for run in of_arm)
    require(size <= MOST_BYTES, "bytes of weights", f"{size:,}", f"at most {MOST_BYTES:,}; fewer arms or seeds")
    paths = []
    for arm, of_arm in runs.items():
        tensors: State = {}
        for run in of_arm:
            donors = {name: donor.weights(store) for name, donor in run.donors.items()}
            before = assemble(run.recipe, run.model, run.seed, donors, run.start)
            for when, state in (("before", before), ("after", store.model(run)[1])):
                tensors |= {f"{run.seed}/{when}/{name}": tensor.float() for name, tensor in state.items()}
        header = {
            "arm": arm,
            "config": of_arm[0].model.to_dict(),
            "runs": {str(run.seed): run.identity for run in of_arm},
        }
        paths.append(_path(arm, out))
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_tensors(paths[-1], tensors, header)
    return paths


def trained_weights(
    arm: str, seed: int, when: Literal["before", "after"] = "after", folder: Path = WEIGHTS
) -> tuple[ModelConfig, State]:
    """Config and weights of a packed run, before or after its training on the task.

    Errors: ``ConfigError`` for an arm or seed that is not packed, ``StoreError`` for a file that is not there.
    """
    if arm not in ARMS:
        raise ConfigError(f"arm = {arm!r} is not packed: one of {'; '.join(ARMS)}{nearest(arm, ARMS)}")
    require(when in ("before", "after"), "when", when, "'before' or 'after'")
    path = _path(arm, folder)
    if not path.exists():
        raise StoreError(f"{path} does not exist: `mechproc study pack` writes it where the runs are complete")
    tensors, header = read_tensors(path)
    require(str(seed) in header["runs"], "seed", seed, f"one of {', '.join(header['runs'])}")
    cfg, prefix = ModelConfig.from_dict(header["config"]), f"{seed}/{when}/"
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    check_state(state, cfg, source=str(path))
    return cfg, state


def load_trained(
    arm: str, seed: int, when: Literal["before", "after"] = "after", folder: Path = WEIGHTS
) -> HookedTransformer:
    """The model of ``trained_weights``."""
    return HookedTransformer(*trained_weights(arm, seed, when, folder), name=f"{arm}, seed {seed}, {when}")


def _path(arm: str, folder: Path) -> Path:
    return folder / f"{re.sub('[^a-z0-9]+', '-', arm.lower()).strip('-')}.safetensors"
