"""A user's procedure is identified by everything of the user's that decides its items."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.procedures import Procedure, Set, Shuffled
from mechproc.procedures.source import source_digest

RULES = '''
import dataclasses
from typing import ClassVar

import numpy as np

import helper
from mechproc.procedures import Example, Procedure, Uniform, LengthDistribution

SHIFT = 1
UNUSED = 1


def shifted(symbols):
    return symbols + SHIFT


class Base(Procedure):
    """What both rules share."""

    @property
    def n_ctx(self):
        return self.lengths.max + 2

    def scored(self, tokens, n_tokens):
        return tokens == 1


@dataclasses.dataclass(frozen=True)
class Mine(Base):
    kind: ClassVar[str] = "mine"
    lengths: LengthDistribution = Uniform(2, 6)

    @property
    def token_names(self):
        return ("_", "|", *"abcdefgh")

    def draw(self, rng, lengths):
        return helper.draw(rng, lengths, self.n_ctx, shifted)

    def oracle(self, question):
        return question[-2:-1]


RUNS = [1, 2, 3]
'''
HELPER = """
def draw(rng, lengths, n_ctx, change):
    return change(rng.integers(2, 10, size=(len(lengths), n_ctx))), lengths + 2
"""


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The digest of ``Mine`` when text of the two modules is replaced."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def of(old: str = "", new: str = "") -> str:
        monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))
        for name, text in (("rules", RULES), ("helper", HELPER)):
            (tmp_path / f"{name}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(name, None)
        assert not old or old in RULES + HELPER
        importlib.invalidate_caches()
        import linecache

        linecache.clearcache()
        found = source_digest(importlib.import_module("rules").Mine)
        for name in ("rules", "helper"):
            sys.modules.pop(name, None)
        return found

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("question[-2:-1]", "question[-1:]"),
        ("SHIFT = 1", "SHIFT = 2"),
        ("symbols + SHIFT", "symbols - SHIFT"),
        ("tokens == 1", "tokens == 2"),
        ("Uniform(2, 6)", "Uniform(2, 7)"),
        ("rng.integers(2, 10", "rng.integers(2, 9"),
        ('*"abcdefgh"', '*"abcdefg"'),
    ],
)
def test_whatever_decides_the_items_decides_the_digest(digest, old, new):
    assert digest() == digest() != digest(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("UNUSED = 1", "UNUSED = 2"),
        ("RUNS = [1, 2, 3]", "RUNS = list(range(10))"),
        ("def shifted(symbols):", "# a comment\n\n\ndef shifted(symbols):  # another"),
        ("    return question[-2:-1]", "    return question[ -2 : -1 ]"),
    ],
)
def test_what_does_not_decide_the_items_does_not(digest, old, new):
    assert digest() == digest(old, new)


def made(shift: object, table: np.ndarray | None = None) -> type[Procedure]:
    class Local(Set):
        kind = "local"

        def oracle(self, question: list[str]) -> list[str]:
            return [question[int(shift)], str(table)]  # pyright: ignore[reportArgumentType]

    return Local


def test_values_that_a_class_closes_over_count(monkeypatch):
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))
    tables = [np.arange(3), np.arange(3) + 1]
    digests = [source_digest(made(*given)) for given in ((1,), (2,), (1, tables[0]), (1, tables[1]), (1,))]
    assert len(set(digests)) == 4 and digests[0] == digests[-1]
    with pytest.raises(ConfigError, match=r"shift = .* cannot be part of a procedure"):
        source_digest(made(number for number in range(3)))


def test_copying_and_pickling_leave_the_digest_as_it_was(monkeypatch):
    """Both write the names of slots into a class; a run would have another identity once it went to a worker."""
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))
    cls = made(1)
    before = source_digest(cls)
    copy.copy(cls())
    assert "__slotnames__" in vars(cls) and source_digest(cls) == before


def test_code_without_source_counts_by_what_it_was_compiled_to(monkeypatch):
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))

    def of(body: str) -> str:
        code = (
            f"from mechproc.procedures import Set\nclass New(Set):\n    kind = 'new'\n    def oracle(self, q): {body}"
        )
        namespace = {"__name__": "nowhere"}
        exec(code, namespace)
        return source_digest(namespace["New"])  # pyright: ignore[reportArgumentType]

    assert of("return q[:1]") == of("return  q[:1]") != of("return q[:2]")


def test_a_changed_rule_is_another_run(monkeypatch):
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))
    one, other = made(1)(), made(2)()
    assert one.version == other.version and one.source_version != other.source_version
    assert one.source_version == made(1)().source_version
    assert Set().source_version == Set.version
    assert Shuffled(procedure=one).source_version != Shuffled(procedure=other).source_version
