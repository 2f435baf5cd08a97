"""``language``: characters of text, the next one from those before. No rule decides the next character."""

from __future__ import annotations

import dataclasses
import functools
import platform
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from mechproc.errors import ConfigError, require
from mechproc.procedures import corpora
from mechproc.procedures.base import SPLITS, UNDEFINED, Example, Items, Procedure, Role
from mechproc.procedures.corpora import CHARACTER_NAMES, NEWLINE, OTHER, SPACE, Corpus
from mechproc.procedures.lengths import Fixed, LengthDistribution

LETTER, DIGIT, BLANK, PUNCTUATION = range(4)
"""The values of the latent ``class``."""


class Trigram(NamedTuple):
    """P(character | up to two before it), interpolated after Witten and Bell (1991): the more different characters were
    seen after a context, the more weight the shorter context has."""

    unigram: np.ndarray
    """float64 [next]."""
    bigram: np.ndarray
    """float64 [before, next]."""
    trigram: np.ndarray
    """float64 [second before, before, next]."""

    @classmethod
    def fit(cls, text: Corpus, d_vocab: int) -> Trigram:
        """From all characters of all documents of ``text``."""
        shape, tokens = (d_vocab,) * 3, text.tokens.astype(np.int64)
        starts = text.windows(3)
        index = np.ravel_multi_index(tuple(tokens[starts + i] for i in range(3)), shape)
        three = np.bincount(index, minlength=d_vocab**3).reshape(shape)
        starts = text.windows(2)
        index = np.ravel_multi_index((tokens[starts], tokens[starts + 1]), shape[:2])
        two = np.bincount(index, minlength=d_vocab**2).reshape(shape[:2])
        one = np.bincount(tokens, minlength=d_vocab) + (np.arange(d_vocab) > 0)  # each may come, the padding may not
        unigram = one / one.sum()
        bigram = _interpolated(two, unigram)
        return cls(unigram, bigram, _interpolated(three, bigram))


def _interpolated(counts: np.ndarray, shorter: np.ndarray) -> np.ndarray:
    different = (counts > 0).sum(axis=-1, keepdims=True)
    weight = counts.sum(axis=-1, keepdims=True) + different
    return np.where(weight > 0, (counts + different * shorter) / np.maximum(weight, 1), shorter)


