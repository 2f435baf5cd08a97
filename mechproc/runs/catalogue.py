"""What a store holds, read from its folders: nothing has to be known of the studies that made them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from filelock import Timeout

from mechproc.config import digest, nearest
from mechproc.errors import ConfigError, StoreError
from mechproc.files import read_json
from mechproc.progress import progress
from mechproc.runs import index
from mechproc.runs.folder import RunFolder
from mechproc.runs.index import Line

Status = Literal["complete", "running", "interrupted", "failed", "damaged"]
"""``damaged``: it has test scores that cannot be read, or lacks files that they list."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run's folder."""

    folder: RunFolder
    identity: str
    config: dict[str, Any]
    status: Status
    test: dict[str, Any]
    """The test scores of a complete run; empty for the others."""
    error: str | None = None
    """Why the last attempt failed, of a run that has failed; what is wrong, of a damaged one."""

    @property
    def recipe(self) -> str:
        """How the model was assembled, in short, such as ``attn of d (set), attn permute``, or ``random``."""
        try:
            return self._recipe(self.config["recipe"])
        except (AttributeError, KeyError, TypeError):  # a config of another shape
            return "not readable"

    def _recipe(self, recipe: dict[str, Any]) -> str:
        moved = [f"{part} of {self._donor(name)}" for part, name in recipe["parts"].items()]
        factor_donor = recipe.get("donor") or next(iter(recipe["parts"].values()), None)
        for field, value in (("embedding", "random"), ("positions", "fresh"), ("layernorm", "fresh")):
            if (setting := recipe.get(field, value)) != value:
                moved.append(f"{field} {setting} of {self._donor(factor_donor)}")
        changes = [f"{part} {change.get('kind')}" for part, change in (recipe.get("perturb") or {}).items()]
        frozen = [f"{recipe['freeze']} frozen"] if recipe.get("freeze") else []
        return ", ".join([" + ".join(moved) or "random", *changes, *frozen])

    def _donor(self, name: str | None) -> str:
        donor = self.config["donors"].get(name, {})
        run = donor.get("run", donor)
        rule = run.get("procedure", {})
        control = rule.get("procedure") if rule.get("kind") == "shuffled" else None
        named = f"shuffled {control['kind']}" if control else rule.get("kind") or donor.get("rule") or donor.get("file")
        step = f" at step {donor['step']}" if donor.get("step") is not None else ""
        return f"{name} ({named}{step})"


def entries(root: str | Path) -> tuple[list[Entry], list[str]]:
    """The runs in a store by name, and one line for each folder that is none."""
    runs, problems = [], []
    for folder in folders(root):
        try:
            runs.append(_entry(folder))
        except StoreError as error:
            problems.append(f"{folder} is not a run: {error}")
    return runs, problems


def lines(root: str | Path) -> tuple[list[Line], list[str]]:
    """What a list shows of each run in a store, by name, and one line for each folder that is none.

    Of complete runs whose files have not changed it comes from the store's index (``mechproc.runs.index``). A bar is
    drawn where somebody watches.
    """
    root = Path(root)
    known, kept, is_new = index.read(root), {}, False
    found, problems = [], []
    for name in progress(_names(root), f"looking at {root}", "run"):
        now = index.stamp(os.path.join(root, name))  # noqa: PTH118  of very many, each path object counts
        stamped = known.get(name)
        if stamped is not None and stamped[0] == now:
            kept[name] = stamped
            found.append(stamped[1])
            continue
        try:
            line = _line(_entry(RunFolder(root / name)))
        except StoreError as error:
            problems.append(f"{root / name} is not a run: {error}")
            continue
        found.append(line)
        if now is not None and line.status == "complete":
            kept[name], is_new = (now, line), True
    if is_new or len(kept) < len(known):
        index.write(root, kept.values())
    return found, problems


def remember(folder: RunFolder) -> None:
    """Add a run that is complete now to the index of its store, so that no list has to read its folder."""
    with contextlib.suppress(StoreError):
        line = _line(_entry(folder))
        if line.status == "complete":
            index.add(folder.path.parent, line)


