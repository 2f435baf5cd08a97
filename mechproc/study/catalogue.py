"""What a store holds, read from its folders: nothing has to be known of the studies that made them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

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
        """What was moved into the model before the training, in short: the parts by donor, or ``random``."""
        recipe = self.config.get("recipe", {})
        moved = " + ".join(f"{part} of {donor}" for part, donor in recipe.get("parts", {}).items()) or "random"
        return moved + (", perturbed" if recipe.get("perturb") else "")

    @property
    def needs(self) -> set[str]:
        """Identities of the runs that this one's model was made from, read from their own entries' configs."""
        from mechproc.study.run import RunConfig

        return {run.identity for run in RunConfig.from_dict(self.config).with_donors()} - {self.identity}


def entries(root: str | Path) -> tuple[list[Entry], list[str]]:
    """The runs in a store by name, and one line for each folder that is none."""
    found, problems = [], []
    root = Path(root)
    if not root.is_dir():
        raise StoreError(f"{root} is no folder of runs")
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            plain = read_json(folder / "config.json")
            test = read_json(folder / "test.json") if (folder / "test.json").exists() else {}
            state: State = "complete" if test else "running" if _is_locked(folder) else "interrupted"
            found.append(Entry(folder, str(plain["identity"]), dict(plain["config"]), state, test))
        except (StoreError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{folder} is not a run: {str(error) or type(error).__name__}")
    return found, problems


def entry(root: str | Path, name: str) -> Entry:
    """The one run whose folder is called ``name`` or whose identity begins with it."""
    runs, _ = entries(root)
    matching = [run for run in runs if run.folder.name == name or run.identity.startswith(name)]
    if len(matching) != 1:
        said = ", ".join(run.folder.name for run in matching) or "none"
        raise ConfigError(
            f"run = {name!r} is not allowed: the name or the beginning of an identity of one run ({said})"
        )
    return matching[0]


def remove(root: str | Path, name: str, force: bool = False) -> Path:
    """Remove one run's folder for good; refused while it is being written, and for donors without ``force``."""
    chosen = entry(root, name)
    needed_by = [run.folder.name for run in entries(root)[0] if chosen.identity in _needs(run)]
    if needed_by and not force:
        raise StoreError(f"{chosen.folder} is a donor of {', '.join(needed_by)}: remove these first, or use --force")
    if _is_locked(chosen.folder):
        raise StoreError(f"{chosen.folder} is being written by another process")
    shutil.rmtree(chosen.folder)
    return chosen.folder


def _needs(run: Entry) -> set[str]:
    try:
        return run.needs
    except ConfigError:  # of another version of mechproc: what it needs cannot be told
        return set()


def _is_locked(folder: Path) -> bool:
    path = folder / "lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
