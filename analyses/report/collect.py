"""A page about studies, runs and Results that are given by name, with the sections that there is data for."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analyses import transfer_map
from analyses.report.document import Report
from analyses.report.sections import attention, claims, methods, paper, results, run, study
from analyses.sources import groups, model_digest
from mechproc.config import nearest
from mechproc.errors import ConfigError, StoreError, require
from mechproc.model.hooked import HookedTransformer
from mechproc.result import Result
from mechproc.runs.config import RunConfig
from mechproc.runs.folder import RunFolder
from mechproc.runs.store import Store
from mechproc.studies import STUDIES
from mechproc.studies import transfer_map as map_study
from mechproc.studies.registry import load
from mechproc.studies.study import Study

MAP = (
    "The maps below say what each part of a donor's weights gains when it is moved. Alone: nothing else is moved. "
    "Removed: what is lost when everything but this part is moved. Shapley: the mean of what the part adds over all "
    "orders in which the parts can be moved, so that the values of a seed sum to the gain of the whole donor. Alone, "
    "permuted, and alone, wrong, are controls: the part's numbers in random order, and the same part of a rule that "
    "does not help. Only seeds of which runs are complete are shown."
)
"""What the maps of the study ``transfer-map`` show."""


@dataclasses.dataclass(frozen=True)
class Given:
    """What the names stand for."""

    studies: dict[str, Study]
    """By the name that was given."""
    runs: list[tuple[RunConfig, Store]]
    results: list[Result]

    def title(self) -> str:
        """What the page is called."""
        named = [each.name for each in self.studies.values()] + [each.name for each, _ in self.runs]
        named += [] if named else [result.title for result in self.results]
        return ", ".join(dict.fromkeys(named[:3])) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def report(
    names: Sequence[str],
    store: Store,
    *,
    scale: str | None = None,
    n_seeds: int | None = None,
    kept: str | Path = "results/analyses",
    command: str = "",
) -> Report:
    """The page.

    - ``names``: studies (``rules-by-task``, ``FILE.py``), runs (a folder, or its name in the store), files of Results
      or folders of such;
    - ``store``: where runs and records are;
    - ``scale``, ``n_seeds``: of the studies;
    - ``kept``: the folder in which analyses are kept; those of the runs and studies on the page are shown with them;
    - ``command``: the command that makes the page again.

    Errors: ``ConfigError`` for a name that stands for nothing, ``StoreError`` for damaged files.
    """
    given = find(names, store, scale, n_seeds)
    page = Report(given.title(), _subtitle(given))
    found = [*given.results, *_related(given, store, Path(kept))]
    maps = [found for name, each in given.studies.items() for found in _transfer_maps(name, each, store)]
    for each in given.studies.values():
        study.progress(page, each, store)
    if maps:  # what such a study is about comes before its scores
        page.text(MAP)
        results.add(page, [*maps, *found])
    for name, each in given.studies.items():
        study.add(page, each, store, begun=True)
        claims.add(page, each, store)
        paper.add(page, name, each, store)
    for config, at in given.runs:
        run.add(page, config, at)
    if not maps:
        results.add(page, found)
    found = [*maps, *found]
    _attention_of_results(page, found, store)
    for each in given.studies.values():
        methods.of_study(page, each, store)
    if found or given.runs:
        if not given.studies:
            page.heading("Methods")
        for config, _ in given.runs:
            page.text(methods.of_runs([config], 1))
        if found:
            methods.of_results(page, found)
    methods.commands(page, _commands(given, found, scale, n_seeds, command))
    return page


def find(names: Sequence[str], store: Store, scale: str | None = None, n_seeds: int | None = None) -> Given:
    """What the names stand for. Errors: ``ConfigError``, ``StoreError``."""
    require(len(names) > 0, "names", list(names), "at least one study, run or Result")
    given = Given({}, [], [])
    for name in names:
        path = Path(name)
        if name in STUDIES or path.suffix == ".py":
            given.studies[name] = load(name, scale, n_seeds)
        elif path.is_file():
            given.results.append(_read(path))
        elif folder := next((f for f in (path, store.root / name) if (f / "config.json").exists()), None):
            config = run.config_of(RunFolder(folder))
            require(config.name == folder.name, "name of the run's folder", folder.name, f"{config.name!r}")
            given.runs.append((config, store if folder.parent == store.root else Store(folder.parent)))
        elif path.is_dir():
            given.results.extend(_of_folder(path))
        else:
            raise ConfigError(
                f"{name!r} is not allowed: a study ({', '.join(STUDIES)}, FILE.py), a run in {store.root}, the file of "
                f"a Result or a folder of such{nearest(name, STUDIES)}"
            )
    return given


# ---- inside ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Result:
    """The Result in a file, whose name stands in ``metadata["file"]``."""
    result = Result.load(path)
    return dataclasses.replace(result, metadata={**result.metadata, "file": path.stem})


def _of_folder(path: Path) -> list[Result]:
    """The Results in a folder and those below it; other JSON files are passed over."""
    found = []
    for file in sorted(path.rglob("*.json")):
        with contextlib.suppress(StoreError):
            found.append(_read(file))
    require(bool(found), "folder", str(path), "one with files of Results")
    return found


def _subtitle(given: Given) -> str:
    seeds = sorted({seed for each in given.studies.values() for seed in each.seeds})
    parts = [f"{len(each.arms)} arms" for each in given.studies.values()] + ([f"{len(seeds)} seeds"] if seeds else [])
    parts += [f"{len(given.runs)} run{'s' if len(given.runs) > 1 else ''}"] if given.runs else []
    parts += [f"{len(given.results)} Result{'s' if len(given.results) > 1 else ''}"] if given.results else []
    return ", ".join(parts)


def _related(given: Given, store: Store, kept: Path) -> list[Result]:
    """Kept analyses of the models of the runs, and of arms of the studies."""
    digests = {model_digest(HookedTransformer(*at.model(run))) for run, at in given.runs if at.has_weights(run)}
    arms = {f"{each.name}: {arm}" for each in given.studies.values() for arm in each.arms}
    if not (digests or arms) or not kept.is_dir():
        return []
    found = []
    for file in sorted(kept.rglob("*.json")):
        with contextlib.suppress(StoreError):
            result = _read(file)
            models = (result.metadata.get("request") or {}).get("models") or {}
            of = {digest for group in models.values() for digest in group.values()}
            if result not in given.results and (of & digests or arms & set(models)):
                found.append(result)
    return found


def _transfer_maps(name: str, each: Study, store: Store) -> list[Result]:
    """The map of each rule whose parts the study moves, for the seeds of which a run of the map is complete."""
    rules = [rule for rule in map_study.RULES["laptop"] if map_study.arm(rule, transfer_map.EVERYTHING) in each.by_arm]
    maps = [transfer_map.run(each, store, rule) for rule in rules] if name == "transfer-map" else []
    begun = [(found, np.asarray(np.isfinite(found.values).any(axis=(0, 1)))) for found in maps]
    return [found.select(seed=[s for s, is_known in zip(found.coordinates["seed"], known, strict=True) if is_known])
            for found, known in begun if known.any()]  # fmt: skip


def _attention_of_results(page: Report, found: Sequence[Result], store: Store) -> None:
    """What the heads of the first model look at, of the Results whose command names models that are at hand."""
    seen: set[str] = set()
    for result in found:
        words = shlex.split((result.metadata.get("request") or {}).get("command", ""))[3:]
        names = [word for n, word in enumerate(words) if not any(w.startswith("--") for w in words[: n + 1])]
        with contextlib.suppress(ConfigError, StoreError):
            group = groups(names, store)[0]
            seed, model = next(iter(group.models.items()))
            if group.procedure is not None and model_digest(model) not in seen:
                seen.add(model_digest(model))
                page.text(f"The heads below are those of {group.name}, seed {seed}.")
                attention.add(page, model, group.procedure)
        if seen:
            return


def _commands(given: Given, found: Sequence[Result], scale: str | None, n_seeds: int | None, command: str) -> list[str]:
    size = [*(["--scale", scale] if scale else []), *(["--seeds", str(n_seeds)] if n_seeds else [])]
    lines = [shlex.join(["mechproc", "study", "run", name, *size]) for name in given.studies]
    lines += [str(line) for result in found if (line := (result.metadata.get("request") or {}).get("command"))]
    return [*lines, *([command] if command else [])]
