"""Frozen configs that refuse settings that they do not know.

Every setting in mechproc is a frozen dataclass derived from ``Config``. It becomes plain JSON with ``to_dict``, comes
back with ``from_dict``, and has a ``digest`` that is the same on every machine. Classes that belong to a registry (the
procedures, the length distributions) carry a ``kind`` in their JSON, so that a field typed as the registry's base class
is read back as the right member.

A setting at its default does not enter the digest, so that a new setting with a default changes no digest. Whoever
changes a default, or what a setting means, raises the semantic version that stands beside the digest in an identity.
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
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, Union

from mechproc.errors import MOST_SHOWN, ConfigError, shown

T = typing.TypeVar("T")


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, shortest floats, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def nearest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or nothing when no name comes close."""
    if len(name) > MOST_SHOWN:  # the search takes the square of the length
        return ""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class _ConfigMeta(ABCMeta):
    """Refuses unknown and missing settings by name, before Python refuses them with a ``TypeError``."""

    if not TYPE_CHECKING:  # type checkers shall read the signature of the class itself

        def __call__(cls, *args: Any, **settings: Any) -> Any:
            fields = {field.name: field for field in dataclasses.fields(cls)}
            for name in settings:
                _require_setting(name, fields, cls.__name__)
            by_position = [field.name for field in fields.values() if not field.kw_only]
            if len(args) <= len(by_position) and not getattr(cls, "__abstractmethods__", None):
                _require_all(fields, {*by_position[: len(args)], *settings}, cls.__name__)
            return super().__call__(*args, **settings)


