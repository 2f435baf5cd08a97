"""The digest of the source of a user's procedure: all code and data that decide its items, in whichever file.

It covers the class, its base classes, and the functions, classes and data that they use, as far as these belong to the
user: the standard library, installed packages and mechproc itself are identified by their versions. Source is compared
by its syntax tree, so that comments and layout do not matter. Where no source can be read, as in code given to
``exec``, the compiled code stands in for it, which is the same within one version of Python only.
"""

from __future__ import annotations

import ast
import dataclasses
import dis
import functools
import hashlib
import inspect
import pickle
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mechproc.errors import ConfigError

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_OF_CLASSES = {"__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__"}
_OF_CLASSES |= {"__slotnames__", "__static_attributes__"}
"""What Python writes into a class beside its own definitions, when it is made, copied or pickled."""
_GENERATED = {"__init__", "__eq__", "__repr__", "__hash__", "__setattr__", "__delattr__", "__match_args__"}
"""What ``dataclass`` writes into a class, from the fields that stand in its source."""


def source_digest(cls: type) -> str:
    """SHA-256 (hexadecimal) of everything of the user's that ``cls`` is made of.

    Raises a ``ConfigError`` that names a value which cannot be identified, such as an open file.
    """
    walk = _Walk()
    walk.visit(cls, cls.__name__)
    return walk.digest.hexdigest()


def is_users(thing: Any) -> bool:
    """Whether a module, class or function is neither of mechproc nor of the standard library nor installed."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None) or ""
    if name.split(".")[0] in ("mechproc", "analyses", *sys.builtin_module_names, "builtins"):
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return True
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in _INSTALLED)


class _Walk:
    """Visits everything that an object refers to, each once, and adds it to one digest."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: set[int] = set()
        self.alive: list[Any] = []  # an address stands for an object only as long as the object lives

    def visit(self, value: Any, name: str) -> None:
        """Add ``value``, which the code calls ``name``."""
        value = inspect.unwrap(value) if callable(value) else value
        if id(value) in self.seen:
            return
        if isinstance(value, types.ModuleType):
            if is_users(value):
                self._once(value)
                self._add("module", _normalised(inspect.getsource(value)))
        elif isinstance(value, (type, types.FunctionType)):
            if is_users(value):
                self._once(value)
                self._definition(value)
        elif isinstance(value, (types.BuiltinFunctionType, np.ufunc, types.MethodDescriptorType)):
            return
        else:
            self._value(value, name)

    def _definition(self, value: type | types.FunctionType) -> None:
        functions = list(_functions(value))
        try:
            self._add("source", _normalised(textwrap.dedent(inspect.getsource(value))))
        except (OSError, TypeError, SyntaxError):
            for function in functions:
                self._add("code", repr(_code(function.__code__)))
        if isinstance(value, type):
            for base in value.__mro__[1:]:
                self.visit(base, base.__name__)
            for name, attribute in sorted(vars(value).items()):
                is_code = isinstance(attribute, (types.FunctionType, property, classmethod, staticmethod))
                if name not in _OF_CLASSES | _GENERATED and not is_code and _is_plain(attribute):
                    self._add(name, repr(attribute))
        for function in functions:
            for name, used in _used(function):
                self.visit(used, name)

    def _value(self, value: Any, name: str) -> None:
        if isinstance(value, np.ndarray):
            self._add(name, f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}")
        elif _is_plain(value):
            self._add(name, repr(value))
        else:
            self._once(value)
            if is_users(type(value)):
                self.visit(type(value), type(value).__name__)
            try:
                self._add(name, hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest())
            except Exception as error:
                raise ConfigError(
                    f"{name} = {value!r} cannot be part of a procedure: what decides its items has to be code or data "
                    f"({error})"
                ) from None

    def _once(self, value: Any) -> None:
        self.seen.add(id(value))
        self.alive.append(value)

    def _add(self, name: str, text: str) -> None:
        self.digest.update(f"{name}\0{text}\0".encode())


@functools.lru_cache(maxsize=1024)
def _normalised(source: str) -> str:
    return ast.dump(ast.parse(source))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(_is_plain(part) for pair in value.items() for part in pair)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    return value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic))


def _functions(value: type | types.FunctionType) -> Iterator[types.FunctionType]:
    """A function itself; of a class its methods, however they are wrapped, without those that ``dataclass`` wrote."""
    if isinstance(value, types.FunctionType):
        yield value
        return
    for name, attribute in sorted(vars(value).items()):
        wrapped = [attribute]
        if isinstance(attribute, property):
            wrapped = [attribute.fget, attribute.fset]
        elif isinstance(attribute, (classmethod, staticmethod)):
            wrapped = [attribute.__func__]
        elif isinstance(attribute, functools.cached_property):
            wrapped = [attribute.func]
        for function in wrapped:
            function = inspect.unwrap(function) if callable(function) else function
            if isinstance(function, types.FunctionType) and name not in _GENERATED:
                yield function


def _used(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function reads from around it: globals, closure and defaults, with the names it has there."""
    closure = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in closure:
        if name != "__class__":
            yield name, cell.cell_contents
    for number, default in enumerate(function.__defaults__ or ()):
        yield f"default {number} of {function.__name__}", default
    for name in sorted(_globals(function.__code__)):
        if name in function.__globals__ and not name.startswith("__"):
            yield name, function.__globals__[name]


def _globals(code: types.CodeType) -> set[str]:
    """The global names that a function reads, the functions inside it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    own = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(_globals, inner))


def _code(code: types.CodeType) -> tuple[Any, ...]:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames
