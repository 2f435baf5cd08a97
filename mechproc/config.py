"""Frozen configs that refuse what they do not know.

Every setting in mechproc is a frozen dataclass derived from ``Config``. It becomes plain JSON with ``to_dict``, comes
back with ``from_dict``, and has a ``digest`` that is the same on every machine. Classes that belong to a family (the
procedures, the length distributions) carry a ``kind`` in their JSON, so that a field typed as the family's base class
is read back as the right member.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import numbers
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Self, Union

from mechproc.errors import ConfigError

T = typing.TypeVar("T")


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, shortest floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def nearest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing when no name comes close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of every config: strict reading, plain writing, a stable digest."""

    kind: ClassVar[str] = ""
    """The name of this member of its family in JSON; empty for classes that have no family."""
    family: ClassVar[dict[str, type[Config]] | None] = None
    """The members of the family by ``kind``; set on the family's base class."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__post_init__" in cls.__dict__:
            cls.__post_init__ = _types_first(cls.__post_init__)  # type: ignore[method-assign]
        if cls.family is None or not cls.kind:
            return
        known = cls.family.get(cls.kind)
        if known and "kind" not in cls.__dict__:
            raise ConfigError(
                f"{cls.__name__}.kind is missing: without one its settings would read as {known.__name__}"
            )
        if known and _is_shipped(known) and not _is_shipped(cls):
            raise ConfigError(f"{cls.__name__}.kind = {cls.kind!r} is not allowed: {known.__name__} of mechproc has it")
        cls.family[cls.kind] = cls

    def __post_init__(self) -> None:
        """Settings of the types that their annotations say, however they were given: configs that are equal have one
        digest. An int becomes a float where one is expected, a number of numpy one of Python."""
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            read = _read(hint, value, name)
            if read is not value:
                object.__setattr__(self, name, read)

    @classmethod
    def _member(cls, kind: Any) -> type[Config] | None:
        """The member of the family that is called ``kind``, if there is one."""
        return (cls.family or {}).get(kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` is its inverse."""
        plain: dict[str, Any] = {"kind": self.kind} if self.kind else {}
        for field in dataclasses.fields(self):
            plain[field.name] = _plain(getattr(self, field.name))
        return plain

    @classmethod
    def from_dict(cls, plain: Any, where: str = "") -> Self:
        """Read a config, refusing unknown keys, missing keys and wrong types.

        ``where`` is the path of this config in the file, for messages (``"donors.set.model"``).
        """
        where = where or cls.__name__
        if not isinstance(plain, dict):
            raise ConfigError(f"{where} = {plain!r} is not allowed: a table of settings is expected")
        plain = dict(plain)
        if cls.family is not None:
            kind = plain.pop("kind", cls.kind or None)
            found = cls._member(kind) if isinstance(kind, str) else None
            if found is None:
                known = ", ".join(sorted(cls.family))
                raise ConfigError(
                    f"{where}.kind = {kind!r} is not allowed: one of {known}{nearest(str(kind), cls.family)}"
                )
            member = typing.cast(type[Self], found)
            if not issubclass(member, cls):
                raise ConfigError(f"{where}.kind = {kind!r} is not allowed: a {cls.__name__} is expected")
        else:
            member = cls
        fields = {f.name: f for f in dataclasses.fields(member)}
        for name in plain:
            if name not in fields:
                known = ", ".join(fields)
                raise ConfigError(f"{where}.{name} is not a setting{nearest(str(name), fields)} (settings: {known})")
        hints = _hints(member)
        values = {name: _read(hints[name], value, f"{where}.{name}") for name, value in plain.items()}
        for name, field in fields.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in values:
                raise ConfigError(f"{where}.{name} is missing")
        try:
            return member(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the config's canonical JSON."""
        return digest(self.to_dict())

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like a new one."""
        return dataclasses.replace(self, **changes)


@functools.cache
def _hints(cls: type[Config]) -> dict[str, Any]:
    """The types of the settings."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _types_first(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A class's own ``__post_init__`` behind that of ``Config``."""

    @functools.wraps(check)
    def checked(self: Any) -> None:
        Config.__post_init__(self)
        check(self)

    return checked


def _is_shipped(cls: type) -> bool:
    return cls.__module__.startswith("mechproc.")


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        options = tuple(o for o in options if o is not type(None))
        if len(options) == 1:
            return _read(options[0], value, where)
        for option in options:
            try:
                return _read(option, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} = {value!r} is not allowed: {_spelled(hint)} is expected")
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        options = [str(option) for option in typing.get_args(hint)]
        allowed = ", ".join(map(repr, options))
        raise ConfigError(f"{where} = {value!r} is not allowed: one of {allowed}{nearest(str(value), options)}")
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_read(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(inner) == len(value):
            return tuple(_read(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        inner = typing.get_args(hint)[1]
        return {str(k): _read(inner, v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, Config):
        return value if isinstance(value, hint) else hint.from_dict(value, where)
    number = {int: numbers.Integral, float: numbers.Real}.get(hint)
    if number and isinstance(value, number) and not isinstance(value, bool):
        try:
            return hint(value)
        except OverflowError:
            raise ConfigError(f"{where} is not allowed: it is larger than any float") from None
    if isinstance(hint, type) and isinstance(value, hint) and not number:
        return value
    raise ConfigError(f"{where} = {value!r} is not allowed: {_spelled(hint)} is expected")


def _spelled(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