@dataclasses.dataclass(frozen=True)
class Config(metaclass=_ConfigMeta):
    """Base of every config: strict reading, plain writing, a stable digest."""

    kind: ClassVar[str] = ""
    """The name of this member of its registry in JSON; empty for classes that have no registry."""
    registry: ClassVar[dict[str, type[Config]] | None] = None
    """The members of the registry by ``kind``; set on the registry's base class."""
    largest: ClassVar[int] = 2**63 - 1
    """The largest whole number that a setting may be; ``at_most`` gives a setting a limit of its own. A larger one,
    which a file may hold, is refused before anything is made in such a size."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__post_init__" in cls.__dict__:
            cls.__post_init__ = _types_first(cls.__post_init__)  # type: ignore[method-assign]
        if cls.registry is None or not cls.kind:
            return
        known = cls.registry.get(cls.kind)
        if known and "kind" not in cls.__dict__:
            raise ConfigError(
                f"{cls.__name__}.kind is missing: without one its settings would read as {known.__name__}"
            )
        if known and _is_shipped(known) and not _is_shipped(cls):
            raise ConfigError(f"{cls.__name__}.kind = {cls.kind!r} is not allowed: {known.__name__} of mechproc has it")
        cls.registry[cls.kind] = cls

    def __post_init__(self) -> None:
        """Convert each setting to the type of its annotation, so that equal configs have one digest: an int becomes a
        float where a float is expected, a number of numpy becomes one of Python."""
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            read = _read(hint, value, name)
            if read is not value:
                object.__setattr__(self, name, read)
        for field in dataclasses.fields(self):
            _require_small(field.name, getattr(self, field.name), field.metadata.get("largest", self.largest))

    @classmethod
    def _member(cls, kind: Any) -> type[Config] | None:
        """The member of the registry that is called ``kind``, if there is one."""
        return (cls.registry or {}).get(kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` is its inverse."""
        plain: dict[str, Any] = {"kind": self.kind} if self.kind else {}
        for field in dataclasses.fields(self):
            plain[field.name] = _plain(getattr(self, field.name))
        return plain

    def following(self) -> dict[str, Any]:
        """Settings whose default follows from other settings, with the values that follow from these."""
        return {}

    def identifying(self) -> dict[str, Any]:
        """The settings that are not at their defaults, as plain JSON, with the ``kind``: what ``digest`` hashes."""
        plain: dict[str, Any] = {"kind": self.kind} if self.kind else {}
        following = self.following()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in following:
                at_default = value == following[field.name]
            elif field.default_factory is not dataclasses.MISSING:
                at_default = value == field.default_factory()
            else:
                at_default = field.default is not dataclasses.MISSING and value == field.default
            if not at_default:
                plain[field.name] = _identifying(value)
        return plain

    @classmethod
    def from_dict(cls, plain: Any, where: str = "") -> Self:
        """Read a config, refusing unknown keys, missing keys and wrong types.

        ``where`` is the path of this config in the file, for messages (``"donors.set.model"``).
        """
        where = where or cls.__name__
        if not isinstance(plain, dict):
            raise ConfigError(f"{where} = {shown(plain)} is not allowed: a table of settings is expected")
        plain = dict(plain)
        if cls.registry is not None:
            kind = plain.pop("kind", cls.kind or None)
            registered = cls._member(kind) if isinstance(kind, str) else None
            if registered is None:
                known = ", ".join(sorted(cls.registry))
                raise ConfigError(
                    f"{where}.kind = {shown(kind)} is not allowed: one of {known}{nearest(str(kind), cls.registry)}"
                )
            member = typing.cast(type[Self], registered)
            if not issubclass(member, cls):
                raise ConfigError(f"{where}.kind = {kind!r} is not allowed: a {cls.__name__} is expected")
        else:
            member = cls
        fields = {f.name: f for f in dataclasses.fields(member)}
        for name in plain:
            _require_setting(name, fields, where)
        hints = _hints(member)
        values = {name: _read(hints[name], value, f"{where}.{name}") for name, value in plain.items()}
        _require_all(fields, values, where)
        try:
            return member(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the canonical JSON of the settings that are not at their defaults."""
        return digest(self.identifying())

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed, checked like a new one.

        A setting that followed from others follows again, unless it is given.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        following = {n: defaults[n] for n, value in self.following().items() if getattr(self, n) == value}
        return dataclasses.replace(self, **(following | changes))


def at_most(largest: int, default: Any) -> Any:
    """The field of a setting with this default that may be no larger than ``largest``."""
    return dataclasses.field(default=default, metadata={"largest": largest})


def _require_small(name: str, value: Any, largest: int) -> None:
    """Refuse a whole number beyond ``largest``, and one among several."""
    if isinstance(value, tuple):
        for each in value:
            _require_small(name, each, largest)
    elif isinstance(value, int) and not -largest <= value <= largest:
        raise ConfigError(f"{name} = {shown(value)} is not allowed: at most {largest:,}")


@functools.cache
def _hints(cls: type[Config]) -> dict[str, Any]:
    """The types of the settings."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _require_setting(name: object, fields: dict[str, Any], where: str) -> None:
    if name not in fields:
        known = ", ".join(fields)
        hint = nearest(str(name), fields)
        raise ConfigError(f"{where}.{str(name)[:MOST_SHOWN]} is not a setting{hint} (settings: {known})")


def _require_all(fields: dict[str, dataclasses.Field[Any]], given: Iterable[str], where: str) -> None:
    """Raise a ``ConfigError`` when a setting without a default is not given."""
    given = set(given)
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in given and not has_default:
            raise ConfigError(f"{where}.{name} is missing")


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


def _identifying(value: Any) -> Any:
    if isinstance(value, Config):
        return value.identifying()
    if isinstance(value, dict):
        return {str(k): _identifying(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_identifying(v) for v in value]
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
        if all(isinstance(option, type) and issubclass(option, Config) for option in options):
            return _read(_config_with(value, options), value, where)
        for option in options:
            try:
                return _read(option, value, where)
            except ConfigError:
                continue
        raise ConfigError(f"{where} = {shown(value)} is not allowed: {_spelled(hint)} is expected")
    if origin is typing.Literal:
        if value in typing.get_args(hint):
            return value
        options = [str(option) for option in typing.get_args(hint)]
        allowed = ", ".join(map(repr, options))
        raise ConfigError(f"{where} = {shown(value)} is not allowed: one of {allowed}{nearest(str(value), options)}")
    if origin is tuple and isinstance(value, (list, tuple)):
        inner = typing.get_args(hint)
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_read(inner[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(inner) == len(value):
            return tuple(_read(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(inner, value, strict=True)))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
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
    raise ConfigError(f"{where} = {shown(value)} is not allowed: {_spelled(hint)} is expected")


def _config_with(value: Any, options: tuple[type[Config], ...]) -> type[Config]:
    """The config that ``value`` is, or whose settings are those of the table ``value``; the first where none fits."""
    for option in options:
        names = {field.name for field in dataclasses.fields(option)}
        if isinstance(value, option) or (isinstance(value, dict) and names.issuperset(value)):
            return option
    return options[0]


def _spelled(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
