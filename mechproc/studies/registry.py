"""Studies by name, and studies in files."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mechproc.config import nearest
from mechproc.errors import ConfigError, StoreError, first_line, require
from mechproc.reading import require_regular
from mechproc.studies import STUDIES
from mechproc.studies.study import Study

SCALES = ("laptop", "paper")
MOST_SEEDS = 10_000
"""Of one study."""
MOST_RUNS = 50_000
"""Of one study that is asked for more seeds than it has."""


def load(name: str, scale: str | None = None, n_seeds: int | None = None) -> Study:
    """The study of this name, or the one that a Python file defines.

    A file has ``study(scale="laptop", seeds=None) -> Study``, of which either argument may be left out, or a ``STUDY``.
    ``n_seeds``: how many seeds, the study's own first and then those that follow; by default the study's own. Errors:
    ``ConfigError`` for a name that does not exist, and for a scale or number of seeds that the study does not offer.
    """
    require(scale in (None, *SCALES), "scale", scale, f"one of {', '.join(SCALES)}")
    require(n_seeds is None or 1 <= n_seeds <= MOST_SEEDS, "seeds", n_seeds, f"1 to {MOST_SEEDS:,}")
    source = module(name)
    make = getattr(source, "study", None)
    if make is None:
        study = getattr(source, "STUDY", None)
        require(isinstance(study, Study), name, study, "a file with a function study() or a Study called STUDY")
        require(scale is None, "scale", scale, f"None: {name} has one scale")
        require(n_seeds is None, "seeds", n_seeds, f"None: the seeds of {name} are fixed")
        return study  # type: ignore[return-value]
    settings: dict[str, Any] = {} if scale is None else {"scale": scale}
    offered = inspect.signature(make).parameters
    require(scale is None or "scale" in offered, "scale", scale, f"None: {name} has one scale")
    study = make(**settings)
    require(isinstance(study, Study), f"study() of {name}", study, "a function that returns a Study")
    if n_seeds is None or n_seeds == len(study.seeds):
        return study
    require("seeds" in offered, "seeds", n_seeds, f"None: the seeds of {name} are fixed")
    most = max(len(study.seeds), MOST_RUNS * len(study.seeds) // max(1, len(study.runs)))
    require(n_seeds <= most, "seeds", n_seeds, f"at most {most:,}: {name} would have more than {MOST_RUNS:,} runs")
    own, last = study.seeds[:n_seeds], study.seeds[-1]
    return make(**settings, seeds=[*own, *range(last + 1, last + 1 + n_seeds - len(own))])


def numbered(text: str, field: str) -> list[int]:
    """``"0..3,7"`` -> ``[0, 1, 2, 3, 7]``. Errors: ``ConfigError``, naming ``field``."""
    right = re.fullmatch(r"\d{1,18}(\.\.\d{1,18})?(,\d{1,18}(\.\.\d{1,18})?)*", text)
    require(right is not None, field, text, "whole numbers such as 3, 0..9 or 0..3,7")
    ends = [[int(end) for end in part.split("..")] for part in text.split(",")]
    for end in ends:
        require(0 <= end[-1] - end[0] < MOST_SEEDS, field, text, f"at most {MOST_SEEDS:,} in a range that ascends")
    return [number for end in ends for number in range(end[0], end[-1] + 1)]


def about(name: str) -> str:
    """The first line of a registered study's description; the study itself is not loaded."""
    path = Path(__file__).parent / f"{STUDIES[name]}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def scales(name: str) -> bool:
    """Whether a study comes in several scales."""
    make = getattr(module(name), "study", None)
    return make is not None and "scale" in inspect.signature(make).parameters


def module(name: str) -> ModuleType:
    """The module of a registered study, or the one that a file defines."""
    if name in STUDIES:
        return importlib.import_module(f"mechproc.studies.{STUDIES[name]}")
    if not name.endswith(".py"):
        raise ConfigError(
            f"study = {name!r} is not allowed: one of {', '.join(STUDIES)}{nearest(name, STUDIES)}, or a file FILE.py"
        )
    if not Path(name).exists():
        raise StoreError(f"{name} does not exist")
    path = Path(name).resolve()
    require_regular(path)
    # As `python FILE.py` does; worker processes get the same path, and so can import what the file defines.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    require(spec is not None and spec.loader is not None, "study", name, "a Python file")
    loaded = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[path.stem] = loaded
    try:
        spec.loader.exec_module(loaded)  # type: ignore[union-attr]
    except (SyntaxError, ImportError, NameError, AttributeError, TypeError) as error:
        raise ConfigError(f"{name} cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    return loaded
