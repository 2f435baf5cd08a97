"""A family of planted models: everything that its members share, and what is drawn anew for each."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np

from analyses.planted.design import Design
from analyses.planted.roles import Role
from mechproc.config import Config
from mechproc.errors import require
from mechproc.model.config import ModelConfig
from mechproc.model.state import State
from mechproc.procedures.base import Items, Procedure

if TYPE_CHECKING:
    from analyses.planted.planting import Planting


@dataclasses.dataclass(frozen=True)
class Family(Config, ABC):
    """Base of all families; ``kind`` is the family's name."""

    registry: ClassVar[dict[str, type[Config]] | None] = {}
    min_width: ClassVar[int] = 16
    """The least ``d_model`` at which plantings were accepted."""
    trap: ClassVar[bool] = False
    """Whether the family is made to mislead some methods."""
    idle_role: ClassVar[Role | None] = None
    """What the parts without a task are; ``None``: what ``distractors`` says."""

    d_model: int = 16
    n_layers: int = 2
    n_heads: int = 4
    distractors: Literal["mixed", "ones", "junk"] = "mixed"
    """Where parts without a task write: ``ones``, along the all-ones vector, which every LayerNorm removes; ``junk``,
    where nothing reads, so that only LayerNorms' scales depend on it; ``mixed``, one of the two for each part."""
    margin: float = 12.0
    """By how much the right logit exceeds all others, in nats. A small one makes a graded, unsaturated model."""
    n_items: int = 512
    """Test items that a planting is judged on, and that it offers to analyses."""

    def __post_init__(self) -> None:
        require(self.d_model >= self.min_width, "d_model", self.d_model, f"at least {self.min_width}")
        require(self.n_layers >= 2, "n_layers", self.n_layers, "at least 2")
        require(self.n_heads >= 4, "n_heads", self.n_heads, "at least 4")
        require(self.margin > 0, "margin", self.margin, "above 0")
        require(self.n_items >= 16, "n_items", self.n_items, "at least 16")

    @property
    def code_dim(self) -> int:
        """Axes that a code of tokens takes: 3 at width 16, 6 at 32, at most as many as a head can move."""
        return min(3 * self.d_model // 16, self.d_model // self.n_heads - 1)

    @abstractmethod
    def design(self, rng: np.random.Generator) -> Design:
        """One member, its rule and the places of its parts drawn from ``rng``."""

    @abstractmethod
    def interchanged(self, variable: str, procedure: Procedure, base: Items, source: Items) -> np.ndarray:
        """The answer to each item of ``base`` when a variable has its value of ``source``: a token, int64 [item];
        ``UNDEFINED`` where the planted mechanism leaves it open."""

    def pairs(self, contrast: str, procedure: Procedure, n: int, rng: np.random.Generator) -> tuple[Items, Items]:
        """The clean and corrupt items of a contrast: by default the procedure's minimal pairs of that kind."""
        return procedure.minimal_pairs(contrast, n, seed=int(rng.integers(2**31)))

    def describe(self, contrast: str, procedure: Procedure) -> str:
        """One line on what a contrast changes."""
        return procedure.pair_kinds[contrast].description

    def failures(self, planting: Planting) -> list[str] | None:
        """The criteria that a planting fails, of a family that has its own; ``None``: the usual ones apply."""
        return None

    def finish(self, design: Design, cfg: ModelConfig, state: State, rng: np.random.Generator) -> State:
        """What is done to the weights after they are assembled and disguised; by default nothing."""
        return state

    def config(self, procedure: Procedure) -> ModelConfig:
        """The shape of the models."""
        return ModelConfig(
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            d_model=self.d_model,
            n_ctx=procedure.n_ctx,
            d_vocab=procedure.d_vocab,
        )

    def place(self, rng: np.random.Generator, *kinds: Literal["head", "mlp"]) -> list[str]:
        """Random places for parts that work one after the other, in the order of the forward pass.

        A head that follows a part is in a later layer; an MLP may be in the layer of the head that it follows.
        """
        while True:
            layers = sorted(rng.integers(0, self.n_layers, len(kinds)).tolist())
            steps = zip(kinds, kinds[1:], layers, layers[1:], strict=False)
            if all(later > earlier or (a, b) == ("head", "mlp") for a, b, earlier, later in steps):
                return [
                    f"L{layer}.mlp" if kind == "mlp" else f"L{layer}.H{rng.integers(self.n_heads)}"
                    for kind, layer in zip(kinds, layers, strict=True)
                ]


def families() -> dict[str, type[Family]]:
    """Every family by its kind."""
    import analyses.planted.families  # noqa: F401  defines them

    return {kind: cast(type[Family], member) for kind, member in (Family.registry or {}).items()}