def entry(root: str | Path, name: str) -> Entry:
    """The one run whose folder is called ``name``, or whose identity begins with it (at least 4 digits)."""
    if name in _names(Path(root)):  # no other folder has to be looked at
        with contextlib.suppress(StoreError):
            return _entry(RunFolder(Path(root) / name))
    runs, _ = lines(root)
    matching = [run for run in runs if len(name) >= 4 and run.identity.startswith(name)]
    if len(matching) != 1:
        names = [run.name for run in runs]
        candidates = ", ".join(run.name for run in matching) or "none" + nearest(name, names)
        raise ConfigError(
            f"run = {name!r} is not allowed: the name of a run, or the beginning (4 digits or more) of one run's "
            f"identity ({candidates})"
        )
    return _entry(RunFolder(Path(root) / matching[0].name))


def remove(chosen: Entry, force: bool = False) -> RunFolder:
    """Remove one run's folder for good; refused while it is being written, and for donors without ``force``."""
    folder = chosen.folder
    needed_by = [] if force else _needed_by(chosen)
    if needed_by:
        raise StoreError(f"{folder} is a donor of {', '.join(needed_by)}: remove these first, or use --force")
    try:
        with folder.lock():
            # First what says that the run is complete: if the rest is interrupted, it no longer passes for whole.
            folder.test.unlink(missing_ok=True)
        shutil.rmtree(folder.path)
    except Timeout:
        raise StoreError(f"{folder} is being written by another process") from None
    except OSError as error:
        raise StoreError(f"{folder} cannot be removed: {error.strerror or error}") from None
    return folder


def _needed_by(chosen: Entry) -> list[str]:
    """The names of the runs that have this one as a donor, or as a donor of a donor."""
    root, wanted = chosen.folder.path.parent, digest(chosen.config)
    runs, _ = lines(root)
    names = [run.name for run in runs if wanted in run.donors]
    for other in sorted(set(_names(root)) - {run.name for run in runs}):
        with contextlib.suppress(StoreError):  # what cannot be read is no run, and needs nothing
            if wanted in _donors(read_json(root / other / "config.json", root).get("config")):
                names.append(other)
    return names


def folders(root: str | Path) -> list[RunFolder]:
    """Every folder in a store, by name; some may be no runs."""
    return [RunFolder(Path(root) / name) for name in _names(Path(root))]


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        raise StoreError(f"{root} does not exist: there is no such folder of runs")
    with os.scandir(root) as found:
        return sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_dir())


def _line(entry: Entry) -> Line:
    rule, seed = entry.config["procedure"]["kind"], entry.config["seed"]
    return Line(
        *(entry.folder.name, entry.identity, rule, seed, entry.status, entry.recipe),
        *(entry.test.get("accuracy"), entry.test.get("seconds"), _donors(entry.config)),
    )


def _entry(folder: RunFolder) -> Entry:
    test: dict[str, Any] | None = None
    damage: StoreError | None = None
    try:
        test = folder.read_test() if folder.test.exists() else None
    except StoreError as found:
        damage = found
    plain = folder.read_config(test)
    scores: dict[str, Any] = {}
    status: Status = "interrupted"
    error: str | None = None
    try:
        if damage is not None:
            raise damage
        if test is not None and folder.has_files(test):
            status, scores = "complete", test
        elif folder.is_locked():
            status = "running"
        elif test is not None:
            raise StoreError(f"a file that {folder.test} lists is missing or has another size")
        elif error := folder.failure():
            status = "failed"
    except StoreError as found:
        status, error = "damaged", str(found)
    return Entry(folder, plain["identity"], plain["config"], status, scores, error)


def _donors(config: Any) -> tuple[str, ...]:
    """Digests of the configs of all donors of a run, those of donors included, as the file spells them.

    Their identities would change with the versions of what reads them."""
    donors = config.get("donors") if isinstance(config, dict) else None
    of_config = list(donors.values()) if isinstance(donors, dict) else []
    runs = [donor.get("run", donor) for donor in of_config if isinstance(donor, dict)]
    return tuple(dict.fromkeys([*map(digest, runs), *(deeper for run in runs for deeper in _donors(run))]))
