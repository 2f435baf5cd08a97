"""Models by name: shipped ones, model files, runs, and the arms of a study, each group with the rule it was trained on.

set            all shipped seeds of a rule; set:3, set:0..9, set:0,2,5: some of them; set:0..9@100: after 100 updates
gpt2.safetensors, DIR   a model file, or a folder with ``model.safetensors``
runs/set-3fa4c1d2e5b6   a run's folder; the name alone is looked up in the store; @100: after 100 updates
set-to-haystack, FILE.py, set-to-haystack:attention   the complete runs of a study, an arm a group; @0: as they began
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mechproc.config import digest, nearest
from mechproc.errors import ConfigError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.model.io import MODEL_FILE, load_model
from mechproc.pretrained import card, kept_steps, load_pretrained, shipped
from mechproc.procedures import Procedure
from mechproc.result import Label
from mechproc.runs.config import RunConfig
from mechproc.runs.folder import RunFolder
from mechproc.runs.store import Store
from mechproc.studies import STUDIES
from mechproc.studies.registry import load, numbered
from mechproc.studies.study import Study

SHIPPED = re.compile(r"(?P<rule>[\w/-]+?)(:(?P<seeds>\d+(\.\.\d+)?(,\d+(\.\.\d+)?)*))?(@(?P<step>\d+))?")
FILES = "files"
"""The name of a group of models of which nothing but their weights is known."""


Kept = Mapping[int, Callable[[], HookedTransformer]]


@dataclasses.dataclass(frozen=True)
class Group:
    """Models that an analysis treats alike, one for each seed."""

    name: str
    """The rule, the arm of the study, or how the runs began."""
    models: dict[Label, HookedTransformer]
    procedure: Procedure | None
    """What the models were trained on, where that is known."""
    spelled: tuple[str, ...]
    """The names that stand for it."""
    missing: tuple[Label, ...] = ()
    """Seeds of a study that are not trained yet."""
    absent: tuple[str, ...] = ()
    """Other arms of the study, of which no run is trained yet."""
    kept: Mapping[Label, Kept] = dataclasses.field(default_factory=dict)
    """The models at the steps of which weights are kept, by seed and step; each is read when it is called for."""
    step: int | None = None
    """After how many updates the models are, where they stand for one checkpoint of a training."""

    def digests(self) -> dict[str, str]:
        """What identifies each model, by seed: its config and its weights."""
        return {str(seed): model_digest(model) for seed, model in self.models.items()}


def groups(
    names: Sequence[str],
    store: Store | None = None,
    procedure: Procedure | None = None,
    *,
    scale: str | None = None,
    n_seeds: int | None = None,
) -> list[Group]:
    """The models that the names stand for; those of one rule, one arm or one kind of run are one group.

    ``store``: where runs are looked up, ``runs`` by default; ``procedure``: what the models are run on, in place of the
    rule they were trained on; ``scale``, ``n_seeds``: of studies. Errors: ``ConfigError`` for a name that stands for
    nothing, a seed that stands twice in a group, and a study without a complete run; ``StoreError`` for damaged files.
    """
    require(len(names) > 0, "models", list(names), "at least one")
    store = store or Store("runs")
    found: dict[tuple[str, str], Group] = {}
    for name in names:
        for group in _named(name, store, scale, n_seeds):
            used = procedure or group.procedure
            config = next(iter(group.models.values())).cfg.to_dict()
            rule = digest([used.to_dict() if used else None, config])
            key = (group.name, rule)
            known = found[key].models if key in found else {}
            twice = [label for label in group.models if label in known]
            require(not twice, f"models of {group.name}", twice, "each seed once")
            spelled = (*found[key].spelled, name) if key in found else group.spelled
            kept = {**found[key].kept, **group.kept} if key in found else group.kept
            found[key] = Group(group.name, {**known, **group.models}, used, spelled, group.missing, group.absent, kept)
    return list(found.values())


def checkpoints(
    names: Sequence[str],
    store: Store | None = None,
    procedure: Procedure | None = None,
    *,
    scale: str | None = None,
    n_seeds: int | None = None,
) -> list[list[Group]]:
    """The trainings of the models that the names stand for: of each group, the models at every step that a seed kept.

    Arguments and errors are those of ``groups``, and ``ConfigError`` for a seed of which no two steps are kept.
    """
    trainings = []
    for group in groups(names, store, procedure, scale=scale, n_seeds=n_seeds):
        for seed in group.models:
            steps = sorted(group.kept.get(seed, ()))
            require(len(steps) >= 2, f"checkpoints of {group.name}, seed {seed}", steps, "two steps at least")
        by_step = {step: [seed for seed in group.models if step in group.kept[seed]]
                   for step in sorted({step for steps in group.kept.values() for step in steps})}  # fmt: skip
        trainings.append(
            [dataclasses.replace(group, models={seed: group.kept[seed][step]() for seed in seeds}, step=step)
             for step, seeds in by_step.items()]
        )  # fmt: skip
    return trainings


def model_digest(model: HookedTransformer) -> str:
    """SHA-256 of a model's config and weights, in hexadecimal; equal for equal models however they were loaded."""
    import hashlib

    bits = hashlib.sha256(digest(model.cfg.to_dict()).encode())
    for name, tensor in sorted(model.state_dict().items()):
        bits.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        bits.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return bits.hexdigest()


