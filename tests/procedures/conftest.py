"""Every procedure in small, and a text that is the same on every machine, in place of the one that Python brings."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import pytest

from mechproc.procedures import Items, Procedure, builtin_procedures, corpora

ALL = builtin_procedures()
every_procedure = pytest.mark.parametrize("kind", list(ALL))
UNDECIDED = ("k-dyck", "k-dyck-shuffle", "shuffled")
"""Procedures that leave a choice: their ceiling is below one."""
KNOWN = [kind for kind, procedure in ALL.items() if procedure.rule_known]
every_known_rule = pytest.mark.parametrize("kind", KNOWN)
every_rule_with_an_answer = pytest.mark.parametrize("kind", [kind for kind in KNOWN if kind != "shuffled"])
"""Procedures that decide an answer, and that an item can break."""


@functools.cache
def small(kind: str) -> Procedure:
    return ALL[kind].small_version()


@functools.cache
def some_items(kind: str) -> Items:
    return small(kind).block(0, "test", 0)


def names(procedure: Procedure, block: Items) -> list[list[str]]:
    return [text.split() for text in procedure.decode(block)]


def _documents(n: int = 60, seed: int = 0) -> list[str]:
    """Sentences of a small language with capitals, digits, newlines and commas."""
    draw = random.Random(seed)
    words = ["the", "cat", "sat", "on", "7", "mats", "and", "Anna", "saw", "42", "dogs,", "then\nit", "ran"]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(20, 60))) for _ in range(n)]


@pytest.fixture
def documents() -> Callable[..., list[str]]:
    """``documents(n, seed)``: that many documents."""
    return _documents


@pytest.fixture
def text(monkeypatch) -> corpora.Corpus:
    """What ``docs`` is while a test lasts."""
    known = corpora.corpus(_documents())
    monkeypatch.setattr(corpora, "docs", lambda: known)
    return known
