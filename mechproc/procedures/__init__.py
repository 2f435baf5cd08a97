"""Procedures: everything that generates sequences from a rule. Imports numpy only.

``procedures()`` lists them by name, ``get("set")`` is one of them, ``Procedure.from_dict({"kind": "set"})`` reads one
with its settings. A procedure of mechproc is a class in a file of this folder that is imported and exported here, and
is named nowhere else. A procedure of one's own is a subclass of ``Procedure`` with a ``kind``; it is known by it at
once; ``FILE.py:Class`` is accepted wherever a name is, in configs after ``allow("FILE.py")``.
"""

from __future__ import annotations

import typing

from mechproc.config import nearest
from mechproc.errors import ConfigError
from mechproc.procedures import from_file
from mechproc.procedures.addition import Addition, ReversedAddition
from mechproc.procedures.automata import Eca, EcaVectors
from mechproc.procedures.base import (
    BLOCK_ITEMS,
    SPLITS,
    UNDEFINED,
    Example,
    Items,
    PairKind,
    Procedure,
    Role,
    Split,
    names_a_file,
)
from mechproc.procedures.brackets import KDyck
from mechproc.procedures.crossing_brackets import KDyckShuffle
from mechproc.procedures.display import show
from mechproc.procedures.from_file import allow
from mechproc.procedures.haystack import Haystack
from mechproc.procedures.lengths import Curriculum, Fixed, LengthDistribution, Uniform
from mechproc.procedures.lists import Delete, Union
from mechproc.procedures.multiplication import Multiplication
from mechproc.procedures.reorder import Reverse, Sort
from mechproc.procedures.sequences import Identity, Set
from mechproc.procedures.shuffled import Shuffled
from mechproc.procedures.sorting import Sorting
from mechproc.procedures.stack import Stack
from mechproc.procedures.text import Language

__all__ = [
    "BLOCK_ITEMS",
    "SPLITS",
    "UNDEFINED",
    "Addition",
    "Curriculum",
    "Delete",
    "Eca",
    "EcaVectors",
    "Example",
    "Fixed",
    "Haystack",
    "Identity",
    "Items",
    "KDyck",
    "KDyckShuffle",
    "Language",
    "LengthDistribution",
    "Multiplication",
    "PairKind",
    "Procedure",
    "Reverse",
    "ReversedAddition",
    "Role",
    "Set",
    "Shuffled",
    "Sort",
    "Sorting",
    "Split",
    "Stack",
    "Uniform",
    "Union",
    "allow",
    "builtin_procedures",
    "get",
    "procedures",
    "rules",
    "show",
]


def builtin_procedures() -> dict[str, type[Procedure]]:
    """The procedures of mechproc by kind: rules, controls, tasks, each in alphabetical order."""
    exported = [cls for name in __all__ if isinstance(cls := globals()[name], type) and issubclass(cls, Procedure)]
    exported.sort(key=lambda cls: (typing.get_args(Role).index(cls.role), cls.kind))
    return {cls.kind: cls for cls in exported if cls.kind}


def rules() -> tuple[str, ...]:
    """The kinds of mechproc's rules to pretrain on."""
    return tuple(kind for kind, cls in builtin_procedures().items() if cls.role == "rule")


def procedures() -> dict[str, type[Procedure]]:
    """Every known procedure by its kind: those of mechproc, then those defined since."""
    defined = {kind: typing.cast(type[Procedure], cls) for kind, cls in (Procedure.registry or {}).items()}
    return builtin_procedures() | defined


def get(name: str) -> type[Procedure]:
    """The procedure called ``name``, or that a ``FILE.py:Class`` names; a ``ConfigError`` where there is none."""
    if names_a_file(name):
        return from_file.load(name)
    known = procedures()
    if name.endswith(".py"):
        raise ConfigError(f"procedure = {name!r} is not allowed: a procedure of a file is {name}:CLASS")
    if name not in known:
        raise ConfigError(f"procedure = {name!r} is not allowed: one of {', '.join(known)}{nearest(name, known)}")
    return known[name]
