"""Text to learn from: what every Python brings along, and data sets by name. One array of tokens for all documents.

The characters are the 95 printable ones of ASCII and the newline; everything else, tabs included, is one token,
``OTHER``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mechproc.errors import ConfigError, first_line, require
from mechproc.procedures.base import SPLITS, Split

NEWLINE, SPACE, OTHER = 1, 2, 97
"""Tokens; the printable characters of ASCII follow the space in order."""
CHARACTER_NAMES = ("_", "⏎", "␣", *map(chr, range(33, 127)), "�")
CHARACTER_NAMES = tuple("‿" if i > 0 and name == "_" else name for i, name in enumerate(CHARACTER_NAMES))
"""A name for each token: ``⏎`` is the newline, ``␣`` the space, ``‿`` the underscore, ``�`` any other character."""
_TOKEN = np.full(128, OTHER, dtype=np.uint8)
_TOKEN[[ord("\n"), *range(32, 127)]] = [NEWLINE, *range(SPACE, OTHER)]
NOT_SOURCES = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
"""Folders of the standard library that hold no sources of it, or tests."""


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Different documents, one after another, in the order of their SHA-256."""

    tokens: np.ndarray
    """uint8 [character]."""
    ends: np.ndarray
    """int64 [document]: where each ends."""
    splits: np.ndarray
    """int64 [document]: the split (index into ``SPLITS``) that each belongs to."""
    sha256: str
    """Of all documents, as tokens: two corpora are equal when these are."""

    @property
    def starts(self) -> np.ndarray:
        """int64 [document]: where each starts."""
        return np.append(0, self.ends[:-1])

    def of_split(self, split: Split) -> Corpus:
        """The documents of one split."""
        kept = self.splits == list(SPLITS).index(split)
        lengths = (self.ends - self.starts)[kept]
        inside = np.repeat(kept, self.ends - self.starts)
        return Corpus(self.tokens[inside], np.cumsum(lengths), self.splits[kept], self.sha256)

    def windows(self, length: int) -> np.ndarray:
        """Where the windows of ``length`` characters start that lie in one document, ascending, int64 [window]."""
        before_end = np.repeat(self.ends, self.ends - self.starts) - np.arange(len(self.tokens))
        return np.flatnonzero(before_end >= length)


def encode(text: str) -> np.ndarray:
    """The tokens of a text, uint8 [character]."""
    codes = np.frombuffer(text.replace("\r\n", "\n").encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return _TOKEN[np.minimum(codes, 127)]


def corpus(texts: Iterable[str]) -> Corpus:
    """The different ones of these documents, split.

    Each split in turn but train takes the documents that still fit into its share of the characters, in the order of
    their SHA-256, so that a long document may be in train only. A ``ConfigError`` if a split gets none.
    """
    by_hash = {hashlib.sha256(tokens.tobytes()).hexdigest(): tokens for tokens in map(encode, texts) if len(tokens)}
    order = sorted(by_hash)
    lengths = np.array([len(by_hash[name]) for name in order], dtype=np.int64)
    splits = np.full(len(order), list(SPLITS).index("train"))
    free = np.ones(len(order), dtype=bool)
    for index, (split, share) in enumerate(SPLITS.items()):
        left = share * lengths.sum()
        for document in np.flatnonzero(free) if split != "train" else ():
            if lengths[document] <= left:
                splits[document], free[document] = index, False
                left -= lengths[document]
    if len(np.unique(splits)) < len(SPLITS):
        raise ConfigError(f"a text of {len(order)} documents cannot be split: more and shorter ones are needed")
    tokens = np.concatenate([by_hash[name] for name in order])
    return Corpus(tokens, np.cumsum(lengths), splits, hashlib.sha256("".join(order).encode()).hexdigest())


@functools.cache
def docs() -> Corpus:
    """The topics of Python's ``help()``: half a million characters of English about Python."""
    from pydoc_data.topics import topics

    return corpus(topics.values())


@functools.cache
def stdlib() -> Corpus:
    """The Python sources of the standard library without its tests: about 12 million characters."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(root.rglob("*.py")) if not NOT_SOURCES & set(file.relative_to(root).parts)]
    return corpus(file.read_text(encoding="utf-8", errors="replace") for file in files)


@functools.cache
def dataset(name: str, subset: str, part: str, column: str, n_documents: int) -> Corpus:
    """The first rows of a data set of the Hugging Face hub, or of a local folder of files, as documents.

    A ``ConfigError`` of one line when it cannot be had.
    """
    try:
        import datasets

        # Before its version 4 the library could execute code of a data set.
        settings: dict[str, Any] = {"trust_remote_code": False} if int(datasets.__version__.split(".")[0]) < 4 else {}
        rows = datasets.load_dataset(name, subset or None, split=part, streaming=True, **settings)
        texts = []
        for row in itertools.islice(rows, n_documents):
            require(isinstance(row.get(column), str), "column", column, f"a column of text, of {', '.join(row)}")
            texts.append(row[column])
    except ConfigError:
        raise
    except Exception as error:  # the library raises its own, the hub's, the network's and pyarrow's errors
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f"dataset = {name!r} cannot be had: {reason}") from None
    return corpus(texts)


@functools.lru_cache(maxsize=64)
def held_out(text: Corpus, split: Split, length: int) -> np.ndarray:
    """The hashes of all windows of ``length`` characters in the documents of ``split``, ascending, uint64 [window]."""
    documents = text.of_split(split)
    return np.unique(window_hashes(documents.tokens, length)[documents.windows(length)])


def window_hashes(tokens: np.ndarray, length: int) -> np.ndarray:
    """64 well-mixed bits for each window of ``length`` tokens along the last axis; none where there is no room."""
    room = tokens.shape[-1] - length + 1
    if room <= 0:
        return np.zeros((*tokens.shape[:-1], 0), dtype=np.uint64)
    doubled, size = _mixed(tokens.astype(np.uint64)), 1  # of windows of 1, 2, 4, ... tokens
    state, done = np.zeros((*tokens.shape[:-1], room), dtype=np.uint64), 0
    while True:
        if length & size:
            state = _mixed(state * np.uint64(3) + doubled[..., done : done + room])
            done += size
        if done == length:
            return state
        doubled = _mixed(doubled[..., :-size] * np.uint64(3) + doubled[..., size:])
        size *= 2


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, elementwise."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
