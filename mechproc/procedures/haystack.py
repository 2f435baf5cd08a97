"""Look up a value by its key: the task that induction heads solve.

An item lists n key-value pairs with distinct keys, then names one of the keys by that key's own query symbol; the value
follows. The one scored token is that value: ``k2 v5 k0 v1 q2 [v5]``. At the default sizes this is the haystack task of
arXiv 2505.22308 (which pads the 62 tokens of the longest item to 63).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import Example, PairKind, Procedure, Role
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import LengthDistribution, Uniform

KEY, VALUE, QUERY, ANSWER = range(4)
"""The values of the latent ``role``."""


@dataclasses.dataclass(frozen=True)
class Haystack(Procedure):
    """``k1 v1 ... kn vn`` with distinct keys, a query for one of them, its value. Lengths count pairs.

    Values are drawn independently: two keys of an item may have the same value.
    """

    kind: ClassVar[str] = "haystack"
    role: ClassVar[Role] = "task"
    length_unit: ClassVar[str] = "key-value pairs"
    latent_names: ClassVar[dict[str, str]] = {
        "role": "0 key, 1 value, 2 query, 3 answer; at every token",
        "pair": "index of the pair, from 0; at keys and values",
        "key": "which key (k0 is 0); at keys, and at values, where it is the key before",
        "value": "which value (v0 is 0); at values",
        "n_pairs": "number of pairs; at the query",
        "asked_key": "which key is asked for; at the query",
        "asked_pair": "index of the pair asked for; at the query",
        "answer": "which value is asked for; at the query",
        "copies": "how many pairs have the value asked for; at the query",
        "key_position": "position of the key asked for; at the query",
        "value_position": "position of the value asked for; at the query",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = (
        "pair",
        "n_pairs",
        "asked_pair",
        "copies",
        "key_position",
        "value_position",
    )
    attention_target_names: ClassVar[dict[str, str]] = {
        "answer": "from the query to the value asked for",
        "key": "from the query to the key asked for",
        "previous": "from each value to its key, the token before: the first step of an induction circuit",
        "any value": "from the query to every value: copying without looking up",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "answer": PairKind(
            "the pair asked for has another value, one that no pair had",
            changes=("value", "answer"),
            holds=(
                *("role", "pair", "key", "n_pairs", "asked_key", "asked_pair", "copies"),
                *("key_position", "value_position"),
            ),
        ),
        "query": PairKind(
            "another key of the same context is asked for, and has another value",
            changes=("asked_key", "asked_pair", "answer", "key_position", "value_position"),
            holds=("role", "pair", "key", "value", "n_pairs", "copies"),
        ),
        "order": PairKind(
            "the pair asked for has changed places with another; the answer stays",
            changes=("key", "value", "asked_pair", "key_position", "value_position"),
            holds=("role", "pair", "n_pairs", "asked_key", "answer", "copies"),
        ),
        "distractor value": PairKind(
            "a pair not asked for has another value, one that no pair had; the answer stays",
            changes=("value",),
            holds=(
                *("role", "pair", "key", "n_pairs", "asked_key", "asked_pair", "answer", "copies"),
                *("key_position", "value_position"),
            ),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"n_keys": 6, "n_values": 8, "lengths": Uniform(1, 4)}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "k2 v5 k0 v1 q2 v5",
            "v5",
            {
                "role": (0, 1, 0, 1, 2, 3),
                "pair": (0, 0, 1, 1, -1, -1),
                "key": (2, 2, 0, 0, -1, -1),
                "value": (-1, 5, -1, 1, -1, -1),
                "answer": (-1, -1, -1, -1, 5, -1),
                "key_position": (-1, -1, -1, -1, 0, -1),
            },
        ),
        Example(
            "k1 v3 k4 v3 k0 v7 q4 v3",
            "v3",
            {
                "asked_key": (-1, -1, -1, -1, -1, -1, 4, -1),
                "asked_pair": (-1, -1, -1, -1, -1, -1, 1, -1),
                "value_position": (-1, -1, -1, -1, -1, -1, 3, -1),
                "copies": (-1, -1, -1, -1, -1, -1, 2, -1),
            },
        ),
        Example("k5 v0 q5 v0", "v0", {"n_pairs": (-1, -1, 1, -1)}),
    )

    lengths: LengthDistribution = Uniform(1, 30)
    n_keys: int = 30
    """Different keys, each with a query symbol of its own."""
    n_values: int = 127
    """Different values."""

    def __post_init__(self) -> None:
        require(self.n_keys >= 1, "n_keys", self.n_keys, "at least 1")
        require(self.n_values >= 2, "n_values", self.n_values, "at least 2")
        longest = self.lengths.max
        require(
            longest <= self.n_keys, "lengths", self.lengths, f"at most n_keys = {self.n_keys} pairs, keys are distinct"
        )

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        keys, values = range(self.n_keys), range(self.n_values)
        return ("_", *(f"k{i}" for i in keys), *(f"v{i}" for i in values), *(f"q{i}" for i in keys))

    @property
    def n_ctx(self) -> int:
        return 2 * self.lengths.max + 2

    @property
    def _key_0(self) -> int:
        return 1

    @property
    def _value_0(self) -> int:
        return 1 + self.n_keys

    @property
    def _query_0(self) -> int:
        return 1 + self.n_keys + self.n_values

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n_items, n_pairs = len(lengths), self.lengths.max
        keys = rng.random((n_items, self.n_keys)).argsort(axis=1)[:, :n_pairs]
        values = rng.integers(0, self.n_values, size=(n_items, n_pairs))
        asked = rng.integers(0, lengths)
        tokens = np.zeros((n_items, self.n_ctx), dtype=np.int64)
        tokens[:, : 2 * n_pairs : 2] = self._key_0 + keys
        tokens[:, 1 : 2 * n_pairs : 2] = self._value_0 + values
        tokens[np.arange(self.n_ctx) >= 2 * lengths[:, None]] = self.pad
        rows = np.arange(n_items)
        tokens[rows, 2 * lengths] = self._query_0 + keys[rows, asked]
        tokens[rows, 2 * lengths + 1] = self._value_0 + values[rows, asked]
        return tokens, 2 * lengths + 2

    def _is_query(self, tokens: np.ndarray) -> np.ndarray:
        return tokens >= self._query_0

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        return self._is_query(tokens) & (np.arange(self.n_ctx) < n_tokens[:, None] - 1)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos, rows = np.arange(self.n_ctx), np.arange(len(tokens))
        is_query = self._is_query(tokens)
        has_query = is_query.sum(axis=1) > 0
        query = np.where(has_query, is_query.argmax(axis=1), n_tokens)
        in_pairs, even, is_key = pos < query[:, None], pos % 2 == 0, tokens < self._value_0
        at_key = in_pairs & even & is_key & (tokens != self.pad)
        at_value = in_pairs & ~even & ~is_key
        at_answer = (pos == query[:, None] + 1) & (pos < n_tokens[:, None])
        at_query = has_query[:, None] & (pos == query[:, None])

        asked_key = tokens[rows, np.minimum(query, self.n_ctx - 1)] - self._query_0
        matches = at_key & (tokens == asked_key[:, None] + self._key_0)
        # An item that asks for a key it lacks, or has twice, breaks the rule: no value is asked for in it.
        sound = has_query & (matches.sum(axis=1) == 1)
        key_position = matches.argmax(axis=1)
        answer_token = tokens[rows, key_position + 1]
        copies = (at_value & (tokens == answer_token[:, None])).sum(axis=1)
        key_here_or_before = np.where(at_value, np.roll(tokens, 1, axis=1), tokens)  # column 0 has no value

        def of_query(value: np.ndarray, items: np.ndarray) -> np.ndarray:
            """``value`` [item] at the query of ``items`` (bool [item])."""
            latent = np.full_like(tokens, UNDEFINED)
            latent[rows[items], query[items]] = value[items]
            return latent

        return {
            "role": np.select([at_key, at_value, at_query, at_answer], [KEY, VALUE, QUERY, ANSWER], UNDEFINED),
            "pair": np.where(at_key | at_value, pos // 2, UNDEFINED),
            "key": np.where(at_key | at_value, key_here_or_before - self._key_0, UNDEFINED),
            "value": np.where(at_value, tokens - self._value_0, UNDEFINED),
            "n_pairs": of_query(query // 2, has_query),
            "asked_key": of_query(asked_key, has_query),
            "asked_pair": of_query(key_position // 2, sound),
            "answer": of_query(answer_token - self._value_0, sound),
            "copies": of_query(copies, sound),
            "key_position": of_query(key_position, sound),
            "value_position": of_query(key_position + 1, sound),
        }

    def next_probabilities(self, block: Items) -> np.ndarray:
        probabilities = np.zeros((*block.tokens.shape, self.d_vocab))
        items, positions = np.nonzero(block.latents["answer"] != UNDEFINED)
        probabilities[items, positions, self._value_0 + block.latents["answer"][items, positions]] = 1.0
        return probabilities

    def baselines(self, block: Items) -> dict[str, float]:
        """Expected token accuracy of guessing without looking up.

        - ``a value at random``: any value at all;
        - ``a value of the context``: that of a pair drawn at random. Its chance to be the pair asked for, the mean of
          1/n, is 13.3 % at the default sizes; with other pairs that happen to have the same value it scores 14.0 %;
        - ``the most frequent value of the context``: the value of most pairs of the item, ties broken at random;
        - ``the last value``: the one just before the query.
        """
        block = block.take(block.scored.sum(axis=1) > 0)
        asked = block.latents["answer"].max(axis=1)
        values = block.latents["value"][:, 1:-1:2]
        real = values != UNDEFINED
        n_pairs = real.sum(axis=1)
        copies = (values == asked[:, None]).sum(axis=1)
        alike = ((values[:, :, None] == values[:, None, :]) & real[:, None, :]).sum(axis=2) * real
        most = alike.max(axis=1)
        n_modes = (alike == most[:, None]).sum(axis=1) / most
        last = values[np.arange(len(values)), n_pairs - 1]
        return {
            "a value at random": 1 / self.n_values,
            "a value of the context": float((copies / n_pairs).mean()),
            "the most frequent value of the context": float(((copies == most) / n_modes).mean()),
            "the last value": float((last == asked).mean()),
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(self.n_ctx)
        role = block.latents["role"]
        from_value, from_query = (role == VALUE)[:, :, None], (role == QUERY)[:, :, None]
        return {
            "answer": block.latents["value_position"][..., None] == pos,
            "key": block.latents["key_position"][..., None] == pos,
            "previous": from_value & (pos[:, None] == pos + 1),
            "any value": from_query & (role == VALUE)[:, None, :],
        }

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens, rows = block.tokens.copy(), np.arange(len(block))
        n_pairs, asked, copies = (block.latents[name].max(axis=1) for name in ("n_pairs", "asked_pair", "copies"))
        other = (asked + rng.integers(1, np.maximum(n_pairs, 2))) % n_pairs  # another pair where there are two
        answer = tokens[rows, 2 * asked + 1]
        other_value = tokens[rows, 2 * other + 1]
        differs = (n_pairs >= 2) & (other_value != answer)
        if kind in ("answer", "distractor value"):
            absent, exists = self._absent_value(rng, block)
            if kind == "answer":
                tokens[rows, 2 * asked + 1] = tokens[rows, 2 * n_pairs + 1] = absent
                return tokens, block.n_tokens, exists & (copies == 1)
            tokens[rows, 2 * other + 1] = absent
            return tokens, block.n_tokens, exists & differs
        if kind == "query":
            tokens[rows, 2 * n_pairs] = tokens[rows, 2 * other] - self._key_0 + self._query_0
            tokens[rows, 2 * n_pairs + 1] = other_value
            other_copies = (block.latents["value"] == other_value[:, None] - self._value_0).sum(axis=1)
            return tokens, block.n_tokens, differs & (other_copies == copies)
        for offset in (0, 1):
            there, here = 2 * other + offset, 2 * asked + offset
            tokens[rows, here], tokens[rows, there] = block.tokens[rows, there], block.tokens[rows, here]
        return tokens, block.n_tokens, differs

    def _absent_value(self, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray]:
        """For each item the token of a random value that no pair has, and whether there is one."""
        items, positions = np.nonzero(block.latents["value"] != UNDEFINED)
        rank = rng.random((len(block), self.n_values))
        rank[items, block.latents["value"][items, positions]] = -1.0
        return self._value_0 + rank.argmax(axis=1), rank.max(axis=1) >= 0

    def oracle(self, question: list[str]) -> list[str]:
        *context, query = question
        value_of = dict(zip(context[::2], context[1::2], strict=True))
        return [value_of[query.replace("q", "k")]]
