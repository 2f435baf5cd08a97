"""Elementary cellular automata: 110 by default, any of the 256 (numbered as by Wolfram 1983), on a ring of cells.

A new cell is a function of three old ones: the left neighbour, the cell above, the right neighbour. Two rules, never
pooled, because they ask for different things. ``eca`` writes the cells one after another, so that a model has to attend
to fixed distances; ``eca-vectors`` has a whole state at each position, so that an MLP alone suffices.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from mechproc.errors import require
from mechproc.procedures.base import SPLITS, Example, PairKind, Procedure
from mechproc.procedures.items import UNDEFINED, Items
from mechproc.procedures.lengths import LengthDistribution, Uniform

CELL_0 = 1
"""The token of a dead cell of a stream; that of a living one follows it."""
TABLE = "a table of the states in training, else the majority"
"""The baseline that knows what follows each state that training items go on from."""
MOST_CELLS = 12
"""Cells of a state vector: a residual stream of 16 has to carry them all."""


def next_state(cells: np.ndarray, number: int) -> np.ndarray:
    """The state after ``cells`` (0 or 1 [..., cell]) under rule ``number``, on a ring."""
    return (number >> neighbourhood(cells)) & 1


def neighbourhood(cells: np.ndarray) -> np.ndarray:
    """What decides each next cell, 0 to 7: 4 x left + 2 x above + right."""
    return 4 * np.roll(cells, 1, axis=-1) + 2 * cells + np.roll(cells, -1, axis=-1)


@dataclasses.dataclass(frozen=True)
class Automaton(Procedure):
    """What both forms share. Lengths count the states after the first, which is drawn uniformly.

    Items with the same first state are in the same split: one of them goes on as the other begins. That holds out
    items, not states: a later state of a training item may be the first one of a test item. The baseline that looks
    up the states of training items says how far memory alone goes; only a score above it speaks for the rule.
    """

    length_unit: ClassVar[str] = "states after the first"
    lengths: LengthDistribution = Uniform(2, 6)
    number: int = 110
    width: int = 16
    """Cells of a state."""

    def __post_init__(self) -> None:
        require(0 <= self.number <= 255, "number", self.number, "0 to 255")
        require(self.width >= 3, "width", self.width, "at least 3: a cell and two neighbours")

    def _history(self, first: np.ndarray) -> np.ndarray:
        """The longest history of first states (0 or 1 [item, cell]), int64 [item, time, cell]."""
        states = [first]
        for _ in range(self.lengths.max):
            states.append(next_state(states[-1], self.number))
        return np.stack(states, axis=1)

    def _flipped(self, rng: np.random.Generator, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First states [item, cell] with a random cell flipped, and which of them have another state after them."""
        flipped = first.copy()
        flipped[np.arange(len(first)), rng.integers(0, self.width, size=len(first))] ^= 1
        differs = next_state(flipped, self.number) != next_state(first, self.number)
        return flipped, differs.any(axis=1)

    def _number(self, cells: np.ndarray) -> np.ndarray:
        """States (0 or 1 [..., cell]) as binary numbers, first cell first: int64 [...]."""
        return cells @ (1 << np.arange(self.width, dtype=np.int64)[::-1])

    def _in_training(self, cells: np.ndarray) -> np.ndarray:
        """Which states [..., cell] training items go on from: bool [...]."""
        return np.isin(self._number(cells), self._training_states)

    @functools.cached_property
    def _training_states(self) -> np.ndarray:
        """The numbers of all states that training items go on from; beyond 16 cells those of 65,536 items."""
        if self.width <= 16:
            first = np.arange(2**self.width)[:, None] >> np.arange(self.width)[::-1] & 1
        else:
            first = np.random.default_rng(0).integers(0, 2, size=(2**16, self.width))
        first = first[self.split_of(self._first_tokens(first)) == list(SPLITS).index("train")]
        return np.unique(self._number(self._history(first)[:, :-1]))

    @abstractmethod
    def _first_tokens(self, cells: np.ndarray) -> np.ndarray:
        """The tokens of first states [item, cell]."""

    def _answer(self, state: list[int]) -> list[int]:
        """The state after ``state``, cell by cell from the rule's table."""
        table = {f"{i:03b}": (self.number >> i) & 1 for i in range(8)}
        ring = [state[-1], *state, state[0]]
        return [table["".join(map(str, ring[i : i + 3]))] for i in range(len(state))]


