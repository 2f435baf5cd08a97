"""What a store holds, read from its folders: nothing has to be known of the studies that made them."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from mechproc.config import nearest
from mechproc.errors import ConfigError, StoreError
from mechproc.files import read_json

State = Literal["complete", "running", "interrupted"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run's folder."""

    folder: Path
    identity: str
    config: dict[str, Any]
    state: State
    test: dict[str, Any]
    """The test scores of a complete run; empty for the others."""

    @property
    def recipe(self) -> str:
        """What was moved into the model before the training, in short, such as ``attn of d (set), attn permute``, or
        ``random``."""
        recipe, donors = self.config["recipe"], self.config["donors"]
        moved = []
        for part, donor in recipe["parts"].items():
            rule = donors.get(donor, {}).get("procedure", {})
            control = rule["procedure"] if rule.get("kind") == "shuffled" else None
            named = f"shuffled {control['kind']}" if control else rule.get("kind")
            moved.append(f"{part} of {donor} ({named})")
        changes = [f"{part} {change.get('kind')}" for part, change in (recipe.get("perturb") or {}).items()]
        return ", ".join([" + ".join(moved) or "random", *changes])


def entries(root: str | Path) -> tuple[list[Entry], list[str]]:
    """The runs in a store by name, and one line for each folder that is none."""
    found, problems = [], []
    for folder in _folders(root):
        try:
            found.append(_entry(folder))
        except StoreError as error:
            problems.append(f"{folder} is not a run: {error}")
    return found, problems


def entry(root: str | Path, name: str) -> Entry:
    """The one run whose folder is called ``name``, or whose identity begins with it (at least 4 digits)."""
    runs, _ = entries(root)
    exact = [run for run in runs if run.folder.name == name]
    matching = exact or [run for run in runs if len(name) >= 4 and run.identity.startswith(name)]
    if len(matching) != 1:
        said = ", ".join(run.folder.name for run in matching) or "none" + nearest(name, [r.folder.name for r in runs])
        raise ConfigError(
            f"run = {name!r} is not allowed: the name of a run, or the beginning (4 digits or more) of one run's "
            f"identity ({said})"
        )
    return matching[0]


def remove(chosen: Entry, force: bool = False) -> Path:
    """Remove one run's folder for good; refused while it is being written, and for donors without ``force``."""
    needed_by = []
    for folder in _folders(chosen.folder.parent):
        with contextlib.suppress(StoreError):  # what cannot be read is no run, and needs nothing
            if chosen.config in _donors(read_json(folder / "config.json").get("config")):
                needed_by.append(folder.name)
    if needed_by and not force:
        raise StoreError(f"{chosen.folder} is a donor of {', '.join(needed_by)}: remove these first, or use --force")
    try:
        with FileLock(chosen.folder / "lock", timeout=0):
            # First what says that the run is complete: if the rest is interrupted, it no longer passes for whole.
            (chosen.folder / "test.json").unlink(missing_ok=True)
        shutil.rmtree(chosen.folder)
    except Timeout:
        raise StoreError(f"{chosen.folder} is being written by another process") from None
    except OSError as error:
        raise StoreError(f"{chosen.folder} cannot be removed: {error.strerror or error}") from None
    return chosen.folder


def _folders(root: str | Path) -> list[Path]:
    root = Path(root)
    if not root.is_dir():
        raise StoreError(f"{root} is no folder of runs")
    return sorted(path for path in root.iterdir() if path.is_dir())


def _entry(folder: Path) -> Entry:
    plain, test = read_json(folder / "config.json"), {}
    for path, kind in _CONFIG.items():
        _expect(folder / "config.json", plain, path, kind)
    if (folder / "test.json").exists():
        test = read_json(folder / "test.json")
        for path in ("accuracy", "seconds"):
            _expect(folder / "test.json", test, path, (int, float))
    state: State = "complete" if test else "running" if _is_locked(folder) else "interrupted"
    return Entry(folder, plain["identity"], plain["config"], state, test)


_CONFIG = {
    "identity": str,
    "config.procedure.kind": str,
    "config.seed": int,
    "config.recipe.parts": dict,
    "config.donors": dict,
}
"""What every ``config.json`` has."""


def _expect(file: Path, plain: Any, path: str, kind: type | tuple[type, ...]) -> None:
    value = plain
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, kind):
        raise StoreError(f"{path} in {file.name} is {value!r}")


def _donors(config: Any) -> list[Any]:
    """The configs of all donors of a run, those of donors included, as the file spells them: their identities would
    change with the versions of what reads them."""
    donors = config.get("donors") if isinstance(config, dict) else None
    of_config = list(donors.values()) if isinstance(donors, dict) else []
    return [*of_config, *(deeper for donor in of_config for deeper in _donors(donor))]


def _is_locked(folder: Path) -> bool:
    path = folder / "lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to write: neither is it to say
        return False
