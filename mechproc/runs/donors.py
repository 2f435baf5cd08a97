"""Donors that are not trained by the study: a pretrained model that ships with mechproc, or a model file.

Both are identified by the digest of their weights, so that a run whose donor is one of them is another run when the
weights are others, and the same run wherever the file stands. The other donors are runs (``mechproc.runs.config``).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from mechproc.config import Config
from mechproc.errors import StoreError, require
from mechproc.model.config import ModelConfig
from mechproc.model.io import load_model
from mechproc.model.state import State, weights_digest


@dataclasses.dataclass(frozen=True)
class FixedWeights(Config):
    """Base of donors whose weights exist already. They are read once, when the donor is made, to learn their digest."""

    needs: ClassVar[tuple[()]] = ()
    """Such a donor needs no run."""

    weights_sha256: str = dataclasses.field(default="", kw_only=True)
    """Digest of config and weights, SHA-256; filled in when it is empty, else the weights must have it."""

    def __post_init__(self) -> None:
        cfg, state = self.read()
        object.__setattr__(self, "_model", cfg)
        sha256 = weights_digest(cfg, state)
        if not self.weights_sha256:
            object.__setattr__(self, "weights_sha256", sha256)
        if sha256 != self.weights_sha256:
            raise StoreError(
                f"weights_sha256 = {self.weights_sha256[:12]}... is not allowed: {self.label} has weights of the "
                f"digest {sha256[:12]}..."
            )

    @property
    def model(self) -> ModelConfig:
        """The model's shape."""
        return vars(self)["_model"]

    @property
    def identity(self) -> str:
        """64 hexadecimal digits: the digest of the weights."""
        return self.weights_sha256

    @property
    def label(self) -> str:
        """What the donor is called in tables and messages."""
        raise NotImplementedError

    def read(self) -> tuple[ModelConfig, State]:
        """Config and weights; a ``StoreError`` or ``ConfigError`` where there are none."""
        raise NotImplementedError

    def weights(self, store: object = None) -> tuple[ModelConfig, State]:
        """Config and weights, with the digest that they had when the donor was made; no store is needed."""
        cfg, state = self.read()
        if weights_digest(cfg, state) != self.weights_sha256:
            raise StoreError(f"{self.label} has changed since the donor was made: it has other weights now")
        return cfg, state


@dataclasses.dataclass(frozen=True)
class ShippedModel(FixedWeights):
    """A pretrained model that ships with mechproc, as ``mechproc.load_pretrained`` gives it."""

    rule: str
    seed: int
    step: int | None = None
    """Updates made; ``None`` stands for the last."""

    @property
    def label(self) -> str:
        return f"{self.rule}, seed {self.seed}" + ("" if self.step is None else f", step {self.step}")

    def read(self) -> tuple[ModelConfig, State]:
        from mechproc.pretrained import pretrained_weights

        return pretrained_weights(self.rule, self.seed, self.step)


@dataclasses.dataclass(frozen=True)
class ModelFile(FixedWeights):
    """A model file, as ``mechproc.save_model`` and ``mechproc model import`` write it."""

    file: str
    """Path of the file; a relative one starts at the working folder."""

    def __post_init__(self) -> None:
        require(bool(self.file), "file", self.file, "the path of a model file")
        super().__post_init__()

    @property
    def seed(self) -> None:
        """A file says nothing of its seed."""

    @property
    def label(self) -> str:
        return self.file

    def read(self) -> tuple[ModelConfig, State]:
        cfg, state, _ = load_model(Path(self.file))
        return cfg, state