def scores_digests(study: Study, store: Store) -> dict[str, str]:
    """What identifies the runs of a study that are complete: by seed, the digest of which they are, what they scored,
    and the weights of those donors that are here. Seeds without a complete run are left out."""
    known: dict[str, list] = {}
    for _, run in study.runs:
        if store.has_scores(run):
            rows = known.setdefault(str(run.seed), [])
            rows.append([run.identity, store.test(run), store.provenance(run)])
            rows.extend(donor.identity for donor in run.donors.values() if all(map(store.has_weights, donor.needs)))
    return {seed: digest(rows) for seed, rows in known.items()}


# ---- inside ----------------------------------------------------------------------------------------------------------


def _named(name: str, store: Store, scale: str | None, n_seeds: int | None) -> list[Group]:
    path = Path(name)
    in_store = store.root / name
    if path.suffix != ".py" and (path.exists() or in_store.is_dir()):
        return [_of_file(path if path.exists() else in_store)]
    match = SHIPPED.fullmatch(name)
    if match and match["rule"] in shipped():
        return [_shipped(match)]
    study, step = re.fullmatch(r"(.*?)(?:@(\d+))?", name).groups()  # type: ignore[union-attr]
    for folder in (Path(study), store.root / study):
        if step is not None and RunFolder(folder).config.exists():
            return [_of_run_at(RunFolder(folder), int(step), name)]
    study, _, arm = study.partition(":")
    if study in STUDIES or study.endswith(".py"):
        return _of_study(study, arm or "*", None if step is None else int(step), store, scale, n_seeds)
    known = [*shipped(), *STUDIES]
    raise ConfigError(
        f"models = {name!r} is not allowed: a rule with shipped models ({', '.join(shipped())}), such as set or "
        f"set:0..9, a model file, a run, or a study ({', '.join(STUDIES)}){nearest(re.split('[:@]', name)[0], known)}"
    )


def _shipped(match: re.Match[str]) -> Group:
    rule, step = match["rule"], match["step"]
    known = card(rule)
    every = [donor["seed"] for donor in known["donors"]]
    seeds = every if match["seeds"] is None else numbered(match["seeds"], "seeds")
    models: dict[Label, HookedTransformer] = {}
    for seed in seeds:
        models[seed] = load_pretrained(rule, seed, None if step is None else int(step))
    at = f" at step {step}" if step else ""
    kept: dict[Label, Kept] = {
        seed: {at: functools.partial(load_pretrained, rule, seed, at) for at in kept_steps(rule, seed)}
        for seed in (seeds if step is None else [])
    }
    return Group(rule + at, models, Procedure.from_dict(known["procedure"]), (match[0],), kept=kept)


