"""Two heads: the first writes beside each token the one before it, the second matches the query to it.

This is the induction circuit that solves the haystack task, at a small size and at the one of the user's experiments.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from analyses.planted.codes import circle, gap, spherical_code
from analyses.planted.design import ANY, BALLAST, SHARPNESS, Axes, Design, HeadPlan, looks_back, match, prefer
from analyses.planted.family import Family
from analyses.planted.roles import Role
from mechproc.procedures.base import Items, Procedure
from mechproc.procedures.haystack import VALUE, Haystack
from mechproc.procedures.items import UNDEFINED
from mechproc.procedures.lengths import Fixed

SIZES = {"small": Haystack(lengths=Fixed(4), n_keys=6, n_values=8), "paper": Haystack()}
FLAG = 0.5
"""What values have, and other tokens have not, along the axis that says so, in units of a code's length."""


@dataclasses.dataclass(frozen=True)
class HaystackFamily(Family):
    """A previous-token head and, in a later layer, a head that matches keys."""

    kind: ClassVar[str] = "haystack"

    size: Literal["small", "paper"] = "small"
    """``small``: 4 pairs, 6 keys, 8 values; ``paper``: 1 to 30 pairs, 30 keys, 127 values."""

    def design(self, rng: np.random.Generator) -> Design:
        rule = SIZES[self.size]
        axes, dim = Axes(self.d_model), self.code_dim
        ballast, flag, place = axes.take(1)[0], axes.take(1)[0], axes.take(2)
        token, before, out = axes.take(dim), axes.take(dim), axes.take(dim)
        keys, values = spherical_code(rule.n_keys, dim, rng), spherical_code(rule.n_values, dim, rng)
        positions = circle(rule.n_ctx)
        first, second = self.place(rng, "head", "head")
        strength = SHARPNESS / gap(keys)
        # A value whose key is another one, and a key that stands behind a value like the query, both lose by SHARPNESS.
        is_value = prefer(ballast, strength + SHARPNESS / 2, value=(flag, SHARPNESS / FLAG / 2))
        plans = {
            first: HeadPlan(looks_back(place, ballast, rule.n_ctx, 1), token, before),
            second: HeadPlan((match(token, before, strength), is_value), token, out),
        }
        embed, logits = _embeddings(rule, self.d_model, keys @ token, values @ token, flag, ballast)
        value_0 = 1 + rule.n_keys
        logits[value_0 : value_0 + rule.n_values] = self.margin / gap(values) * values @ out
        both = {first: Role.CARRIES, second: Role.CARRIES}
        fetched = {**both, first: Role.NEEDED}
        roles = {ANY: both, "keys": both, "answer": fetched, "query": fetched}
        variables = {first: "keys", second: "value"}
        return Design(rule, axes, embed, positions @ place, plans, logits, roles, variables)

    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        if variable == "value":
            return source.targets[source.scored]
        asked = base.latents["asked_key"].max(axis=1)[:, None]
        there = (source.latents["role"] == VALUE) & (source.latents["key"] == asked)
        return np.where(there.any(1), base.tokens[np.arange(len(base)), there.argmax(1)], UNDEFINED)

    def pairs(self, contrast: str, procedure: Procedure, n: int, rng: np.random.Generator) -> tuple[Items, Items]:
        if contrast != "keys":
            return super().pairs(contrast, procedure, n, rng)
        clean, _ = procedure.minimal_pairs("query", n, seed=int(rng.integers(2**31)))
        return clean, swapped_keys(procedure, clean, rng)

    def describe(self, contrast: str, procedure: Procedure) -> str:
        if contrast == "keys":
            return "the key asked for and that of a pair with another value have changed places"
        return super().describe(contrast, procedure)


def swapped_keys(procedure: Procedure, items: Items, rng: np.random.Generator) -> Items:
    """Items in which the key asked for has changed places with that of a random pair of another value.

    Every item must have such a pair.
    """
    tokens, rows = items.tokens.copy(), np.arange(len(items))
    asked = items.latents["value_position"].max(axis=1)
    differs = (items.latents["role"] == VALUE) & (tokens != tokens[rows, asked][:, None])
    other = np.where(differs, rng.random(tokens.shape), -1.0).argmax(axis=1)
    tokens[rows, asked - 1], tokens[rows, other - 1] = items.tokens[rows, other - 1], items.tokens[rows, asked - 1]
    tokens[rows, items.n_tokens - 1] = tokens[rows, other]
    return procedure.annotate(tokens, items.n_tokens)


def _embeddings(
    rule: Haystack, d_model: int, keys: np.ndarray, values: np.ndarray, flag: np.ndarray, ballast: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, a key and its query alike, and zeros of the same shape."""
    embed = np.zeros((rule.d_vocab, d_model))
    embed[1:] = np.concatenate([keys - FLAG * flag, values + FLAG * flag, keys - FLAG * flag]) + BALLAST * ballast
    return embed, np.zeros_like(embed)
