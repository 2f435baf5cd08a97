"""What a procedure is: a rule that generates sequences and knows everything about them.

Rules (pretrained on) and tasks (tested on) are the same kind of thing. A subclass must say how contents are drawn
(``draw``), where the loss is (``scored``) and what follows from what (``oracle``). It may say what holds at each
position (``latents``), where heads should look (``attention_targets``) and how to change an item in one respect
(``perturbed``). Splits, blocks, ceilings, control labels and minimal pairs follow from that. numpy only.

Three promises hold for every procedure:

- a block of items is a pure function of (procedure, seed, split, block index, curriculum stage);
- an item of one split never equals an item of another: the split is decided by the item's content. Within a split,
  items of a small space repeat;
- everything that is known about an item (latents, scored positions, legal symbols) is computed from its tokens alone.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mechproc.config import Config, nearest
from mechproc.errors import ConfigError, require
from mechproc.procedures.examples import Example, PairKind
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import LengthDistribution
from mechproc.procedures.source import is_users, source_digest
from mechproc.procedures.splits import SPLITS, Split, content_hash, draw_split, generator

BLOCK_ITEMS = 1024
"""Items in one block."""
Role = Literal["rule", "control", "task"]
"""A rule to pretrain on, the control of one, or a task to transfer to."""
MOST_ITEMS = 1_000_000
"""Items that are drawn at once."""
_LENGTH_SAMPLE = 4096
"""Items that decide whether a split has items of a length."""


def names_a_file(name: object) -> bool:
    """Whether ``name`` has the form ``FILE.py:Class``."""
    return isinstance(name, str) and name.rpartition(":")[0].endswith(".py")


@dataclasses.dataclass(frozen=True)
class Procedure(Config, ABC):
    """Base of all procedures; see the module's docstring. ``kind`` is the procedure's name."""

    registry: ClassVar[dict[str, type[Config]] | None] = {}
    largest: ClassVar[int] = 1_000_000
    version: ClassVar[str] = "1.1.0"
    """Semantic version of what is generated, raised whenever any token, latent or scored position changes: the first
    number when the rule, its distribution or its splits are others, the second when other items of the same
    distribution are drawn."""
    role: ClassVar[Role] = "rule"
    """What the procedure is usually taken for; any of them can stand on either side of a transfer."""
    latent_names: ClassVar[dict[str, str]] = {}
    """Each latent with one line that says what it is and where it has a value."""
    ordinal_latents: ClassVar[tuple[str, ...]] = ()
    """The latents whose values have an order and a distance, such as counts and positions."""
    attention_target_names: ClassVar[dict[str, str]] = {}
    """Each attention target with one line: from which queries to which keys."""
    pair_kinds: ClassVar[dict[str, PairKind]] = {}
    length_unit: ClassVar[str] = "symbols"
    """What a length counts."""
    rule_known: ClassVar[bool] = True
    """Whether it is known what may come next. Of text it is not: then there is no ceiling, and ``oracle``,
    ``next_probabilities`` and ``legal_next`` refuse."""
    scored_unit: ClassVar[str] = "token"
    """What a scored token is; of a ``character`` losses are also given in bits."""
    small: ClassVar[dict[str, Any]] = {}
    """Settings under which an item fits on a line: of worked examples, ``mechproc procedure show`` and tests."""
    examples: ClassVar[tuple[Example, ...]] = ()

    load_from_file: ClassVar[Callable[[str], type[Procedure]]]
    """The class that a config names as ``FILE.py:Class``; set by ``mechproc.procedures.from_file``."""

    lengths: LengthDistribution

    # ---- what a subclass defines -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def token_names(self) -> tuple[str, ...]:
        """A readable name for each token, free of spaces, in token order; ``token_names[pad]`` is ``"_"``."""

    @property
    @abstractmethod
    def n_ctx(self) -> int:
        """Width of a block: tokens of the longest item."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One item of each length: tokens int64 [item, n_ctx] and n_tokens int64 [item]."""

    @abstractmethod
    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """bool [item, pos]: where the next token is trained and scored."""

    @abstractmethod
    def oracle(self, question: list[str]) -> list[str]:
        """The answer in plain Python, in token names: all that follows ``question``; slow and obvious.

        ``question`` is an item up to its ``answer_start``. A ``ConfigError`` where the rule is not known.
        """

    # ---- what a subclass may define --------------------------------------------------------------------------------

    @property
    def n_cells(self) -> int | None:
        """Cells of the vectors that the model reads in place of tokens and has one logit each for; ``None``: tokens."""
        return None

    def vectors(self, tokens: np.ndarray) -> np.ndarray | None:
        """The vectors behind the tokens, float32 [item, pos, cell], 0 or 1; zero in the padding. With ``n_cells``."""
        return None

    def answer_start(self, block: Items) -> np.ndarray:
        """Where the answer of each item starts, int64 [item]: from there on the tokens before decide every token.

        By default the first token that is scored; a rule that leaves a choice there says otherwise.
        """
        return block.scored.argmax(axis=1) + 1

    def next_probabilities(self, block: Items) -> np.ndarray:
        """P(next token | tokens so far) under the rule itself, float64 [item, pos, d_vocab].

        Rows of scored positions sum to one; what stands in the others is not defined. The rule's own length
        distribution (its last stage) is taken as known. By default what ``oracle`` says, item by item and therefore
        slowly.
        """
        probabilities = np.zeros((*block.tokens.shape, self.d_vocab))
        starts = self.answer_start(block).tolist()
        for i in np.flatnonzero(block.scored.any(axis=1)).tolist():
            question = [self.token_names[t] for t in block.tokens[i, : starts[i]].tolist()]
            for p, name in enumerate(self.oracle(question), starts[i] - 1):
                probabilities[i, p, self._token_of[name]] = 1.0
        return probabilities

    def baselines(self, block: Items) -> dict[str, float]:
        """Token accuracy (0 to 1, over the scored tokens of ``block``) of predictors that do not know the rule."""
        targets = block.targets[block.scored]
        return {"the most frequent token": float(np.bincount(targets).max() / len(targets))}

    def baseline_losses(self, block: Items) -> dict[str, float]:
        """Mean cross-entropy (nats per scored token) of those baselines that give probabilities."""
        return {}

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        """The latents named in ``latent_names``, each int64 [item, pos]; ``UNDEFINED`` in the padding."""
        return {}

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        """Where a head of a named function looks: bool [item, query, key] for each of ``attention_target_names``."""
        return {}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A random corrupt partner of each item for a kind of ``pair_kinds``: tokens, n_tokens, and which items have
        a partner at all (bool [item])."""
        raise NotImplementedError

    # ---- what follows from it --------------------------------------------------------------------------------------

    @classmethod
    def _member(cls, kind: Any) -> type[Config] | None:
        return cls.load_from_file(kind) if names_a_file(kind) else super()._member(kind)

    @property
    def source_version(self) -> str:
        """What identifies the rule beside its settings: the version, and of a user's own rule the digest of its source
        (``mechproc.procedures.source``), whatever its version says."""
        cls = type(self)
        if not is_users(cls) or names_a_file(self.kind):  # the version of a file's class has the digest
            return self.version
        return f"{self.version}+{source_digest(cls)[:12]}"

    @property
    def short_name(self) -> str:
        """``kind`` without the file that it may name: for folders, and for the random numbers behind the items."""
        return self.kind.rpartition(":")[2]

    @classmethod
    def small_version(cls, **settings: Any) -> Self:
        """The procedure with its ``small`` settings, ``settings`` over them."""
        return cls(**{**cls.small, **settings})

    @property
    def d_vocab(self) -> int:
        """Number of tokens, the padding included."""
        return len(self.token_names)

    @property
    def pad(self) -> int:
        """The padding token; 0 in every procedure."""
        return 0

    @functools.cached_property
    def _token_of(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.token_names)}

    def annotate(self, tokens: np.ndarray, n_tokens: np.ndarray | None = None, latents: bool = True) -> Items:
        """The items that these tokens are: latents and scored positions computed from the tokens alone.

        ``tokens``: whole numbers [item, pos], an array, a tensor or nested lists, padded at the end with ``pad``; rows
        shorter than ``n_ctx`` are padded. ``n_tokens`` [item]: tokens of each item, by default those before the
        padding. Items need not follow the rule. Errors: ``ConfigError`` for another shape or a token that is none.

        >>> rule = Set()
        >>> items = rule.annotate([[2, 3, 2, 1, 2, 3]])  # a b a | a b
        """
        rows = np.asarray(tokens)
        require(rows.ndim == 2 and len(rows) > 0, "shape of tokens", rows.shape, "[item, pos], one item or more")
        require(np.issubdtype(rows.dtype, np.integer), "dtype of tokens", rows.dtype, "whole numbers")
        require(rows.shape[1] <= self.n_ctx, "shape of tokens", rows.shape, f"at most n_ctx = {self.n_ctx} positions")
        low, high = int(rows.min()), int(rows.max())
        require(low >= 0 and high < self.d_vocab, "tokens", (low, high), f"0 to {self.d_vocab - 1}, the vocabulary")
        whole = np.pad(rows.astype(np.int64), ((0, 0), (0, self.n_ctx - rows.shape[1])), constant_values=self.pad)
        is_token = whole != self.pad
        before_padding = np.where(is_token.any(axis=1), self.n_ctx - is_token[:, ::-1].argmax(axis=1), 0)
        counts = before_padding if n_tokens is None else np.asarray(n_tokens).astype(np.int64)
        require(counts.shape == (len(rows),), "shape of n_tokens", counts.shape, f"[{len(rows)}], one for each item")
        return self._annotated(whole, counts, latents)

    def _annotated(self, tokens: np.ndarray, n_tokens: np.ndarray, latents: bool = True) -> Items:
        values = self.latents(tokens, n_tokens) if latents else {}
        return Items(tokens, n_tokens, self.scored(tokens, n_tokens), values, self.vectors(tokens))

    def encode(self, texts: list[str]) -> Items:
        """Items, or their first part, written in token names with spaces between, such as ``"a b | a b"``.

        An item that breaks the rule is refused; ``annotate`` takes any tokens.
        """
        rows = []
        for text in texts:
            names = text.split()
            for name in names:
                if name not in self._token_of:
                    hint = nearest(name, self._token_of)
                    raise ConfigError(f"token {name!r} is not a token of {self.kind}{hint}")
            require(len(names) <= self.n_ctx, "item", text, f"at most {self.n_ctx} tokens")
            rows.append([self._token_of[n] for n in names])
        tokens = np.full((len(rows), self.n_ctx), self.pad, dtype=np.int64)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        block = self.annotate(tokens, np.array([len(r) for r in rows], dtype=np.int64))
        if self.rule_known:
            self._check(block, texts)
        return block

    def _check(self, block: Items, texts: list[str]) -> None:
        """Refuse an item that breaks the rule."""
        inside = np.arange(self.n_ctx) + 1 < block.n_tokens[:, None]
        targets = np.maximum(block.targets, 0)[..., None]
        broken = block.scored & inside & ~np.take_along_axis(self.legal_next(block), targets, axis=-1)[..., 0]
        for item, position in np.argwhere(broken)[:1].tolist():
            name = texts[item].split()[position + 1]
            reason = f"{name!r} may not stand at position {position + 1}"
            raise ConfigError(f"item {texts[item]!r} breaks the rule of {self.kind}: {reason}")

    def decode(self, block: Items) -> list[str]:
        """Each item in token names, without its padding."""
        return [
            " ".join(self.token_names[t] for t in row[:n])
            for row, n in zip(block.tokens.tolist(), block.n_tokens.tolist(), strict=True)
        ]

    def equivalence_class(self, tokens: np.ndarray) -> np.ndarray:
        """What decides each item's split, int64 [item, number]: items with equal rows fall into the same split.

        By default the item itself. A rule whose items have twins that answer each other, such as ``a + b`` and
        ``b + a``, gives twins equal rows, so that no test item has its twin in training.
        """
        return tokens

    def split_of(self, tokens: np.ndarray) -> np.ndarray:
        """The split (index into ``SPLITS``) that each item belongs to by its class, int64 [item]."""
        edges = np.cumsum(list(SPLITS.values()))[:-1]
        return np.searchsorted(edges, content_hash(self.equivalence_class(tokens)) / 2.0**64, side="right")

    def block(self, seed: int, split: Split, index: int, stage: int | None = None, latents: bool = True) -> Items:
        """Items ``index`` of ``BLOCK_ITEMS`` items: a pure function of its arguments and the procedure.

        Without ``latents``, which training does not read, it takes half to two thirds of the time.
        """
        require(split in SPLITS, "split", split, f"one of {', '.join(SPLITS)}")
        require(index >= 0, "index", index, "0 or more")
        last_stage = self.lengths.n_stages - 1
        stage = last_stage if stage is None else stage
        require(0 <= stage <= last_stage, "stage", stage, f"0 to {last_stage}")
        rng = generator(self.short_name, self.version, int(seed), split, int(index), int(stage))
        return self._annotated(*draw_split(self, rng, BLOCK_ITEMS, split, stage), latents)

    def items(self, n: int, *, seed: int = 0, split: Split = "test", start: int = 0, stage: int | None = None) -> Items:
        """Items ``start`` to ``start + n`` of the endless stream that the blocks of (seed, split, stage) make."""
        require(1 <= n <= MOST_ITEMS, "n", n, f"1 to {MOST_ITEMS:,}")
        require(start >= 0, "start", start, "0 or more")
        first, last = start // BLOCK_ITEMS, (start + n - 1) // BLOCK_ITEMS
        whole = Items.join([self.block(seed, split, i, stage) for i in range(first, last + 1)])
        return whole.take(slice(start - first * BLOCK_ITEMS, start - first * BLOCK_ITEMS + n))

    def legal_next(self, block: Items) -> np.ndarray:
        """Symbols that may follow, bool [item, pos, d_vocab]; all False where nothing is scored."""
        return (self.next_probabilities(block) > 0) & block.scored[..., None]

    def ceiling(self, block: Items) -> float | None:
        """Best attainable token accuracy on ``block``, 0 to 1: expected of a predictor that guesses the rule's mode;
        ``None`` where the rule is not known."""
        if not self.rule_known:
            return None
        require(bool(block.scored.any()), "items", len(block), "some with a scored position")
        total = 0.0
        for start in range(0, len(block), 256):  # the probabilities of all items at once can take gigabytes
            total += float(self._best_chances(block.take(slice(start, start + 256))).sum())
        return total / int(block.scored.sum())

    def _best_chances(self, block: Items) -> np.ndarray:
        """How likely the best guess is right at each scored position, 0 to 1, float64 [scored position]."""
        return self.next_probabilities(block)[block.scored].max(axis=-1)

    def control_labels(self, block: Items, latent: str, seed: int = 0) -> np.ndarray:
        """Labels for a control probe (Hewitt and Liang 2019): a random value for each token, fixed by ``seed``.

        int64 [item, pos]; the values are drawn from those that ``latent`` takes in ``block``, with its frequencies, and
        are undefined where it is. A probe that learns these as well as the latent shows its own capacity only.
        """
        if latent not in block.latents:
            known = ", ".join(block.latents)
            raise ConfigError(f"latent {latent!r} is not one of {known}{nearest(latent, block.latents)}")
        values = block.latents[latent]
        defined = values != UNDEFINED
        pool = np.sort(values[defined])
        require(len(pool) > 0, "latent", latent, "a latent with a value somewhere in the block")
        rng = generator("control", latent, int(seed))
        label_of_token = pool[rng.integers(0, len(pool), size=self.d_vocab)]
        return np.where(defined, label_of_token[block.tokens], UNDEFINED)

    def minimal_pairs(self, kind: str, n: int, *, seed: int = 0, split: Split = "test") -> tuple[Items, Items]:
        """``n`` pairs (clean, corrupt) of one kind; row i of one is the partner of row i of the other."""
        if kind not in self.pair_kinds:
            known = ", ".join(self.pair_kinds) + nearest(kind, self.pair_kinds)
            raise ConfigError(f"pair kind {kind!r} of {self.kind} is not one of {known}")
        require(n >= 1, "n", n, "at least 1")
        rng = generator("pairs", self.short_name, self.version, kind, int(seed), split)
        clean, corrupt, n_found, index = [], [], 0, 0
        # Drawing stops where a kind gives less than one pair in a hundred items.
        while n_found < n and BLOCK_ITEMS * index < 100 * n + 16 * BLOCK_ITEMS:
            block = self.block(seed, split, index)
            partner, exists = self._partners(kind, rng, block, split)
            clean.append(block.take(exists))
            corrupt.append(partner.take(exists))
            n_found, index = n_found + int(exists.sum()), index + 1
        if n_found < n:
            seen = f"{n_found} in {index * BLOCK_ITEMS} items"
            raise ConfigError(
                f"{n} pairs of kind {kind!r} cannot be drawn from {self.kind} with these settings: {seen}"
            )
        return Items.join(clean).take(slice(n)), Items.join(corrupt).take(slice(n))

    def _partners(self, kind: str, rng: np.random.Generator, block: Items, split: str) -> tuple[Items, np.ndarray]:
        """A partner for each item from the item's own split, and which items got one."""
        tokens, n_tokens = block.tokens.copy(), block.n_tokens.copy()
        exists = np.zeros(len(block), dtype=bool)
        for _ in range(16):  # the test split is a sixteenth of the space: most partners fall outside
            missing = np.flatnonzero(~exists)
            if len(missing) == 0:
                break
            candidates, candidates_n, possible = self.perturbed(kind, rng, block.take(missing))
            if not possible.any():
                break
            good = possible & (self.split_of(candidates) == list(SPLITS).index(split))
            tokens[missing[good]], n_tokens[missing[good]] = candidates[good], candidates_n[good]
            exists[missing[good]] = True
        return self.annotate(tokens, n_tokens), exists

    def _lengths_in(self, split: str, stage: int | None) -> np.ndarray:
        """The lengths of which the split has items, as far as a sample shows, int64 [length]."""
        occurring = []
        for length in self.lengths.support(stage).tolist():
            if (split, length) not in self._occurs:
                rng = generator("lengths", self.short_name, self.version, split, length)
                sample, _ = self.draw(rng, np.full(_LENGTH_SAMPLE, length))
                self._occurs[split, length] = bool((self.split_of(sample) == list(SPLITS).index(split)).any())
            if self._occurs[split, length]:
                occurring.append(length)
        if not occurring:
            raise ConfigError(
                f"{self.kind} with these settings has too few different items: the {split} split is empty"
            )
        return np.array(occurring, dtype=np.int64)

    @functools.cached_property
    def _occurs(self) -> dict[tuple[str, int], bool]:
        """Whether a split has items of a length, as far as it was asked for."""
        return {}