def _of_file(path: Path) -> Group:
    here = path.resolve() if path.is_symlink() else path  # a link that the user names may lead anywhere
    if path.is_dir() and (folder := RunFolder(here)).config.exists():
        rest = "a folder of a complete run (a run that was interrupted goes on with the command that began it)"
        require(folder.is_complete(), "models", str(path), f"{rest}, or one with a model file alone")
        run = RunConfig.from_dict(folder.read_config()["config"])
        model = HookedTransformer(*folder.load_model(), name=path.name)
        kept: dict[Label, Kept] = {run.seed: _kept(folder, model)}
        return Group(_began(run), {run.seed: model}, run.procedure, (str(path),), kept=kept)
    cfg, state, metadata = load_model(path)
    kind: Any = metadata.get("procedure")
    label = (path.parent.name or path.stem) if path.name == MODEL_FILE else path.stem
    rule = Procedure.from_dict(kind) if isinstance(kind, dict) else None
    return Group(FILES, {label: HookedTransformer(cfg, state, name=label)}, rule, (str(path),))


def _of_run_at(folder: RunFolder, step: int, name: str) -> Group:
    """A run as it was after some updates, of which it keeps the weights."""
    run = RunConfig.from_dict(folder.read_config()["config"])
    models: dict[Label, HookedTransformer] = {run.seed: _at(folder, step, folder.name)}
    return Group(f"{_began(run)} at step {step}", models, run.procedure, (name,))


def _at(folder: RunFolder, step: int, name: str) -> HookedTransformer:
    return HookedTransformer(*folder.load_checkpoint(step), name=f"{name}, step {step}")


def _began(run: RunConfig) -> str:
    moved = " + ".join(f"{part} of {name}" for part, name in run.recipe.parts.items())
    return f"{run.procedure.short_name}: {moved or 'random'}"


def _of_study(
    name: str, pattern: str, step: int | None, store: Store, scale: str | None, n_seeds: int | None
) -> list[Group]:
    study = load(name, scale, n_seeds)
    arms = [arm for arm in study.arms if fnmatch.fnmatchcase(arm, pattern)]
    require(bool(arms), "arm", pattern, f"one of {', '.join(study.arms)}, or a pattern such as 'set*'")
    found = []
    trained = {arm: {s: run for s, run in study.by_arm[arm].items() if store.has_weights(run)} for arm in arms}
    absent = tuple(arm for arm, here in trained.items() if not here)
    for arm, here in trained.items():
        runs = study.by_arm[arm]
        models: dict[Label, HookedTransformer] = {}
        for seed, run in here.items():
            weights = store.model(run) if step is None else store.checkpoint(run, step)
            models[seed] = HookedTransformer(*weights, name=f"{arm}, seed {seed}")
        at = "" if step is None else f" at step {step}"
        if models:
            rule = next(iter(here.values())).procedure
            left = tuple(seed for seed in runs if seed not in here)
            spelled = f"{name}:{arm}" + ("" if step is None else f"@{step}")
            ends = here if step is None else {}
            kept: dict[Label, Kept] = {seed: _kept(store.folder(run), models[seed]) for seed, run in ends.items()}
            found.append(Group(f"{study.name}: {arm}{at}", models, rule, (spelled,), left, absent, kept))
    command = f"mechproc study run {name} trains them"
    require(bool(found), "models", name, f"a study with weights of complete runs in {store.root}; {command}")
    return found


def _kept(folder: RunFolder, final: HookedTransformer) -> Kept:
    """The checkpoints of a run, its final weights included."""
    steps = {step: functools.partial(_at, folder, step, folder.name) for step in folder.checkpoint_steps()}
    return {**steps, folder.read_test()["steps"]: lambda: final}
