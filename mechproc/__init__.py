"""mechproc: which part of a small transformer carries what it learned from a procedural rule.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechproc.model.config import ModelConfig as ModelConfig
    from mechproc.model.hooked import HookedTransformer as HookedTransformer
    from mechproc.model.io import load_model as load_model
    from mechproc.model.io import save_model as save_model
    from mechproc.pretrained import load_pretrained as load_pretrained
    from mechproc.procedures import Procedure as Procedure
    from mechproc.result import Result as Result
    from mechproc.runs.config import RunConfig as RunConfig
    from mechproc.runs.store import Store as Store
    from mechproc.studies.study import Study as Study
    from mechproc.training.config import TrainingConfig as TrainingConfig
    from mechproc.transfer.recipe import Recipe as Recipe

__version__ = "0.1.0"

_HOME = {
    "HookedTransformer": "mechproc.model.hooked",
    "ModelConfig": "mechproc.model.config",
    "Procedure": "mechproc.procedures",
    "Recipe": "mechproc.transfer.recipe",
    "Result": "mechproc.result",
    "RunConfig": "mechproc.runs.config",
    "Store": "mechproc.runs.store",
    "Study": "mechproc.studies.study",
    "TrainingConfig": "mechproc.training.config",
    "load_pretrained": "mechproc.pretrained",
    "load_model": "mechproc.model.io",
    "save_model": "mechproc.model.io",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mechproc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
