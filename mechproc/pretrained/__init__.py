"""Pretrained models that come with mechproc: ten seeds of each rule, with a card for each rule in ``data``.

``load_pretrained("set", seed=3)`` has learned its rule as well as training makes it; ``studies.masters`` says how.
``load_pretrained("transferable/set", seed=13)`` is a donor of the project's studies, which was pretrained to be moved:
``studies.pretraining`` says how. ``studies.packing`` trains and packs them again.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechproc.config import nearest
from mechproc.errors import ConfigError, require
from mechproc.files import read_json

if TYPE_CHECKING:
    from mechproc.model.config import ModelConfig
    from mechproc.model.hooked import HookedTransformer
    from mechproc.model.state import State

DATA = Path(__file__).parent / "data"
TRANSFERABLE = "transferable/"
"""What the names of models begin with that were pretrained to be moved."""


def shipped() -> list[str]:
    """What there are models of: rules by name, and with ``transferable/`` before it, rules of the studies' donors."""
    return sorted(path.parent.relative_to(DATA).as_posix() for path in DATA.rglob("card.json"))


def card(rule: str) -> dict[str, Any]:
    """What is known of the donors of a rule: how they were trained, and each one's scores, by seed."""
    if rule not in shipped():
        known = ", ".join(shipped())
        raise ConfigError(f"rule = {rule!r} has no donors: one of {known}{nearest(str(rule), shipped())}")
    return read_json(DATA / rule / "card.json")


def pretrained_weights(rule: str, seed: int = 0, step: int | None = None) -> tuple[ModelConfig, State]:
    """Config and weights of a pretrained model, as recipes and ``Store`` pass them on; see ``load_pretrained``.

    A ``UserWarning`` names a model that was trained on another major version of its rule than today's.
    """
    from mechproc.model.config import ModelConfig
    from mechproc.model.io import read_tensors
    from mechproc.model.state import check_state
    from mechproc.procedures import Procedure

    known = card(rule)
    _one_of("seed", seed, [entry["seed"] for entry in known["donors"]])
    version = Procedure.from_dict(known["procedure"]).version
    if known["version"].split(".")[0] != version.split(".")[0]:
        warnings.warn(
            f"{rule}, seed {seed} was trained on version {known['version']} of the rule, which is {version} now: it "
            "was taught other items",
            stacklevel=3,
        )
    path = DATA / rule / f"seed_{seed}.safetensors"
    tensors, header = read_tensors(path)
    step = header["steps"][-1] if step is None else step
    _one_of("step", step, header["steps"])
    cfg = ModelConfig.from_dict(header["config"])
    prefix = f"{step}/"
    state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    check_state(state, cfg, source=str(path))
    return cfg, state


def kept_steps(rule: str, seed: int = 0) -> list[int]:
    """The numbers of updates after which weights of a shipped model are kept, ascending. Errors: ``ConfigError``."""
    from mechproc.model.io import read_tensors

    _one_of("seed", seed, [entry["seed"] for entry in card(rule)["donors"]])
    return list(read_tensors(DATA / rule / f"seed_{seed}.safetensors")[1]["steps"])


def load_pretrained(rule: str, seed: int = 0, step: int | None = None) -> HookedTransformer:
    """A pretrained model of ``rule``, a name of ``shipped``; ``step`` is one of the few of which weights are kept, the
    last by default.

    The model shows its accuracy on test items beside the best attainable one and the best of a predictor that does
    not know the rule; earlier steps show the accuracy on validation items where it was measured. Raises
    ``ConfigError`` that names what there is for a rule, seed or step without weights.
    """
    from mechproc.model.hooked import HookedTransformer

    name = f"{rule}, seed {seed}" + ("" if step is None else f", step {step}")
    return HookedTransformer(*pretrained_weights(rule, seed, step), name=name, about=_standing(rule, seed, step))


def _standing(rule: str, seed: int, step: int | None) -> dict[str, str]:
    """What the model was trained on and how well it does, in words."""
    known = card(rule)
    donor = next(entry for entry in known["donors"] if entry["seed"] == seed)
    levels = f"best attainable {100 * known['ceiling']:.1f} %" if known["ceiling"] is not None else "ceiling unknown"
    name, best = max(known["baselines"].items(), key=lambda item: item[1])
    levels += f", without the rule {100 * best:.1f} % ({name})"
    about = {"trained on": f"{rule}, {donor['steps'] if step is None else step:,} updates"}
    if step is None:
        return about | {"test accuracy, as trained": f"{100 * donor['accuracy']:.1f} % ({levels})"}
    measured = donor["curve"].get(str(step))
    return about | (
        {} if measured is None else {"validation accuracy, as trained": f"{100 * measured:.1f} % ({levels})"}
    )


def _one_of(field: str, value: object, allowed: list[int]) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    require(is_whole and value in allowed, field, value, f"one of {', '.join(map(str, allowed))}")
