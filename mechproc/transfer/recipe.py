"""Recipes: how a fresh model is assembled from parts of trained ones.

Every arm of a comparison is a recipe, the controls included (``mechproc.transfer.arms`` has the usual ones), and all
arms of one seed start from the same fresh weights: what a recipe does not touch is equal in all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Literal

import torch
from torch import Tensor

from mechproc.config import Config
from mechproc.errors import PartError, require
from mechproc.model.config import ModelConfig
from mechproc.model.parts import Selection, check_expression, select
from mechproc.model.state import State, check_state, dtype_of, init_state, tensor_shapes
from mechproc.transfer.perturb import Perturbation, perturbed

RECIPE_VERSION = "1.0.0"
"""Semantic version of what a recipe means: raised when it assembles other weights, or a default changes."""


@dataclasses.dataclass(frozen=True)
class Recipe(Config):
    """How a fresh model is assembled. The default is a fresh model with nothing moved into it.

    Embeddings, positions and LayerNorms are factors of their own, so that what they do can be told from what the parts
    do. Part expressions are those of ``mechproc.model.parts``; no two may move, or perturb, the same numbers.
    """

    parts: dict[str, str] = dataclasses.field(default_factory=dict)
    """Part expression -> the name of the donor it comes from."""
    embedding: Literal["random", "mean", "copy"] = "random"
    """``random``: fresh. ``mean``: every token's embedding is the mean of the donor's, every token's unembedding the
    mean of the donor's unembeddings (the same vector when the donor ties them); all logits are equal then, and the body
    has no gradient at step 0. ``copy``: the donor's own; the vocabularies must agree."""
    positions: Literal["fresh", "donor", "donor-if-whole"] = "fresh"
    """``donor``: the donor's position embeddings as far as both models reach, fresh ones beyond. ``donor-if-whole``:
    the donor's where its context is at least as long as the model's, else all are fresh; this is the authors' rule."""
    layernorm: Literal["fresh", "donor"] = "fresh"
    """``donor``: all LayerNorms are the donor's."""
    donor: str | None = None
    """Whose the embeddings, positions and LayerNorms are; ``None`` stands for the one donor of ``parts``."""
    perturb: dict[str, Perturbation] = dataclasses.field(default_factory=dict)
    """Part expression -> what is done to it after it was moved. Only what was moved can be perturbed."""
    freeze: str | None = None
    """Part expression that training leaves as it was assembled."""

    def __post_init__(self) -> None:
        for expression in (*self.parts, *self.perturb, *([] if self.freeze is None else [self.freeze])):
            check_expression(expression)
        named = sorted(set(self.parts.values()))
        if not self.factors:
            require(
                self.donor is None, "donor", self.donor, "None when no embedding, position or LayerNorm is a donor's"
            )
        elif self.donor is None:
            require(
                len(named) == 1, "donor", None, f"the one that gives {' and '.join(self.factors)}; parts name {named}"
            )
        require("" not in self.donor_names, "donor", "", "a name")

    @property
    def factors(self) -> tuple[str, ...]:
        """What comes from a donor beside the parts: some of embedding, positions and layernorm."""
        fresh = {"embedding": "random", "positions": "fresh", "layernorm": "fresh"}
        return tuple(factor for factor, value in fresh.items() if getattr(self, factor) != value)

    @property
    def factor_donor(self) -> str | None:
        """The donor that the factors come from; ``None`` when there are none."""
        return (self.donor or next(iter(self.parts.values()))) if self.factors else None

    @property
    def donor_names(self) -> tuple[str, ...]:
        """The donors that something comes from, each once, in the order of mention."""
        return tuple(dict.fromkeys([*self.parts.values(), *([] if self.donor is None else [self.donor])]))