@dataclasses.dataclass(frozen=True)
class Language(Procedure):
    """Windows of text, character by character; each character but the first is predicted.

    An item is a window at a random place of a document (a help topic, a source file, a row of a data set). Whole
    documents are held out: an item belongs to the split of its document, and a window that stands in documents of
    several splits to the first of test, validation, train that has it. A length counts characters.

    The text is part of what a run is: its SHA-256 is a setting, filled in from the text found here when it is left
    out, and items are drawn only from a text that has it. Python's own texts differ between its versions.

    There are no minimal pairs: a window with one character changed is text of no split.
    """

    kind: ClassVar[str] = "language"
    role: ClassVar[Role] = "task"
    rule_known: ClassVar[bool] = False
    scored_unit: ClassVar[str] = "character"
    length_unit: ClassVar[str] = "characters"
    latent_names: ClassVar[dict[str, str]] = {
        "class": "0 letter, 1 digit, 2 space or newline, 3 other; at every character",
        "in_word": "letters and digits from the start of this word to here, this one included; at letters and digits",
        "column": "characters since the last newline, 0 at the newline itself; from the window's first newline on",
        "repeat": "position of the latest earlier character that has the same one before it; where there is one",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("column", "in_word", "repeat")
    attention_target_names: ClassVar[dict[str, str]] = {
        "previous": "from each character but the first to the one before it",
        "word": "from each letter and digit to those before it in its word",
        "induction": "from each character to what stood after the latest earlier copy of it and of the one before it",
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Fixed(24)}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "a n ␣ a n t 2 ⏎ a n ␣",
            "n ␣ a n t 2 ⏎ a n ␣",
            {
                "class": (0, 0, 2, 0, 0, 0, 1, 2, 0, 0, 2),
                "in_word": (1, 2, -1, 1, 2, 3, 4, -1, 1, 2, -1),
                "column": (-1, -1, -1, -1, -1, -1, -1, 0, 1, 2, 3),
                "repeat": (-1, -1, -1, -1, 1, -1, -1, -1, -1, 4, 2),
            },
        ),
    )

    lengths: LengthDistribution = Fixed(64)
    source: Literal["docs", "stdlib", "dataset"] = "docs"
    """``docs``: the topics of Python's ``help()``. ``stdlib``: the sources of Python's standard library, without tests.
    ``dataset``: a data set that the library ``datasets`` loads."""
    dataset: str = ""
    """The name of the data set, or a local folder of files."""
    subset: str = ""
    """The data set's configuration, where it has several."""
    part: str = "train"
    """The split of the data set that is read; it is split again here."""
    column: str = "text"
    """The column of text."""
    n_documents: int = 10_000
    """How many rows are read, from the first on."""
    sha256: str = ""
    """Of the text. Empty: that of the text found here, which becomes the setting."""

    def __post_init__(self) -> None:
        known = ("docs", "stdlib", "dataset")
        require(self.source in known, "source", self.source, f"one of {', '.join(map(repr, known))}")
        named = bool(self.dataset) == (self.source == "dataset")
        require(named, "dataset", self.dataset, "a name with source = 'dataset', and empty with another")
        require(self.lengths.max >= 2, "lengths", self.lengths.max, "at least 2 characters, the second to be predicted")
        if self.source != "dataset":
            for field in dataclasses.fields(self):
                if field.name in ("subset", "part", "column", "n_documents"):
                    value, default = getattr(self, field.name), field.default
                    require(value == default, field.name, value, f"{default!r} unless source = 'dataset'")
        require(self.n_documents >= 3, "n_documents", self.n_documents, "at least 3, one for each split")
        if not self.sha256:
            object.__setattr__(self, "sha256", self._read_text().sha256)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed; another text brings its own hash, unless one is given."""
        same_text = {"lengths", "sha256"}.issuperset(changes)
        return super().replace(**(changes if same_text else {"sha256": ""} | changes))

    def _read_text(self) -> Corpus:
        """The text as it is here."""
        if self.source == "dataset":
            return corpora.dataset(self.dataset, self.subset, self.part, self.column, self.n_documents)
        return corpora.docs() if self.source == "docs" else corpora.stdlib()

    @functools.cached_property
    def text(self) -> Corpus:
        """The documents; a ``ConfigError`` when the text found here is another one than the settings say."""
        corpus = self._read_text()
        here = f"{self.dataset or self.source} has {corpus.sha256[:12]}... here (Python {platform.python_version()})"
        require(corpus.sha256 == self.sha256, "sha256", f"{self.sha256[:12]}...", f"{here}, another text: another run")
        return corpus

    @property
    def token_names(self) -> tuple[str, ...]:
        return CHARACTER_NAMES

    @property
    def n_ctx(self) -> int:
        return self.lengths.max

    # ---- items and splits ------------------------------------------------------------------------------------------

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = np.zeros(len(lengths), dtype=np.int64)
        for length in np.unique(lengths).tolist():
            here, starts = lengths == length, self._windows(length)
            first[here] = starts[rng.integers(0, len(starts), size=int(here.sum()))]
        inside = np.arange(self.n_ctx) < lengths[:, None]
        index = np.where(inside, first[:, None] + np.arange(self.n_ctx), 0)
        return np.where(inside, self.text.tokens[index], self.pad).astype(np.int64), lengths

    def _windows(self, length: int) -> np.ndarray:
        starts = self._starts.get(length)
        if starts is None:
            for split in ("test", "validation", "train"):
                long_enough = len(self.text.of_split(split).windows(length)) > 0
                require(long_enough, "lengths", length, f"no longer than the longest document of the {split} split")
            starts = self._starts[length] = self.text.windows(length)
        return starts

    @functools.cached_property
    def _starts(self) -> dict[int, np.ndarray]:
        """The starts of all windows of a length, once they were asked for."""
        return {}

    def split_of(self, tokens: np.ndarray) -> np.ndarray:
        """The split (index into ``SPLITS``) of the documents that each window is in, int64 [item]; ``train`` for what
        is in none."""
        n_tokens = (tokens != self.pad).sum(axis=1)
        splits = np.full(len(tokens), list(SPLITS).index("train"), dtype=np.int64)
        for length in np.unique(n_tokens).tolist():
            here = np.flatnonzero(n_tokens == length)
            hashes = corpora.window_hashes(tokens[here, :length], length)[:, 0]
            for split in ("validation", "test"):  # test wins
                known = corpora.held_out(self.text, split, length)
                at = np.searchsorted(known, hashes).clip(max=len(known) - 1)
                splits[here[known[at] == hashes]] = list(SPLITS).index(split)
        return splits

    def oracle(self, question: list[str]) -> list[str]:
        raise ConfigError("language has no oracle: nothing decides which character comes next")

    # ---- what is known about an item -------------------------------------------------------------------------------

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        return np.arange(tokens.shape[1]) < n_tokens[:, None] - 1

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos, inside = np.arange(tokens.shape[1]), tokens != self.pad
        kinds = _CLASS_OF[tokens]
        is_word = inside & (kinds <= DIGIT)
        word_start = np.maximum.accumulate(np.where(is_word, 0, pos + 1), axis=1)
        newline = np.maximum.accumulate(np.where(tokens == NEWLINE, pos, -1), axis=1)
        before = np.pad(tokens[:, :-1], ((0, 0), (1, 0)))
        pair = np.where(inside & (pos > 0), before * self.d_vocab + tokens, UNDEFINED)
        repeat, rows = np.full(tokens.shape, UNDEFINED), np.arange(len(tokens))
        latest = np.full((len(tokens), self.d_vocab**2), UNDEFINED, dtype=np.int16 if self.n_ctx < 2**15 else np.int64)
        for p in range(1, tokens.shape[1]):
            is_pair = pair[:, p] != UNDEFINED
            repeat[:, p] = np.where(is_pair, latest[rows, pair[:, p]], UNDEFINED)
            latest[rows[is_pair], pair[is_pair, p]] = p
        return {
            "class": np.where(inside, kinds, UNDEFINED),
            "in_word": np.where(is_word, pos - word_start + 1, UNDEFINED),
            "column": np.where(inside & (newline >= 0), pos - newline, UNDEFINED),
            "repeat": repeat,
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos, in_word, repeat = np.arange(block.tokens.shape[1]), block.latents["in_word"], block.latents["repeat"]
        back = pos[:, None] - pos
        inside = (pos < block.n_tokens[:, None])[:, :, None]
        return {
            "previous": (back == 1) & inside,
            "word": (back > 0) & (back < in_word[:, :, None]),
            "induction": (repeat != UNDEFINED)[:, :, None] & (repeat[:, :, None] + 1 == pos),
        }

    # ---- predictors that are fitted to the text --------------------------------------------------------------------

    @functools.cached_property
    def _fitted(self) -> Trigram:
        return Trigram.fit(self.text.of_split("train"), self.d_vocab)

    def baselines(self, block: Items) -> dict[str, float]:
        """Token accuracy of what is most frequent in the documents of ``train``: alone, after one character, after two
        (at a window's first prediction after one)."""
        fitted, context = self._fitted, self._context(block)
        guesses = [np.full(len(context.target), fitted.unigram.argmax()), fitted.bigram.argmax(axis=-1)[context.before]]
        guesses.append(np.where(context.second == 0, guesses[1], fitted.trigram.argmax(axis=-1)[context[:2]]))
        return {
            name: float((guess == context.target).mean())
            for name, guess in zip(("most frequent character", "bigram", "trigram"), guesses, strict=True)
        }

    def baseline_losses(self, block: Items) -> dict[str, float]:
        fitted, context = self._fitted, self._context(block)
        bigram = fitted.bigram[context[1:]]
        trigram = np.where(context.second == 0, bigram, fitted.trigram[context])
        chances = {"most frequent character": fitted.unigram[context.target], "bigram": bigram, "trigram": trigram}
        return {name: float(-np.log(chance).mean()) for name, chance in chances.items()}

    def _context(self, block: Items) -> _Context:
        item, query = np.nonzero(block.scored)
        second = np.where(query > 0, block.tokens[item, query - 1], self.pad)
        return _Context(second, block.tokens[item, query], block.tokens[item, query + 1])


class _Context(NamedTuple):
    """What is predicted and what stands before it, each int64 [prediction]."""

    second: np.ndarray
    before: np.ndarray
    target: np.ndarray


def _class_of(token: int) -> int:
    name = CHARACTER_NAMES[token]
    if token in (NEWLINE, SPACE):
        return BLANK
    if token == OTHER or not name.isalnum():
        return PUNCTUATION
    return DIGIT if name.isdigit() else LETTER


_CLASS_OF = np.array([_class_of(token) for token in range(len(CHARACTER_NAMES))])
