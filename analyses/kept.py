"""Analyses of models by name, each computed once and kept as a file.

A file is called by the digest of what was asked: the models' weights, what they were run on, the settings. It is read
again as long as the code that decides its numbers is what it was (``analyses.registry.sources_of``: the analysis, the
model, the rules, the statistics), and computed anew otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses.registry import Signature, function, signature, sources
from analyses.sources import Group, checkpoints, groups, scores_digests
from mechproc import __version__
from mechproc.config import digest, nearest
from mechproc.errors import ConfigError, StoreError, require
from mechproc.procedures import Procedure
from mechproc.progress import progress
from mechproc.result import Label, Result, stack
from mechproc.runs.store import Store
from mechproc.studies.registry import load

FOLDER = Path("results/analyses")
DIGITS = 16
"""Of the digest in a file's name."""
MOST = {
    "n_items": 20_000,
    "n_exact": 20_000,
    "steps": 1_000,
    "n_untrained": 1_000,
    "n_controls": 1_000,
    "n_random": 1_000,
    "most_pairs": 10_000,
    "points": 1_000,
    "rank": 1_000_000,
    "seed": 2**63 - 1,
}
"""The most that a setting which counts something may be; more takes hours, or more memory than there is.
An accuracy over 20,000 items has a standard error below 0.4 points; what differs beyond that are the seeds."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """One Result and where it is."""

    title: str
    """The groups of models."""
    result: Result
    path: Path
    seconds: float | None
    """How long it took; ``None`` where it was read."""
    missing: tuple[Label, ...]
    """Seeds of a study that are not trained yet."""
    absent: tuple[str, ...] = ()
    """Arms of the study of which no run is trained yet, and no Result is here."""


def analyse(
    name: str,
    models: Sequence[str],
    *,
    folder: str | Path = FOLDER,
    store: Store | None = None,
    procedure: Procedure | None = None,
    again: bool = False,
    scale: str | None = None,
    n_seeds: int | None = None,
    **settings: Any,
) -> list[Kept]:
    """The Results of an analysis: one for each group of models, or one for all groups where it compares them.

    - ``name``: one of ``analyses.ANALYSES``;
    - ``models``: names as ``analyses.sources`` reads them, or names of studies for an analysis of a study's runs;
    - ``folder``: where Results are kept, below the name of the analysis;
    - ``procedure``: what the models are run on; by default the rule of each group;
    - ``again``: compute even what is there;
    - ``settings``: arguments of the analysis; those that are models are given by name.

    ``metadata["request"]`` has what was asked, with the digest of every model. Errors: ``ConfigError`` for names and
    settings that are not known, and for models whose rule is not known where the analysis needs one.
    """
    called = signature(name)
    known = [option.name for option in called.options]
    for setting in settings:
        if setting not in known:
            raise ConfigError(f"{setting} is not a setting of {name}: {', '.join(known)}{nearest(setting, known)}")
    for setting, most in MOST.items():
        value = settings.get(setting)
        require(value is None or value <= most, setting, value, f"at most {most:,}")
    defaults = {option.name: option.default for option in called.options}
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    store = store or Store("runs")
    if "study" in called.takes:
        require(procedure is None, "procedure", procedure, f"None for {name}: the runs of a study have their own")
        asked = [_of_study(name, called, each, changed, store, scale, n_seeds) for each in models]
    else:
        asked = _of_models(name, called, models, changed, store, procedure, scale, n_seeds)
    code = digest([__version__, sources(name)])
    return [_kept(each, Path(folder) / name, code, again) for each in _watched(asked, name)]


# ---- inside ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Asked:
    """One Result that is asked for."""

    title: str
    request: dict[str, Any]
    """What was asked, as plain JSON: its digest is the name of the file."""
    about: dict[str, Any]
    """What is written down beside it."""
    compute: Callable[[], Result]
    missing: tuple[Label, ...]
    absent: tuple[str, ...] = ()


def _watched(asked: list[_Asked], name: str) -> Iterable[_Asked]:
    """With the progress over all Results, where they are several: of each one alone the analysis tells."""
    return progress(asked, name, "Result") if len(asked) > 1 else asked


def _kept(asked: _Asked, folder: Path, code: str, again: bool) -> Kept:
    """The Result that is asked for: read, or else computed and written."""
    path = folder / f"{digest(asked.request)[:DIGITS]}.json"
    if not again and path.exists():
        with contextlib.suppress(StoreError):  # what is damaged is computed again
            result = Result.load(path)
            if result.metadata.get("request", {}).get("code") == code:
                return Kept(asked.title, result, path, None, asked.missing, asked.absent)
    started = time.monotonic()
    result = asked.compute()
    request = {**asked.request, **asked.about, "code": code}
    result = dataclasses.replace(result, metadata={**result.metadata, "request": request})
    folder.mkdir(parents=True, exist_ok=True)
    result.save(path)
    return Kept(asked.title, result, path, time.monotonic() - started, asked.missing, asked.absent)


def _of_models(
    name: str,
    called: Signature,
    models: Sequence[str],
    settings: dict[str, Any],
    store: Store,
    procedure: Procedure | None,
    scale: str | None,
    n_seeds: int | None,
) -> list[_Asked]:
    """One Result for each group of models, for each training, or for all groups together."""
    found = groups(models, store, procedure, scale=scale, n_seeds=n_seeds)
    others = {
        option.name: groups(settings[option.name], store, procedure, scale=scale, n_seeds=n_seeds)
        for option in called.options
        if option.models and settings.get(option.name) is not None
    }
    together = "groups" in called.takes and (len(found) > 1 or "seeds" not in called.takes)
    parts = [found] if together else [[group] for group in found]
    if "checkpoints" in called.takes:
        parts = checkpoints(models, store, procedure, scale=scale, n_seeds=n_seeds)
    size = _size(scale, n_seeds)
    return [_of_groups(name, called, part, settings, others, size) for part in parts]


def _of_groups(
    name: str,
    called: Signature,
    part: list[Group],
    settings: dict[str, Any],
    others: Mapping[str, list[Group]],
    size: dict[str, Any],
) -> _Asked:
    models = dict.fromkeys(each for group in part for each in group.spelled)
    arguments = settings | {key: _one(key, named).models for key, named in others.items()}
    return _Asked(
        title=", ".join(dict.fromkeys(group.name for group in part)),
        request={
            "models": {_named(group): group.digests() for group in part},
            "procedure": _rule(called, part),
            "settings": settings | {k: {g.name: g.digests() for g in named} for k, named in others.items()},
        },
        about={"analysis": name, "command": _command(name, list(models), settings | size)},
        compute=functools.partial(_computed, name, called, part, arguments),
        missing=tuple(dict.fromkeys(seed for group in part for seed in group.missing)),
        absent=tuple(dict.fromkeys(arm for group in part for arm in group.absent)),
    )


def _of_study(
    name: str,
    called: Signature,
    named: str,
    settings: dict[str, Any],
    store: Store,
    scale: str | None,
    n_seeds: int | None,
) -> _Asked:
    """A Result of the runs of a study; which of them are complete, and what they scored, decides which file it is."""
    study = load(named, scale, n_seeds)
    known = scores_digests(study, store)
    size = _size(scale, n_seeds)
    command = shlex.join(["mechproc", "study", "run", named, *(f"--{key}={value}" for key, value in size.items())])
    places = [str(store.root), *([] if store.records is None else [str(store.records.folder)])]
    require(
        bool(known), "models", named, f"a study with a complete run in {' or '.join(places)}; {command} trains them"
    )
    return _Asked(
        title=study.name,
        request={"models": {study.name: known}, "procedure": None, "settings": settings},
        about={"analysis": name, "command": _command(name, [named], settings | size)},
        compute=functools.partial(function(name), study, store, **settings),
        missing=tuple(seed for seed in study.seeds if str(seed) not in known),
    )


def _size(scale: str | None, n_seeds: int | None) -> dict[str, Any]:
    """The size of a study, as options of the command line."""
    return {**({} if scale is None else {"scale": scale}), **({} if n_seeds is None else {"seeds": n_seeds})}


def _computed(name: str, called: Signature, part: list[Group], arguments: dict[str, Any]) -> Result:
    if called.procedure is not None or called.of_groups is not None:
        for group in part:
            _check_fit(group)
    run = function(name)
    given = dict(arguments)
    if called.procedure is not None and part[0].procedure is not None:
        given[called.procedure] = part[0].procedure
    if "checkpoints" in called.takes:
        return run({group.step: group.models for group in part}, **given)
    if called.of_groups is not None:
        given[called.of_groups] = {group.name: group.procedure for group in part if group.procedure is not None}
    if len(part) > 1 or ("seeds" not in called.takes and "groups" in called.takes):
        return run({group.name: group.models for group in part}, **given)
    (group,) = part
    if "seeds" in called.takes:
        return run(group.models, **given)
    return stack({seed: run(model, **given) for seed, model in group.models.items()}, "seed")


def _rule(called: Signature, part: list[Group]) -> Any:
    """What the models are run on, as plain JSON with its version; ``None`` where the analysis asks for no rule."""
    if called.procedure is None and called.of_groups is None:
        return None
    for group in part:
        known = group.procedure is not None or not called.needs_procedure
        require(known, f"procedure of {group.name}", None, "the rule that these models are run on")
    return [
        None if rule is None else {"version": rule.source_version, **rule.to_dict()}
        for rule in (group.procedure for group in part)
    ]


def _check_fit(group: Group) -> None:
    """Refuse a procedure that these models cannot read before its items are drawn, which may be of any size."""
    rule, model = group.procedure, next(iter(group.models.values()), None)
    if rule is None or model is None:
        return
    most = f"at most {model.cfg.n_ctx + 1}, which these models read"
    require(rule.n_ctx <= model.cfg.n_ctx + 1, f"longest item of {rule.kind}", rule.n_ctx, most)
    fits = rule.n_cells is not None or rule.d_vocab <= model.cfg.d_vocab
    require(fits, f"tokens of {rule.kind}", rule.d_vocab, f"at most {model.cfg.d_vocab}, which these models know")


def _named(group: Group) -> str:
    return group.name if group.step is None else f"{group.name} at step {group.step}"


def _one(field: str, named: list[Group]) -> Group:
    require(len(named) == 1, field, [group.name for group in named], "models of one group")
    return named[0]


def _command(name: str, models: Sequence[str], settings: Mapping[str, Any]) -> str:
    """The command that asks for the same."""
    words = ["mechproc", "analyse", name, *models]
    for key, value in settings.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            words += [option, *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    return shlex.join(words)