def assemble(
    recipe: Recipe, cfg: ModelConfig, seed: int, donors: dict[str, tuple[ModelConfig, State]], start: str = ""
) -> State:
    """The weights that a training starts from.

    ``donors`` holds config and weights of each donor, by the name that the recipe gives it. ``seed`` decides the fresh
    weights, with the stream ``start`` of ``init_state``, and the perturbations. Raises what ``check`` raises, a
    ``StoreError`` for weights that do not fit their donor's config, and a ``ConfigError`` for weights that would be
    rounded or raised to float32.
    """
    check(recipe, cfg, {name: donor_cfg for name, (donor_cfg, _) in donors.items()})
    for name, (donor_cfg, donor) in donors.items():
        check_state(donor, donor_cfg, source=f"donor {name!r}")
        dtype = dtype_of(donor)
        require(dtype == torch.float32, f"dtype of donor {name!r}", dtype, "torch.float32, that of the fresh weights")
    state = init_state(cfg, seed, start)
    for part, name in recipe.parts.items():
        selection = select(part, cfg)
        state = selection.write(state, selection.read(donors[name][1]))
    if recipe.factor_donor is not None:
        donor = donors[recipe.factor_donor][1]
        if recipe.embedding != "random":
            for name, tensor in _embeddings(recipe, cfg, donor).items():
                state[name].copy_(tensor)
        if _positions_move(recipe, cfg, donors[recipe.factor_donor][0]):
            here, there = state["pos_embed.W_pos"], donor["pos_embed.W_pos"].detach()
            rows = min(len(here), len(there))
            here[:rows].copy_(there[:rows])
        if recipe.layernorm == "donor":
            selection = select("ln", cfg)
            state = selection.write(state, selection.read(donor))
    for part, perturbation in recipe.perturb.items():
        state = perturbed(perturbation, select(part, cfg), state, seed)
    return state


def frozen(recipe: Recipe, cfg: ModelConfig) -> dict[str, Tensor]:
    """What training leaves alone: for each tensor that has some of it, a bool mask of its shape, True where frozen."""
    return {} if recipe.freeze is None else select(recipe.freeze, cfg).masks()


def check(recipe: Recipe, cfg: ModelConfig, donors: dict[str, ModelConfig]) -> None:
    """Raise a ``ConfigError`` or ``PartError`` unless ``recipe`` can be assembled from donors of these shapes.

    It needs no weights, so that a mistake shows before a donor is trained.
    """
    needed = recipe.donor_names
    require(set(donors) == set(needed), "donors", sorted(donors), f"exactly those of the recipe, {sorted(needed)}")
    moved = {part: _movable(part, name, cfg, donors[name]) for part, name in recipe.parts.items()}
    arranged = dict(moved)  # what was moved number for number, so that it means something to perturb it
    if recipe.factor_donor is not None:
        name, donor = recipe.factor_donor, donors[recipe.factor_donor]
        if recipe.layernorm == "donor":
            moved["layernorm"] = arranged["layernorm"] = _movable("ln", name, cfg, donor)
        if recipe.positions != "fresh":
            _require_same("d_model", name, cfg, donor)
        if _positions_move(recipe, cfg, donor):
            moved["positions"] = select("pos", cfg)
            if donor.n_ctx >= cfg.n_ctx:
                arranged["positions"] = moved["positions"]
        if recipe.embedding != "random":
            _check_embedding(recipe.embedding, name, cfg, donor)
            moved["embedding"] = select(_embedding_part(cfg), cfg)
            if recipe.embedding == "copy":
                arranged["embedding"] = moved["embedding"]
    _check_apart(moved, "moved")
    perturb = {part: select(part, cfg) for part in recipe.perturb}
    for part, selection in perturb.items():
        for piece in selection:
            if not any(piece in movement.slices for movement in arranged.values()):
                raise PartError(f"perturb {part!r}: {piece.tensor} is not moved from a donor, number for number")
    _check_apart(perturb, "perturbed")
    if recipe.freeze is not None:
        some_left = select(recipe.freeze, cfg) != select("all", cfg)
        require(some_left, "freeze", recipe.freeze, "a part that leaves something to train")


