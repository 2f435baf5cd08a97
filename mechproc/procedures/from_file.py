"""Procedures of a user's file: ``FILE.py:Class`` is accepted wherever the name of a procedure is.

A file is executed where the user names it: in ``load``, ``mechproc.procedures.get``, or a command's arguments. A config
that is read from somewhere may name any file, and gives an error for one that the user has neither named nor allowed.

The source of the class, and what it uses of the file and of the user's other modules, is part of the procedure's
version (``mechproc.procedures.source``), so that a run is a new one when any of it has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import linecache
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mechproc.config import nearest
from mechproc.errors import ConfigError, StoreError, first_line
from mechproc.procedures.base import Example, Procedure, names_a_file
from mechproc.procedures.source import source_digest
from mechproc.reading import read_bytes

_LOADED: dict[tuple[str, str], type[Procedure]] = {}
"""Classes by their kind and the digest of their file: a file that has not changed gives the same class again."""
_ALLOWED: set[Path] = set()
"""The files that the user of this process has named or allowed."""


def load(name: str) -> type[Procedure]:
    """The class that ``FILE.py:Class`` names, its worked examples checked; the file is executed, and allowed from then.

    Its ``kind`` is ``name``, with the path relative to the working folder where the file is inside it, else absolute.
    A ``ConfigError`` says what is wrong with the file, the class or an example.
    """
    file, _, class_name = name.rpartition(":")
    try:
        path = _resolved(file)
        source = read_bytes(path)
    except StoreError as error:
        raise _refused(name, str(error)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise _refused(name, f"{file} cannot be read: {error}") from None
    _ALLOWED.add(path)
    inside = path.is_relative_to(Path.cwd())
    kind = f"{(path.relative_to(Path.cwd()) if inside else path).as_posix()}:{class_name}"
    digest = hashlib.sha256(source).hexdigest()[:12]
    if (kind, digest) not in _LOADED:
        plain = _class(name, _executed(name, path, source, digest), class_name)
        cls = _named(plain, kind)
        check_examples(cls)
        _LOADED[kind, digest] = cls
    return _LOADED[kind, digest]


def allow(*files: str | Path) -> None:
    """Let these files be executed, from now on in this process, where a config names a class of theirs.

    Errors: ``ConfigError`` for a file that does not exist.
    """
    for file in files:
        try:
            path = _resolved(file)
            exists = path.is_file()
        except (OSError, RuntimeError, ValueError):
            exists = False
        if not exists:
            raise ConfigError(f"file = {str(file)!r} is not allowed: a Python file that exists")
        _ALLOWED.add(path)


def load_all(plain: Any) -> None:
    """Load every ``FILE.py:Class`` that a config names: one that the user has typed, or that came with code."""
    if isinstance(plain, dict):
        if names_a_file(plain.get("kind")):
            load(plain["kind"])
        for value in plain.values():
            load_all(value)


def _load_allowed(name: str) -> type[Procedure]:
    """The class that a config names, of a file that was named by the user or is allowed."""
    file = name.rpartition(":")[0]
    try:
        allowed = _resolved(file) in _ALLOWED
    except (OSError, RuntimeError, ValueError):
        allowed = False
    if not allowed:
        raise _refused(
            name,
            f"a config that is read does not have {file} executed; if you know that file, say --allow-code {file}, "
            f"in Python mechproc.procedures.allow({file!r})",
        )
    return load(name)


def _resolved(file: str | Path) -> Path:
    return Path(file).expanduser().resolve()


def check_examples(cls: type[Procedure]) -> None:
    """Check the worked examples of a procedure. Errors: ``ConfigError`` naming the first one that does not hold."""
    for example in cls.examples:
        try:
            wrong = [
                f"{what} {actual}, not {stated}" for what, actual, stated in _claims(cls, example) if actual != stated
            ]
        except Exception as error:
            wrong = [f"{type(error).__name__}: {first_line(error)}"]
        if wrong:
            raise _refused(cls.kind, f"its worked example {example.text!r} does not hold: {wrong[0]}")


def _claims(cls: type[Procedure], example: Example) -> Iterator[tuple[str, object, object]]:
    """Each statement of an example: a description, the value that the procedure gives, the value in the example."""
    procedure, tokens = cls.small_version(**example.settings), example.text.split()
    block = procedure.encode([example.text])
    scored = [tokens[p + 1] if p + 1 < len(tokens) else "nothing" for p in np.flatnonzero(block.scored[0]).tolist()]
    yield "scored is", " ".join(scored), example.scored
    start = int(procedure.answer_start(block)[0])
    if procedure.rule_known and tokens[start:]:
        yield "the oracle says", " ".join(procedure.oracle(tokens[:start])), " ".join(tokens[start:])
    for latent, values in example.latents.items():
        if latent not in block.latents:
            yield "the latents are", ", ".join(block.latents), latent
        else:
            yield f"{latent} is", tuple(block.latents[latent][0, : len(tokens)].tolist()), tuple(values)


def _refused(name: str, why: str) -> ConfigError:
    return ConfigError(f"procedure = {name!r} is not allowed: {why}")


def _executed(name: str, path: Path, source: bytes, digest: str) -> types.ModuleType:
    """The file as a module under a name of its own; procedures that it defines get no short names by that."""
    module = types.ModuleType(f"mechproc_outside_{path.stem}_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and type hints look for the names of the file
    text = source.decode(errors="replace")  # what is executed, whatever the file holds later
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    try:
        with _no_names():
            exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise _refused(name, f"{path} cannot be imported: {type(error).__name__}: {first_line(error)}") from error
    return module


@contextlib.contextmanager
def _no_names() -> Iterator[None]:
    """Procedures that are defined in here are not known by their ``kind``: only as ``FILE.py:Class``."""
    known = Procedure.registry
    Procedure.registry = dict(known or {})
    try:
        yield
    finally:
        Procedure.registry = known


def _class(name: str, module: types.ModuleType, class_name: str) -> type[Procedure]:
    defined = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Procedure) and value.__module__ == module.__name__
    }
    if class_name not in defined:
        hint = nearest(class_name, defined)
        raise _refused(name, f"one of the procedures that it defines: {', '.join(defined) or 'none'}{hint}")
    cls = defined[class_name]
    missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    if missing:
        raise _refused(name, f"{class_name} does not define {missing}")
    if not cls.examples:
        raise _refused(name, f"{class_name} has no worked example: a procedure of a file needs one in ``examples``")
    return cls


def _named(cls: type[Procedure], kind: str) -> type[Procedure]:
    """The class under the name by which it was asked for."""

    def restored(self: Procedure) -> tuple[Any, ...]:
        return _restore, (self.to_dict(), self.version)

    body = {
        "kind": kind,
        "version": f"{cls.version}+{source_digest(cls)[:12]}",
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce__": restored,  # pickle finds classes by module and name, and there is none in another process
    }
    with _no_names():
        return types.new_class(cls.__name__, (cls,), exec_body=lambda namespace: namespace.update(body))


def _restore(plain: dict[str, Any], version: str) -> Procedure:
    """Read a procedure in another process; the file has to be the one that it was sent from."""
    load_all(plain)  # a pickle comes from a process that executed the file
    procedure = Procedure.from_dict(plain)
    if procedure.version != version:
        raise _refused(str(plain["kind"]), f"the file has changed while it was in use ({version}, {procedure.version})")
    return procedure


Procedure.load_from_file = staticmethod(_load_allowed)  # type: ignore[assignment]  (base knows no files)
