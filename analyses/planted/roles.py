"""What a part is to a contrast, and what each kind of method must say about it.

A contrast is a question: what changes the model's answer when a clean item is replaced by its corrupt partner. A part
has a role *for a contrast*, not once and for all: the head that finds the first summand is needed, and carries
nothing, when only the second summand changes.
"""

from __future__ import annotations

import enum
from typing import Any, Literal, cast, get_args

MethodKind = Literal[
    "zero", "mean", "resample", "patching", "attribution", "reading", "looking", "composing", "probing", "training"
]
"""What a method does, as far as it decides what can be found.

- ``zero``, ``mean``, ``resample``: ablation of one part, the partner being any other item of the same layout;
- ``patching``: activation or exact path patching along the clean and corrupt items of a contrast;
- ``attribution``: gradient times difference along the same pairs, integrated or not;
- ``reading``: methods that read activations and intervene nowhere (probes);
- ``looking``: methods that read attention patterns, of heads alone;
- ``composing``: methods that read which weights fit together, without any item;
- ``probing``: what a probe reads is replaced by what it reads in any other item of the same layout;
- ``training``: what a fresh model gains from a part of a donor.
"""
Expected = Literal["flags", "silent", "either"]


class Role(enum.Enum):
    """What a part is to a contrast; ``EXPECTED`` has what each kind of method must say."""

    CARRIES = "carries"
    """Its activation differs between clean and corrupt, and the answer follows it: every causal method must flag it."""
    NEEDED = "needed"
    """The answer depends on it, but what it does is the same in both items of a pair: ablation must flag it, whatever
    goes along the pair must be silent."""
    REDUNDANT = "redundant"
    """It carries, and another part carries the same: either is enough, so removing one shows nothing, while one that
    says something else contradicts its twin."""
    BACKED_UP = "backed up"
    """It carries, but a backup does its work once it writes nothing: silent under zeros, flagged by all else."""
    BACKUP = "backup"
    """It works only when the part that it backs up writes nothing: silent alone, whatever the method."""
    CANCELLING = "cancelling"
    """What it writes is undone by a second part. Removing one of the two uncovers the other and breaks the answer,
    though neither has to do with it. Along pairs that leave what they read unchanged both are silent."""
    CONSTANT = "constant"
    """It does the same in every item, and the answer needs that: only zeros (at a QK, a uniform pattern) show it."""
    DECOY = "decoy"
    """It holds the answer and writes it where nothing reads: causal methods must be silent, reading methods are not."""
    INERT_EXACT = "inert, exactly"
    """It writes along the all-ones vector, which every reader's LayerNorm removes: nothing it does reaches a logit."""
    INERT_NORM = "inert but for the norm"
    """It writes where nothing reads; only the scale of the readers' LayerNorms depends on it."""
    INERT_TRAINED = "inert by training"
    """It was trained to be without effect when it has another item's activation. Nothing was demanded of zeros."""
    RANDOM = "random"
    """Of a donor: random weights, which no training should profit from."""


ALARMS = frozenset({Role.DECOY, Role.INERT_EXACT, Role.INERT_NORM, Role.INERT_TRAINED, Role.RANDOM})
"""Roles whose flagging is a false alarm."""

_TABLE = """
              zero   mean   resample patching attribution reading looking composing probing training
CARRIES       flags  flags  flags    flags    flags       either  flags   flags     flags   flags
NEEDED        flags  flags  flags    silent   silent      either  flags   flags     either  either
REDUNDANT     silent silent flags    flags    flags       either  flags   flags     either  either
BACKED_UP     silent flags  flags    flags    flags       either  flags   flags     flags   either
BACKUP        silent silent silent   silent   silent      either  either  flags     silent  either
CANCELLING    flags  flags  flags    silent   silent      either  either  flags     either  either
CONSTANT      flags  silent silent   silent   silent      either  either  either    silent  either
DECOY         silent silent silent   silent   silent      flags   flags   silent    silent  either
INERT_EXACT   silent silent silent   silent   silent      either  silent  silent    silent  silent
INERT_NORM    silent silent silent   silent   silent      either  silent  silent    silent  silent
INERT_TRAINED silent silent silent   silent   silent      either  silent  silent    silent  silent
RANDOM        either either either   either   either      either  either  either    either  silent
"""


def _expected(table: str) -> dict[Role, dict[MethodKind, Expected]]:
    """The cells of a table whose columns are kinds of methods."""
    kinds, *rows = (line.split() for line in table.strip().splitlines())
    assert kinds == list(get_args(MethodKind))
    return {Role[name]: cast(Any, dict(zip(kinds, words, strict=True))) for name, *words in rows}


EXPECTED = _expected(_TABLE)
"""What a method of each kind must say of a part of each role. Zeros at a QK are undefined: that cell means nothing."""


def is_hit(role: Role, kind: MethodKind) -> bool:
    """Whether flagging a part of this role counts as a hit: it carries or is needed, and the method can see that."""
    return role in (Role.CARRIES, Role.NEEDED) and EXPECTED[role][kind] == "flags"