def _positions_move(recipe: Recipe, cfg: ModelConfig, donor: ModelConfig) -> bool:
    """Whether any position embedding comes from the donor."""
    whole = donor.n_ctx >= cfg.n_ctx
    return recipe.positions == "donor" or (recipe.positions == "donor-if-whole" and whole)


@functools.lru_cache(maxsize=512)  # a study asks the same of every seed
def _movable(part: str, name: str, cfg: ModelConfig, donor: ModelConfig) -> Selection:
    """What ``part`` selects, if it is the same in the donor."""
    selection = select(part, cfg)
    where = f"part {part!r} from donor {name!r}"
    here, there = tensor_shapes(cfg), tensor_shapes(donor)
    for tensor in selection.tensors():
        if tensor not in there:
            raise PartError(f"{where}: the donor has no {tensor}, which is {list(here[tensor])} in this model")
        if there[tensor] != here[tensor]:
            raise PartError(f"{where}: {tensor} is {list(there[tensor])} there and {list(here[tensor])} in this model")
    for piece in Selection(donor, select(part, donor).slices - selection.slices):
        raise PartError(f"{where}: it has {piece.tensor} too, this model has not; name what is meant, such as L0 + L1")
    for field in dict.fromkeys(field for tensor in selection.tensors() for field in cfg.weight_semantics(tensor)):
        _require_same(field, name, cfg, donor)
    return selection


def _embedding_part(cfg: ModelConfig) -> str:
    """Embedding and unembedding, as far as they are two."""
    return "embed" if cfg.tied_embeddings and not cfg.unembed_bias else "embed + unembed"


def _embeddings(recipe: Recipe, cfg: ModelConfig, donor: State) -> State:
    """The donor's embedding and unembedding, or their means, in the shapes of ``cfg``."""
    embed = donor["embed.W_E"].detach()
    unembed = donor["unembed.W_U"].detach() if "unembed.W_U" in donor else embed.T
    values = {"embed.W_E": embed, "unembed.W_U": unembed}
    if recipe.embedding == "mean":
        values = {
            "embed.W_E": embed.double().mean(0, keepdim=True).expand(cfg.d_vocab, -1),
            "unembed.W_U": unembed.double().mean(1, keepdim=True).expand(-1, cfg.d_vocab),
        }
    elif "unembed.b_U" in donor:
        values["unembed.b_U"] = donor["unembed.b_U"].detach()
    return {name: values[name] for name in tensor_shapes(cfg) if name in values}


def _check_embedding(how: str, name: str, cfg: ModelConfig, donor: ModelConfig) -> None:
    if how == "mean":
        for field, config in (("model.input", cfg), (f"donors.{name}.input", donor)):
            require(config.input == "tokens", field, config.input, "'tokens', where embedding is 'mean'")
        return _require_same("d_model", name, cfg, donor)
    for field in ("input", "d_input", "d_vocab", "d_model"):
        _require_same(field, name, cfg, donor)
    if cfg.tied_embeddings:  # an untied unembedding would be lost; a tied one fits an untied model, as its transpose
        _require_same("tied_embeddings", name, cfg, donor)
    if donor.unembed_bias:  # a bias would be lost; a donor without one leaves a fresh one, which is zero
        _require_same("unembed_bias", name, cfg, donor)


def _require_same(field: str, name: str, cfg: ModelConfig, donor: ModelConfig) -> None:
    here, there = getattr(cfg, field), getattr(donor, field)
    require(here == there, f"donors.{name}.{field}", there, f"{here!r}, as in the model that it is moved into")


def _check_apart(selections: dict[str, Selection], verb: str) -> None:
    """Raise a ``PartError`` when two of these share a number."""
    for (one, first), (other, second) in itertools.combinations(selections.items(), 2):
        for piece in first & second:
            raise PartError(f"{one!r} and {other!r} overlap: {piece.tensor} would be {verb} twice")
