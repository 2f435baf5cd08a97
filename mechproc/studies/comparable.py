"""Which arms of a study may be compared: those that differ in what they start from, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from mechproc.errors import ConfigError, require
from mechproc.runs.config import RunConfig

Setting = Literal["procedure", "model", "training", "start"]
SETTINGS: tuple[Setting, ...] = ("procedure", "model", "training", "start")
"""What the arms of a comparison share, beside the seed: the task and its protocol, the shape of the model, the
training, and the random numbers of the fresh weights. Recipe and donors are what an arm is."""

ByArm = Mapping[str, Mapping[int, RunConfig]]
"""The runs of a study: by arm, then by seed."""


def check_contrast(
    name: str, weights: Mapping[str, float], runs: ByArm, may_differ: Sequence[Setting], known: str
) -> None:
    """Raise a ``ConfigError`` unless the arms of a contrast can be compared within each seed.

    Within each group of arms that share all ``SETTINGS`` but those of ``may_differ``, the weights must add up to zero:
    a difference of two arms of one task is allowed, and so is a difference of such differences between two tasks; a
    difference of two arms of different tasks is not. ``known`` names the arms that exist, for the message.
    """
    for arm in weights:
        if arm not in runs:
            raise ConfigError(f"arm {arm!r} of {name} is not an arm of the study: {known}")
    first, seeds = next((arm, runs[arm].keys()) for arm in weights)
    for arm in weights:
        apart = sorted(runs[arm].keys() ^ seeds)
        require(not apart, f"seeds of arms {first!r} and {arm!r} of {name}", apart, "the same in both")
    for seed in seeds:
        groups: dict[str, list[str]] = {}
        for arm in weights:
            groups.setdefault(_shared(runs[arm][seed], may_differ), []).append(arm)
        unbalanced = [group for group in groups.values() if abs(sum(weights[arm] for arm in group)) > 1e-9]
        if len(unbalanced) > 1:
            one, other = unbalanced[0][0], unbalanced[1][0]
            setting, difference = _first_difference(runs[one][seed], runs[other][seed], may_differ)
            raise ConfigError(
                f"{name} compares arms {one!r} and {other!r}, which differ in {difference}: not a comparison of what "
                f"they start from; where it is meant, name it in the study, may_differ=({setting!r},)"
            )
        require(not unbalanced, f"weights of {name}", dict(weights), "numbers that add up to 0")


def check_donors(runs: ByArm, shared_donors: bool) -> None:
    """Raise a ``ConfigError`` when one donor feeds several seeds of an arm, unless ``shared_donors``."""
    for arm, by_seed in runs.items():
        used: dict[tuple[str, str], int] = {}
        for seed, run in by_seed.items():
            for name, donor in run.donors.items():
                other = used.setdefault((name, donor.identity), seed)
                if other != seed and not shared_donors:
                    raise ConfigError(
                        f"donor {name!r} of arm {arm!r} is {donor.label} for seed {other} and for seed {seed}: the "
                        "seeds would measure one donor several times; give each seed a donor of its own, or, where a "
                        "verdict on this one donor is meant, shared_donors=True"
                    )


def share_a_donor(runs: Iterable[RunConfig]) -> list[str]:
    """The names of the donors that are the same model in several of ``runs``."""
    used: dict[str, list[str]] = {}
    for run in runs:
        for name, donor in run.donors.items():
            used.setdefault(name, []).append(donor.identity)
    return [name for name, identities in used.items() if len(set(identities)) < len(identities)]


def _value(run: RunConfig, setting: Setting) -> Any:
    value = getattr(run, setting)
    return value if isinstance(value, str) else value.to_dict()


def _shared(run: RunConfig, may_differ: Sequence[Setting]) -> str:
    return repr([_value(run, setting) for setting in SETTINGS if setting not in may_differ])


def _first_difference(one: RunConfig, other: RunConfig, may_differ: Sequence[Setting]) -> tuple[Setting, str]:
    """The first setting that differs, and a text with field and both values."""
    for setting in SETTINGS:
        first, second = _value(one, setting), _value(other, setting)
        if setting in may_differ or first == second:
            continue
        if not isinstance(first, dict) or first.get("kind") != second.get("kind"):
            return setting, f"{setting} ({_kind(first)} and {_kind(second)})"
        field = next(field for field in first if first[field] != second.get(field))
        return setting, f"{setting}.{field} ({first[field]!r} and {second.get(field)!r})"
    raise AssertionError("runs of two groups differ somewhere")


def _kind(value: Any) -> str:
    return repr(value["kind"] if isinstance(value, dict) else value)
