"""A text that is the same on every machine, in place of the one that Python brings along."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mechproc.procedures import corpora


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
