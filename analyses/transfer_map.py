"""Which parts of a donor help a training: the runs of ``mechproc.studies.transfer_map`` in the rows of every other map.

Each row is a part expression, so that the map can be laid beside those of ablation, patching or probing. What is
measured is how much lower the area under the loss curve is than that of the random start of the same seed:

    alone            with this part alone from the donor
    removed          with everything from the donor, minus the same without this part
    shapley          the part's exact Shapley value over all 64 coalitions, within the seed
    alone, permuted  with this part alone, its numbers permuted
    alone, wrong     with this part alone, from a donor of a rule that does not help the task
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mechproc.errors import require
from mechproc.result import Result, Where
from mechproc.runs.store import Store
from mechproc.statistics.shapley import coalitions, shapley_values
from mechproc.studies.study import Study
from mechproc.studies.transfer_map import MEASURE, PLAYERS, TASK, WRONG_RULE, arm

MAPS = ("alone", "removed", "shapley", "alone, permuted", "alone, wrong")
EVERYTHING = frozenset(PLAYERS)


def run(study: Study, store: Store, rule: str = "set") -> Result:
    """How much each part of the donors of ``rule`` helps: axes ``map``, ``part`` and ``seed``.

    - ``study``: one that ``mechproc.studies.transfer_map.study`` made;
    - ``store``: where its runs, or their records, are;
    - ``rule``: the donors' rule.

    Where runs are not complete, cells are missing, and ``metadata["warnings"]`` says how many; a map whose arms the
    study does not have is undefined. ``metadata["complete"]`` has how many of its runs each seed has,
    ``metadata["gain"]`` the gain of the whole donor by seed, ``metadata["random"]`` the area of the random start, and
    ``metadata["describes"]`` says which model the map is of.

    Errors: ``ConfigError`` for a rule that the study has no donors of.
    """
    named = {name.removeprefix(f"{TASK}: ").split(",")[0] for name in study.arms}
    rules = sorted(each for each in named if arm(each, EVERYTHING) in study.by_arm)
    require(bool(rules), "study", study.name, "a transfer map, with arms of all parts of a rule")
    require(rule in rules, "rule", rule, f"one of which the study moves all parts: {', '.join(rules)}")
    areas = study.scores(store, MEASURE)
    by_arm = dict(zip(areas.coordinates["arm"], areas.values, strict=True))
    n_seeds = len(study.seeds)

    def gain(players: Iterable[str], of: str = rule, permuted: bool = False) -> np.ndarray:
        name = arm(of, players, permuted)
        return by_arm[arm("", ())] - by_arm[name] if name in by_arm else np.full(n_seeds, np.nan)

    shares = np.full((len(PLAYERS), n_seeds), np.nan)
    gains = np.stack([gain(players) for players in coalitions(PLAYERS)])
    whole = np.isfinite(gains).all(axis=0)
    if whole.any():
        shares[:, whole] = shapley_values(gains[:, whole], len(PLAYERS))
    values = np.stack(
        [
            np.stack([gain([part]) for part in PLAYERS]),
            np.stack([gain(EVERYTHING) - gain(EVERYTHING - {part}) for part in PLAYERS]),
            shares,
            np.stack([gain([part], permuted=True) for part in PLAYERS]),
            np.stack([gain([part], WRONG_RULE) for part in PLAYERS]),
        ]
    )
    seeds = [str(seed) for seed in study.seeds]
    needed = _needed(study, rule)
    counts = {seed: int(n) for seed, n in zip(seeds, np.isfinite([by_arm[name] for name in needed]).sum(axis=0),
                                              strict=True)}  # fmt: skip
    complete = {seed: float(x) for seed, x in zip(seeds, gain(EVERYTHING), strict=True) if np.isfinite(x)}
    random = {seed: float(x) for seed, x in zip(seeds, by_arm[arm("", ())], strict=True) if np.isfinite(x)}
    return Result(
        name=f"gain of parts of {rule}",
        values=values,
        axes=("map", "part", "seed"),
        coordinates={"map": MAPS, "part": PLAYERS, "seed": study.seeds},
        unit="nats",
        direction="positive: the part lowers the mean loss along the training",
        what_it_does_not_show="what the part computes, in the donor or after the training on the task; nor whether a "
        "part without gain has a use beside others: look at the coalitions themselves",
        undefined=_not_in_the_study(study, rule),
        metadata={
            "describes": f"models that start from parts of {rule}, along their training on the task",
            "measure": MEASURE,
            "n_runs": len(needed),
            "complete": counts,
            "gain": complete,
            "random": random,
            "warnings": [
                *_incomplete(counts, len(needed)),
                *study.notes(store, arm(rule, EVERYTHING)),
                *_warnings(complete, rule),
            ],
        },
    )


def _not_in_the_study(study: Study, rule: str) -> list[tuple[Where, str]]:
    """Cells whose arms the study does not have."""
    reason = "the study has no such runs"
    cells: list[tuple[Where, str]] = []
    if not all(arm(rule, players) in study.by_arm for players in coalitions(PLAYERS)):
        cells.append(({"map": "shapley"}, reason))
    for part in PLAYERS:
        if arm(rule, [part], True) not in study.by_arm:
            cells.append(({"map": "alone, permuted", "part": part}, reason))
        if arm(WRONG_RULE, [part]) not in study.by_arm:
            cells.append(({"map": "alone, wrong", "part": part}, reason))
    return cells


def _needed(study: Study, rule: str) -> list[str]:
    """The arms of the study that the map of a rule is read from; no players are the random start."""
    names = [arm(rule, players) for players in coalitions(PLAYERS)]
    names += [name for part in PLAYERS for name in (arm(rule, [part], True), arm(WRONG_RULE, [part]))]
    return [name for name in names if name in study.by_arm]


def _incomplete(counts: dict[str, int], n_runs: int) -> list[str]:
    """A sentence on the seeds whose runs are not all complete."""
    partly = [f"seed {seed} has {n} of {n_runs} runs" for seed, n in counts.items() if 0 < n < n_runs]
    without = [seed for seed, n in counts.items() if n == 0]
    said = [*partly, *([f"seeds {', '.join(without)} have none"] if without else [])]
    whole = sum(n == n_runs for n in counts.values())
    return [f"{whole} of {len(counts)} seeds are complete; {'; '.join(said)}: their cells are missing"] if said else []


def _warnings(gain: dict[str, float], rule: str) -> list[str]:
    worse = [seed for seed, value in gain.items() if value <= 0]
    if not worse:
        return []
    return [f"in {len(worse)} of {len(gain)} seeds all of {rule} together does not help: there is no gain to share out"]
