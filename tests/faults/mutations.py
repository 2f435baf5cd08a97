"""Hypothesis strategies: JSON of any shape, and valid JSON with a few changes anywhere in it."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

TEXTS = (
    "",
    " ",
    "a\0b",
    "\x1b[2J",
    "a\nb",
    "\ud800",
    "é",
    "\u2028",
    "9" * 400,
    "x" * 5000,
    "attn - L0.H2",
    "steps to 0.5",
)
TEXTS += tuple(
    [
        "..",
        "../../precious",
        "/dev/zero",
        "~",
        "evil.py:Evil",
        "evil.py",
        "set",
        "haystack",
        "k-dyck",
        "shuffled",
        "language",
        "attn",
        "L0.H0",
        "L1.mlp.N3",
        "L99999999999999999999.H0",
        "all",
        "NaN",
        "1e400",
        "-1",
        "cpu",
        "cuda:99",
        "set:0..3",
        "*",
        "{}",
        "[",
        "accuracy",
        "fixed",
        "uniform",
        "curriculum",
        "donor",
        "random",
        "LN",
        "vectors",
        "tokens",
        "copy",
    ]
)
INTEGERS = (-1, 0, 1, 2, 3, 7, 255, 256, 999, 1001, 10**5, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**20, -(2**63))
INTEGERS += (10**400,)
FLOATS = (0.0, -0.0, 0.5, 1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=12))
integers = st.one_of(st.integers(-2, 40), st.sampled_from(INTEGERS))
floats = st.one_of(st.sampled_from(FLOATS), st.floats(), st.floats(0, 1))
numbers = integers | floats
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=6)


def places(plain: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in JSON, the whole included."""
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    return [here, *(place for key, value in inner for place in places(value, (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn, bases: list[Any]) -> Any:
    """One of these values with up to three changes: a value replaced, left out, added, or moved from elsewhere."""
    whole = {"": copy.deepcopy(draw(st.sampled_from(bases)))}
    for _ in range(draw(st.integers(1, 3))):
        found = places(whole[""], ("",))
        found = found[draw(st.sampled_from([0, 1, 1, 1])) :] or found  # seldom the whole
        *outer, last = draw(st.sampled_from(found))
        holder: Any = whole
        for key in outer:
            holder = holder[key]
        change = draw(st.sampled_from(["nudge", "nudge", "nudge", "replace", "remove", "add", "move", "deepen"]))
        if change == "nudge" and isinstance(holder[last], (bool, int, float, str)):
            kind = type(holder[last])
            holder[last] = draw({bool: st.booleans(), int: integers, float: floats, str: texts}[kind])
        elif change == "remove" and outer:
            del holder[last]
        elif change == "add" and isinstance(holder[last], dict):
            holder[last][draw(texts)] = draw(values)
        elif change == "add" and isinstance(holder[last], list):
            holder[last].append(draw(values))
        elif change == "move":
            value: Any = whole
            for key in draw(st.sampled_from(found)):
                value = value[key]
            holder[last] = copy.deepcopy(value)
        elif change == "deepen":
            for _ in range(draw(st.sampled_from([1, 30, 70]))):
                holder[last] = [holder[last]]
        else:
            holder[last] = draw(values)
    return whole[""]


@st.composite
def spoiled(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """The bytes of a file, cut off, with bytes changed, or with some of it twice."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        change = draw(st.sampled_from(["byte", "cut", "insert", "repeat"]))
        if change == "cut":
            del content[at : at + draw(st.integers(1, 64))]
        elif change == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif change == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        else:
            content[at:at] = content[at : at + 200]
    return bytes(content)


WORDS = [
    "attn",
    "mlp",
    "ln",
    "embed",
    "pos",
    "unembed",
    "all",
    "+",
    "-",
    "L0",
    "L1.H2",
    "L0.H2.QK",
    "L0.ln1",
    "ln_final",
    "L1.mlp.N17",
    ".",
    "L",
    "H",
    "N",
    "(",
    ")",
    "*",
]
parts = st.lists(st.sampled_from(WORDS) | texts, max_size=12).map(" ".join)
"""Expressions that name parts, and what looks like some."""
