"""Analyses by name: what each is called with, read from its source, so that a list of them imports none.

An analysis takes models first: ``models: Models``, one for each seed, ``models: Mapping[str, Models]``, groups of such,
``checkpoints: Mapping[int, Models]``, one training by step, or ``model: HookedTransformer``; or ``study: Study`` and
the ``Store`` that its runs are in. A parameter that may be a ``Procedure`` is given the rule of the models, one that
may be a ``Mapping[str, Procedure]`` the rule of each group. Every other parameter whose type can be written on a
command line (text, numbers, a choice, lists of these, further ``Models``) is an option; its help is the parameter's
line in the docstring, an item of a list that begins with its name.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import analyses
from analyses import ANALYSES
from mechproc.config import nearest
from mechproc.errors import ConfigError, require

if TYPE_CHECKING:
    from mechproc.result import Result

PACKAGES = Path(analyses.__file__).parents[1]
"""The folder that holds ``analyses`` and ``mechproc``."""
BENEATH = ("model", "procedures", "statistics")
"""Packages of ``mechproc`` whose code decides the numbers of every analysis."""
FOLLOWED = ("analyses", "mechproc.studies")
"""Packages of which only what is imported counts."""
Takes = Literal["one", "seeds", "groups", "checkpoints", "study"]
SCALARS = {"str": str, "int": int, "float": float, "bool": bool}
LISTS = ("Sequence", "list", "tuple", "Iterable")
UNREADABLE = "computed"
"""Stands for a default that is not written as a constant."""


@dataclasses.dataclass(frozen=True)
class Option:
    """A parameter that can be written on a command line."""

    name: str
    kind: type
    """``str``, ``int``, ``float``, ``bool``; ``Models`` are named by texts."""
    many: bool
    """Whether it takes several."""
    models: bool
    choices: tuple[str, ...]
    """What it may be; of one that takes several numbers, words that stand for all of them."""
    required: bool
    default: Any
    text: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """How an analysis is called."""

    about: str
    """What it asks, in one line."""
    takes: frozenset[Takes]
    """What its first parameter may be: one model, models by seed, groups of models by seed, models by step and seed, or
    a study."""
    models: str
    """The name of that parameter."""
    procedure: str | None
    """The parameter that is given the rule of the models."""
    needs_procedure: bool
    of_groups: str | None
    """The parameter that is given the rule of each group, by the group's name."""
    options: tuple[Option, ...]


def function(name: str) -> Callable[..., Result]:
    """The function of an analysis."""
    module, attribute = _place(name)
    return getattr(importlib.import_module(module), attribute)


def about(name: str) -> str:
    """What an analysis asks, in one line; nothing is imported."""
    return _about(*_source(*_place(name))[1:])


@functools.cache
def signature(name: str) -> Signature:
    """How an analysis is called, read from its source; nothing is imported. Errors: ``ConfigError``."""
    module, tree, found = _source(*_place(name))
    texts = _texts(ast.get_docstring(found) or "")
    first, *others = _parameters(found)
    models, leaves = first[0].arg, set(_leaves(first[0].annotation, module, tree))
    takes = {"Models": "seeds", "HookedTransformer": "one", "Mapping[str, Models]": "groups",
             "Mapping[int, Models]": "checkpoints", "Study": "study"}  # fmt: skip
    procedure, of_groups, options = None, None, []
    if found.args.kwarg is not None:  # the rest of the arguments of the run beside it
        taken = [parameter.arg for parameter, _ in [first, *others]]
        run = _source(_place(name)[0], "run")[2]
        texts = _texts(ast.get_docstring(run) or "") | texts
        others += [(p, d) for p, d in _parameters(run)[1:] if p.arg not in taken and p in run.args.kwonlyargs]
    for parameter, default in others:
        default = _constant(default, tree)
        names = set(_leaves(parameter.annotation, module, tree))
        if "Procedure" in names:
            procedure = (parameter.arg, default is None)
        elif "Mapping[str, Procedure]" in names:
            of_groups = parameter.arg
        elif option := _option(parameter.arg, names, default, texts.get(parameter.arg, "")):
            options.append(option)
    return Signature(
        about=_about(tree, found),
        takes=frozenset(takes[leaf] for leaf in leaves if leaf in takes),  # type: ignore[arg-type]
        models=models,
        procedure=procedure[0] if procedure else None,
        needs_procedure=bool(procedure and procedure[1]),
        of_groups=of_groups,
        options=tuple(options),
    )


def sources(name: str) -> dict[str, str]:
    """``sources_of`` the module of an analysis."""
    return sources_of(_place(name)[0])


def sources_of(module: str) -> dict[str, str]:
    """The code that decides what a module of ``analyses`` computes: text by module.

    It is the module, all of ``analyses`` and of the studies that it imports, and the packages ``BENEATH`` as a whole:
    rules are found by name and not by an import, and to read every file takes less time than to look for the imports in
    them.
    """
    texts = _beneath()
    left = [module]
    while left:
        module = left.pop()
        if module in texts or not module.startswith(FOLLOWED):
            continue
        texts[module] = _file(module).read_text(encoding="utf-8")
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                below = (f"{node.module}.{alias.name}" for alias in node.names)
                left += [node.module, *(each for each in below if _file(each, missing_ok=True).exists())]
            elif isinstance(node, ast.Import):
                left += [alias.name for alias in node.names]
    return texts


