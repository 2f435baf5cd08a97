"""The usual recipes, and a short name for each."""

from __future__ import annotations

from typing import Literal

from mechproc.errors import require
from mechproc.transfer.perturb import Permute
from mechproc.transfer.recipe import Recipe


def fresh() -> Recipe:
    """Nothing is moved: the random start."""
    return Recipe()


def full(donor: str, positions: Literal["donor", "donor-if-whole"] = "donor") -> Recipe:
    """All that can move between vocabularies: attention, MLPs, LayerNorms, positions and the mean embedding.

    With ``positions="donor-if-whole"``, the authors' rule, positions move only if the donor has as many as the model.
    """
    return Recipe(parts={"body": donor}, embedding="mean", positions=positions, layernorm="donor")


def body(donor: str) -> Recipe:
    """Attention and MLPs of every layer; the rest, embeddings, positions and LayerNorms, is fresh."""
    return part("body", donor)


def attention_only(donor: str) -> Recipe:
    """The attention of every layer; the rest, LayerNorms included, is fresh."""
    return part("attn", donor)


def mlp_only(donor: str) -> Recipe:
    """The MLPs of every layer; the rest, LayerNorms included, is fresh."""
    return part("mlp", donor)


def part(expression: str, donor: str) -> Recipe:
    """Any part, such as ``"L0.H2.QK"`` or ``"attn - L0.H2"``; the rest is fresh."""
    return Recipe(parts={expression: donor})


def composition(attention: str, mlp: str) -> Recipe:
    """The attention of one donor with the MLPs of another; the rest is fresh."""
    return Recipe(parts={"attn": attention, "mlp": mlp})


def permuted(recipe: Recipe) -> Recipe:
    """The control of a recipe: what ``parts`` moves has its numbers permuted, head by head and matrix by matrix.

    Embeddings, positions and LayerNorms stay as the recipe has them, so that the two differ in arrangement alone.
    """
    require(bool(recipe.parts), "parts", recipe.parts, "a recipe that moves some")
    require(not recipe.perturb, "perturb", recipe.perturb, "a recipe without perturbations")
    return recipe.replace(perturb={expression: Permute() for expression in recipe.parts})


def arm(recipe: Recipe) -> str:
    """A short name for tables and legends: ``"random"``, ``"full (set)"``, ``"attn (set), permuted"``.

    It says all that the recipe does, so that recipes with the same name do the same.
    """
    names = recipe.donor_names
    plain = recipe.replace(perturb={}, freeze=None)
    if not names:
        name = "random"
    elif plain == full(names[0]):
        name = f"full ({names[0]})"
    elif plain == full(names[0], positions="donor-if-whole"):
        name = f"full ({names[0]}), positions if whole"
    else:
        moved = [f"{expression} ({donor})" for expression, donor in recipe.parts.items()]
        positions = "positions" if recipe.positions == "donor" else "positions if whole"
        words = {"embedding": f"{recipe.embedding} embedding", "positions": positions, "layernorm": "LayerNorms"}
        name = " + ".join(moved + [f"{words[factor]} ({recipe.factor_donor})" for factor in recipe.factors])
    if recipe.perturb and recipe.perturb == permuted(recipe.replace(perturb={})).perturb:
        name += ", permuted"
    else:
        name += "".join(f", {expression} {change}" for expression, change in recipe.perturb.items())
    return name if recipe.freeze is None else f"{name}, {recipe.freeze} frozen"
