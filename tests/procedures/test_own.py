"""Procedures that somebody defines outside of mechproc."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from mechproc.errors import ConfigError
from mechproc.procedures import Fixed, LengthDistribution, Procedure, Uniform, get, procedures


def test_a_procedure_of_ones_own_is_known_at_once(monkeypatch):
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))

    @dataclasses.dataclass(frozen=True)
    class Last(Procedure):
        """``x1 .. xL | xL``: the last symbol again."""

        kind: ClassVar[str] = "last"
        lengths: LengthDistribution = Uniform(2, 6)
        token_names = ("_", "|", *"abcdefgh")

        @property
        def n_ctx(self) -> int:
            return self.lengths.max + 2

        def draw(self, rng, lengths):
            pos, end = np.arange(self.n_ctx), lengths[:, None]
            symbols = rng.integers(2, self.d_vocab, size=(len(lengths), self.n_ctx))
            last = np.take_along_axis(symbols, end - 1, axis=1)
            tokens = np.where(pos < end, symbols, np.where(pos == end, 1, last))
            return np.where(pos < end + 2, tokens, self.pad), lengths + 2

        def scored(self, tokens, n_tokens):
            return tokens == 1

        def oracle(self, question):
            return question[-2:-1]

    assert get("last") is Last and list(procedures())[-1] == "last"
    assert Procedure.from_dict({"kind": "last", "lengths": {"kind": "fixed", "length": 5}}) == Last(Fixed(5))
    procedure = Last()
    block = procedure.block(0, "train", 0)
    for item in map(str.split, procedure.decode(block)):
        assert procedure.oracle(item[:-1]) == item[-1:]
    assert procedure.ceiling(block) == 1.0
    assert 1 / 8 < procedure.baselines(block)["the most frequent token"] < 1 / 5
    assert procedure.encode(["a b c | c"]).targets[0, 3] == procedure.token_names.index("c")
    with pytest.raises(ConfigError, match="'b' may not stand at position 4"):
        procedure.encode(["a b c | b"])


def test_a_procedure_that_lacks_its_rule_says_so(monkeypatch):
    monkeypatch.setattr(Procedure, "registry", dict(Procedure.registry or {}))

    @dataclasses.dataclass(frozen=True)
    class Nothing(Procedure):
        kind: ClassVar[str] = "nothing"

    with pytest.raises(TypeError, match=r"abstract method.*draw"):
        Nothing(Fixed(3))  # pyright: ignore[reportAbstractUsage]