@dataclasses.dataclass(frozen=True)
class Eca(Automaton):
    """State after state, cell after cell, nothing between them: ``0 1 1 0 1 1 1 0 ...``."""

    kind: ClassVar[str] = "eca"
    latent_names: ClassVar[dict[str, str]] = {
        "cell": "0 or 1; at every cell",
        "column": "which cell of its state, from 0; at every cell",
        "time": "which state, 0 for the first; at every cell",
        "next": "the cell to be written next; where it is decided, from the last cell of the first state on",
        "left": "left neighbour of the cell to be written next, in the state before; there too",
        "above": "the same cell in the state before; there too",
        "right": "right neighbour, in the state before; there too",
        "neighbourhood": "4 x left + 2 x above + right; there too",
        "left_position": "position of left; there too",
        "above_position": "position of above; there too",
        "right_position": "position of right; there too",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("column", "time", "left_position", "above_position", "right_position")
    attention_target_names: ClassVar[dict[str, str]] = {
        "left": "from where a cell is decided to its left neighbour in the state before",
        "above": "from where a cell is decided to the same cell in the state before, a fixed distance",
        "right": "from where a cell is decided to its right neighbour in the state before",
        "neighbourhood": "from where a cell is decided to all three",
    }
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "cell": PairKind(
            "a cell of the first state flips, and cells of the next state with it",
            changes=("cell", "next", "left", "above", "right", "neighbourhood"),
            holds=("column", "time", "left_position", "above_position", "right_position"),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(1, 3), "width": 8}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "0 0 1 0 0 1 1 0",
            "0 1 1 0",
            {
                "cell": (0, 0, 1, 0, 0, 1, 1, 0),
                "column": (0, 1, 2, 3, 0, 1, 2, 3),
                "time": (0, 0, 0, 0, 1, 1, 1, 1),
                "next": (-1, -1, -1, 0, 1, 1, 0, -1),
                "left": (-1, -1, -1, 0, 0, 0, 1, -1),
                "above": (-1, -1, -1, 0, 0, 1, 0, -1),
                "right": (-1, -1, -1, 0, 1, 0, 0, -1),
                "neighbourhood": (-1, -1, -1, 0, 1, 2, 4, -1),
                "left_position": (-1, -1, -1, 3, 0, 1, 2, -1),
                "above_position": (-1, -1, -1, 0, 1, 2, 3, -1),
                "right_position": (-1, -1, -1, 1, 2, 3, 0, -1),
            },
            {"width": 4},
        ),
        Example("1 1 1 0 1 0 1 1 1 1 1 0", "1 0 1 1 1 1 1 0", {}, {"width": 4}),
        Example(
            "0 0 1 0 0 0 1 0 1 0",
            "0 1 0 1 0",
            {"neighbourhood": (-1,) * 4 + (0, 1, 2, 4, 0, -1)},
            {"number": 90, "width": 5},
        ),
    )

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        return ("_", "0", "1")

    @property
    def n_ctx(self) -> int:
        return self.width * (self.lengths.max + 1)

    def equivalence_class(self, tokens: np.ndarray) -> np.ndarray:
        """Items with one first state are of one split."""
        return tokens[:, : self.width]

    def _first_tokens(self, cells: np.ndarray) -> np.ndarray:
        return CELL_0 + cells

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens = CELL_0 + self._history(rng.integers(0, 2, size=(len(lengths), self.width))).reshape(len(lengths), -1)
        n_tokens = self.width * (lengths + 1)
        return np.where(np.arange(self.n_ctx) < n_tokens[:, None], tokens, self.pad), n_tokens

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        pos = np.arange(tokens.shape[1])
        return (pos >= self.width - 1) & (pos < n_tokens[:, None] - 1)

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos = np.arange(tokens.shape[1])
        inside, decided = pos < n_tokens[:, None], self.scored(tokens, n_tokens)
        before = (
            pos + 1
        ) // self.width * self.width - self.width  # where the state before that of the next cell starts
        column = (pos + 1) % self.width
        values: dict[str, np.ndarray] = {}
        for name, offset in (("left", -1), ("above", 0), ("right", 1)):
            at = np.maximum(before + (column + offset) % self.width, 0)
            values[f"{name}_position"] = np.where(decided, at, UNDEFINED)
            values[name] = np.where(decided, tokens[:, at] - CELL_0, UNDEFINED)
        around = 4 * values["left"] + 2 * values["above"] + values["right"]
        values |= {
            "cell": np.where(inside, tokens - CELL_0, UNDEFINED),
            "column": np.where(inside, pos % self.width, UNDEFINED),
            "time": np.where(inside, pos // self.width, UNDEFINED),
            "next": np.where(decided, (self.number >> np.maximum(around, 0)) & 1, UNDEFINED),
            "neighbourhood": np.where(decided, around, UNDEFINED),
        }
        return {name: values[name] for name in self.latent_names}

    def next_probabilities(self, block: Items) -> np.ndarray:
        return (CELL_0 + block.latents["next"][..., None] == np.arange(self.d_vocab)).astype(np.float64)

    def answer_start(self, block: Items) -> np.ndarray:
        """Where the last state starts: how many there are is not decided before."""
        return block.n_tokens - self.width

    def oracle(self, question: list[str]) -> list[str]:
        return [str(cell) for cell in self._answer([int(name) for name in question[-self.width :]])]

    def baselines(self, block: Items) -> dict[str, float]:
        """Token accuracy of the most frequent cell, of cells copied from where a rule would look, and of memory."""
        latents = {name: values[block.scored] for name, values in block.latents.items()}
        target = latents["next"]
        majority, known = latents["left"] + latents["above"] + latents["right"] >= 2, self._known(block)
        return {
            "the most frequent cell": float(max(target.mean(), 1 - target.mean())),
            "the cell above": float((latents["above"] == target).mean()),
            "the cell before": float((latents["cell"] == target).mean()),
            "the majority of the neighbourhood": float((majority == target).mean()),
            TABLE: float(((majority == target) | known).mean()),
        }

    def _known(self, block: Items) -> np.ndarray:
        """Whether training items go on from the state before that of each scored cell: bool [scored cell]."""
        item, pos = np.nonzero(block.scored)
        before = (pos + 1) // self.width * self.width - self.width
        cells = block.tokens[item[:, None], before[:, None] + np.arange(self.width)] - CELL_0
        return self._in_training(cells)

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        masks = {n: block.latents[f"{n}_position"][..., None] == pos for n in ("left", "above", "right")}
        return {**masks, "neighbourhood": masks["left"] | masks["above"] | masks["right"]}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        flipped, exists = self._flipped(rng, block.tokens[:, : self.width] - CELL_0)
        tokens = CELL_0 + self._history(flipped).reshape(len(block), -1)
        return np.where(block.tokens == self.pad, self.pad, tokens), block.n_tokens, exists


@dataclasses.dataclass(frozen=True)
class EcaVectors(Automaton):
    """A whole state at each position, read as a vector of cells and predicted cell by cell: ``011 111 ...``.

    An MLP alone suffices: the state before is where the next one is predicted. Accuracies and baselines count cells.
    """

    kind: ClassVar[str] = "eca-vectors"
    latent_names: ClassVar[dict[str, str]] = {
        "state": "the state as a binary number, first cell first; at every state",
        "time": "which state, 0 for the first; at every state",
        "alive": "living cells; at every state",
        "next": "the state to come as a binary number; at every state but the last",
    }
    ordinal_latents: ClassVar[tuple[str, ...]] = ("time", "alive")
    attention_target_names: ClassVar[dict[str, str]] = {"state": "from each state that is predicted from to itself"}
    pair_kinds: ClassVar[dict[str, PairKind]] = {
        "cell": PairKind(
            "a cell of the first state flips, and cells of the next state with it",
            changes=("state", "alive", "next"),
            holds=("time",),
        ),
    }
    small: ClassVar[dict[str, Any]] = {"lengths": Uniform(1, 3), "width": 8}
    examples: ClassVar[tuple[Example, ...]] = (
        Example(
            "0010 0110 1110",
            "0110 1110",
            {"state": (2, 6, 14), "time": (0, 1, 2), "alive": (1, 2, 3), "next": (6, 14, -1)},
            {"width": 4},
        ),
        Example("00100 01010", "01010", {}, {"number": 90, "width": 5}),
    )

    width: int = MOST_CELLS

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width <= MOST_CELLS, "width", self.width, f"at most {MOST_CELLS}")

    @functools.cached_property
    def token_names(self) -> tuple[str, ...]:
        return ("_", *(f"{state:0{self.width}b}" for state in range(2**self.width)))

    @property
    def n_ctx(self) -> int:
        return self.lengths.max + 1

    @property
    def n_cells(self) -> int:
        return self.width

    def vectors(self, tokens: np.ndarray) -> np.ndarray:
        return self._cells(tokens).astype(np.float32)

    def _cells(self, tokens: np.ndarray) -> np.ndarray:
        """0 or 1 [item, pos, cell]; zero in the padding."""
        return np.maximum(tokens - 1, 0)[..., None] >> np.arange(self.width - 1, -1, -1) & 1

    def _first_tokens(self, cells: np.ndarray) -> np.ndarray:
        return 1 + self._number(cells)[:, None]

    def _tokens(self, first: np.ndarray) -> np.ndarray:
        """The longest items that begin with the states ``first`` [item, cell]."""
        return 1 + self._number(self._history(first))

    def equivalence_class(self, tokens: np.ndarray) -> np.ndarray:
        """Items with one first state are of one split."""
        return tokens[:, :1]

    def draw(self, rng: np.random.Generator, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens = self._tokens(rng.integers(0, 2, size=(len(lengths), self.width)))
        return np.where(np.arange(self.n_ctx) <= lengths[:, None], tokens, self.pad), lengths + 1

    def scored(self, tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        return np.arange(tokens.shape[1]) < n_tokens[:, None] - 1

    def latents(self, tokens: np.ndarray, n_tokens: np.ndarray) -> dict[str, np.ndarray]:
        pos = np.arange(tokens.shape[1])
        inside, goes_on = pos < n_tokens[:, None], pos < n_tokens[:, None] - 1
        cells = self._cells(tokens)
        following = next_state(cells, self.number)
        number = self._number(following)
        return {
            "state": np.where(inside, tokens - 1, UNDEFINED),
            "time": np.where(inside, pos, UNDEFINED),
            "alive": np.where(inside, cells.sum(axis=-1), UNDEFINED),
            "next": np.where(goes_on, number, UNDEFINED),
        }

    def next_probabilities(self, block: Items) -> np.ndarray:
        return (1 + block.latents["next"][..., None] == np.arange(self.d_vocab)).astype(np.float64)

    def answer_start(self, block: Items) -> np.ndarray:
        """The last state: how many there are is not decided before."""
        return block.n_tokens - 1

    def oracle(self, question: list[str]) -> list[str]:
        return ["".join(map(str, self._answer([int(cell) for cell in question[-1]])))]

    def baselines(self, block: Items) -> dict[str, float]:
        """Cell accuracy (0 to 1) of predictors that do not know the rule."""
        cells = self._cells(block.tokens)[block.scored]
        target = self._cells(np.maximum(block.targets, 0))[block.scored]
        majority = (np.roll(cells, 1, axis=-1) + cells + np.roll(cells, -1, axis=-1)) >= 2
        table = np.where(self._in_training(cells)[:, None], next_state(cells, self.number), majority)
        return {
            "the more frequent cell": float(max(target.mean(), 1 - target.mean())),
            "the cell above": float((cells == target).mean()),
            "the majority of the neighbourhood": float((majority == target).mean()),
            TABLE: float((table == target).mean()),
        }

    def attention_targets(self, block: Items) -> dict[str, np.ndarray]:
        pos = np.arange(block.tokens.shape[1])
        return {"state": block.scored[:, :, None] & (pos[:, None] == pos)}

    def perturbed(self, kind: str, rng: np.random.Generator, block: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        flipped, exists = self._flipped(rng, self._cells(block.tokens[:, 0]))
        return np.where(block.tokens == self.pad, self.pad, self._tokens(flipped)), block.n_tokens, exists