# ---- inside ----------------------------------------------------------------------------------------------------------


def _place(name: str) -> tuple[str, str]:
    """Module and function of an analysis."""
    if name not in ANALYSES:
        raise ConfigError(f"analysis = {name!r} is not allowed: one of {', '.join(ANALYSES)}{nearest(name, ANALYSES)}")
    module, _, attribute = f"analyses.{ANALYSES[name]}".rpartition(".")
    return module, attribute


def _beneath() -> dict[str, str]:
    paths = [path for name in BENEATH for path in sorted((PACKAGES / "mechproc" / name).rglob("*.py"))]
    return {".".join(path.relative_to(PACKAGES).with_suffix("").parts): path.read_text("utf-8") for path in paths}


def _file(module: str, missing_ok: bool = False) -> Path:
    path = PACKAGES.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    require(missing_ok or path.exists(), "module", module, "a module of this project")
    return path


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _source(module: str, attribute: str) -> tuple[str, ast.Module, ast.FunctionDef]:
    """The module that defines a function, and the function; where one only passes it on, the one it comes from."""
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return module, tree, node
    if origin := _imported(attribute, tree):
        return _source(*origin)
    raise ConfigError(f"analysis = {module}.{attribute} is not allowed: a function that this module defines or imports")


def _imported(name: str, tree: ast.Module) -> tuple[str, str] | None:
    """Module and name of what a module of this project imports as ``name``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("analyses", "mechproc"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    return None


def _about(tree: ast.Module, found: ast.FunctionDef) -> str:
    text = ast.get_docstring(found) or ast.get_docstring(tree) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(": axes ")[0].replace("``", "").rstrip(".")


def _parameters(found: ast.FunctionDef) -> list[tuple[ast.arg, ast.expr | None]]:
    """Parameters and their defaults, ``None`` where there is none."""
    args = [*found.args.posonlyargs, *found.args.args]
    missing: list[ast.expr | None] = [None] * (len(args) - len(found.args.defaults))
    pairs = [*zip(args, [*missing, *found.args.defaults], strict=True)]
    return [*pairs, *zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)]


def _constant(default: ast.expr | None, tree: ast.Module) -> ast.expr | None:
    """A default; of one that is a name of the module, what the module gives that name."""
    if isinstance(default, ast.Name):
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == default.id:
                return node.value
    return default


def _leaves(annotation: ast.expr | None, module: str, tree: ast.Module) -> Iterator[str]:
    """The alternatives of a type, as text; aliases are resolved, in the modules that they come from."""
    if isinstance(annotation, ast.BinOp):
        yield from _leaves(annotation.left, module, tree)
        yield from _leaves(annotation.right, module, tree)
    elif isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        yield f"Literal[{ast.unparse(annotation.slice).strip('()')}]"
    elif isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in LISTS:
        inner = annotation.slice.elts[0] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
        yield from (f"Sequence[{leaf}]" for leaf in _leaves(inner, module, tree))
    elif isinstance(annotation, ast.Name) and annotation.id not in (*SCALARS, "Models", "Any"):
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == annotation.id:
                yield from _leaves(node.value, module, tree)
                return
        if origin := _imported(annotation.id, tree):
            try:
                yield from _leaves(ast.Name(origin[1]), origin[0], _tree(origin[0]))
            except ConfigError:
                yield annotation.id
            return
        yield annotation.id
    elif annotation is not None:
        yield ast.unparse(annotation)


def _option(name: str, leaves: set[str], default: ast.expr | None, text: str) -> Option | None:
    """The parameter as an option; ``None`` where its type cannot be written on a command line."""
    choices = [c for leaf in leaves if leaf.startswith("Literal[") for c in ast.literal_eval(leaf[7:])]
    of_list = [leaf.removeprefix("Sequence[")[:-1] for leaf in leaves if leaf.startswith("Sequence[")]
    scalars = [kind for label, kind in SCALARS.items() if label in leaves]
    listed = [kind for label, kind in SCALARS.items() if label in of_list]
    models = "Models" in leaves
    if not (choices or scalars or listed or models):
        return None
    try:
        value = None if default is None else ast.literal_eval(default)
    except ValueError:
        value = UNREADABLE
    return Option(
        name=name,
        kind=(scalars or listed or [str])[0],
        many=bool(listed) or models,
        models=models,
        choices=tuple(choices) if not (scalars or models) else (),
        required=default is None,
        default=value,
        text=text,
    )


def _texts(docstring: str) -> dict[str, str]:
    """What a docstring's list says of each parameter, its first clause."""
    items = re.findall(r"^- (``\w+``[^:\n]*): (.*?)(?=^- |\n\n|\Z)", docstring + "\n\n", flags=re.MULTILINE | re.DOTALL)
    said = {names: _clause(" ".join(text.split())).replace("``", "") for names, text in items}
    return {name: text for names, text in said.items() for name in re.findall(r"``(\w+)``", names)}


def _clause(text: str) -> str:
    """What stands before the first semicolon or full stop outside of brackets."""
    depth = 0
    for place, sign in enumerate(text):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign in ";." and not depth and text[place + 1 : place + 2] in ("", " "):
            return text[:place]
    return text
