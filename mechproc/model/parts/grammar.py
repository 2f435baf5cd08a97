"""Parts: one address for weights and for activations.

An expression joins parts with ``+`` and removes them with ``-``, left to right: ``"attn - L0.H2"``. On the weight side
it is a ``Selection``, a set of slices of tensors; on the activation side it is a tuple of ``Site``s, derived from the
selection, so that expressions that select the same have the same sites. Each part is defined in
``mechproc.model.parts.table.PART_TABLE``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator

from torch import Tensor

from mechproc.config import nearest
from mechproc.errors import PartError
from mechproc.model.config import ModelConfig
from mechproc.model.parts.selection import Selection, Slice, shapes_of
from mechproc.model.parts.table import PART_TABLE, Ablation, PartRow, Undefined, find_row, markdown, parse_address

COUNTS: dict[str, Callable[[ModelConfig], int]] = {
    "layer": lambda cfg: cfg.n_layers,
    "head": lambda cfg: cfg.n_heads,
    "neuron": lambda cfg: cfg.d_mlp or 0,
}
"""How many there are of each thing that the table numbers."""


@dataclasses.dataclass(frozen=True)
class Site:
    """Where the activation of a part lives."""

    part: str
    """The canonical name of the part, such as ``"L0.H2"``."""
    hook: str
    axis: int | None
    """The part is ``index`` along this axis of the activation; ``None`` when it is the whole activation."""
    index: int | None

    @property
    def address(self) -> str:
        """Hook and slice in numpy's notation, such as ``"blocks.0.attn.hook_z[:, :, 2]"``."""
        return self.hook if self.axis is None else f"{self.hook}[{':, ' * self.axis}{self.index}]"

    def view(self, activation: Tensor) -> Tensor:
        """This part of the activation at ``hook``, sharing its memory; write to it to intervene."""
        return activation if self.axis is None or self.index is None else activation.select(self.axis, self.index)


@functools.lru_cache(maxsize=1024)
def select(expression: str, cfg: ModelConfig) -> Selection:
    """The weights that ``expression`` names in a model of this shape.

    Raises a ``PartError`` for a word that is no part or matches nothing in this model, for a ``-`` that removes
    nothing, and for an expression that leaves nothing.
    """
    slices: frozenset[Slice] = frozenset()
    for sign, word in _terms(expression):
        part = _existing(word, cfg)
        if sign == "+":
            slices |= part
        elif not slices & part:
            raise PartError(f"{expression!r}: '- {word}' removes nothing of what was selected before it")
        else:
            slices -= part
    if not slices:
        raise PartError(f"{expression!r} selects nothing: all that it adds is removed again")
    return Selection(cfg, slices)


def check_expression(expression: str) -> None:
    """Raise a ``PartError`` unless ``expression`` could name something in some model."""
    for _, word in _terms(expression):
        if find_row(word) is None:
            raise _unknown(word, [row.part for row in PART_TABLE])


def sites(expression: str, cfg: ModelConfig, ablation: Ablation | None = None) -> tuple[Site, ...]:
    """The activations of the parts that ``expression`` names, in the order of the forward pass.

    They are the largest parts of the selection that have an activation of their own: all of a layer's attention with
    ``b_O`` is ``hook_attn_out``, else a whole head is its ``hook_z``, else its QK is the pattern, its OV the values.
    ``b_O`` and ``b_out`` have no activation by themselves: with some heads (neurons) of their layer but not all they
    are left as they are, and alone they are refused. A ``PartError`` also names what has no activation at all and, when
    ``ablation`` is given, the first site where that is undefined.
    """
    selected = sites_of(select(expression, cfg))
    if ablation is not None:
        for site in selected:
            check_defined(site, ablation)
    return selected


def sites_of(selection: Selection) -> tuple[Site, ...]:
    """The activations of a selection; see ``sites``."""
    return tuple(_sites("all", selection))


def meaning(where: Site | str, ablation: Ablation) -> str | Undefined:
    """What ``ablation`` does at a site or part, in the table's words, or why it is ``Undefined`` there.

    A part is one word with an activation of its own, such as ``"L0.H2.QK"``; others raise a ``PartError``.
    """
    part = where if isinstance(where, str) else where.part
    row, numbers = _row(part)
    text = row.meaning(ablation)
    if not text:
        raise PartError(f"{part!r} has no activation of its own: it is ablated at its parts, {', '.join(row.parts)}")
    return type(text)(text.format(**numbers))


def check_defined(where: Site | str, ablation: Ablation) -> None:
    """Raise a ``PartError``, with the table's reason, unless ``ablation`` means something at this site or part."""
    text = meaning(where, ablation)
    if isinstance(text, Undefined):
        part = where if isinstance(where, str) else where.part
        raise PartError(f"{ablation.value} at {part!r} is undefined: {text}")


def heads(cfg: ModelConfig) -> list[str]:
    """Every head: ``"L0.H0"``, ``"L0.H1"``, ..."""
    return [f"L{layer}.H{head}" for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]


def mlps(cfg: ModelConfig) -> list[str]:
    """Every MLP: ``"L0.mlp"``, ``"L1.mlp"``, ...; empty for a model without MLPs."""
    return [] if cfg.attn_only else [f"L{layer}.mlp" for layer in range(cfg.n_layers)]


def components(cfg: ModelConfig) -> list[str]:
    """Heads and MLPs, in the order of the forward pass: the usual rows of a map."""
    layers = [f"L{layer}." for layer in range(cfg.n_layers)]
    return [part for layer in layers for part in (*heads(cfg), *mlps(cfg)) if part.startswith(layer)]


def model_markdown(cfg: ModelConfig) -> str:
    """The parts of a model of this shape: how many numbers each has, their share, and where its activation is."""
    total = select("all", cfg).n_parameters
    rows = []
    for part in _tree("all", cfg):
        row, numbers = _row(part)
        if numbers.get("neuron"):
            continue  # all neurons are alike: N0 stands for them
        count = select(part, cfg).n_parameters
        name = f"`{part}`" if "neuron" not in numbers else f"`{part}` to `N{(cfg.d_mlp or 1) - 1}`, each"
        rows.append(
            (name, f"{count:,}", f"{count / total:.1%}", f"`{row.hook.format(**numbers)}`" if row.hook else "none")
        )
    return markdown(("part", "parameters", "share", "activation"), rows)


# ---- from the table to a model ---------------------------------------------------------------------------------------


def _terms(expression: str) -> list[tuple[str, str]]:
    """``"attn - L0.H2"`` -> ``[("+", "attn"), ("-", "L0.H2")]``."""
    pieces = ["+", *re.split(r"\s*([+-])\s*", expression.strip())]
    if "" in pieces:
        raise PartError(f"{expression!r} is not a part: a word is missing beside a '+' or '-'")
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _row(word: str) -> tuple[PartRow, dict[str, int]]:
    row = find_row(word)
    if row is None:
        raise _unknown(word, [row.part for row in PART_TABLE])
    return row


def _unknown(word: str, known: list[str]) -> PartError:
    in_other_letters = {part.lower(): part for part in known}.get(word.lower(), word)
    hint = nearest(in_other_letters, known)
    parts = ", ".join(row.part.format(layer=0, head=2, neuron=17) for row in PART_TABLE)
    return PartError(f"{word!r} is not a part{hint} (parts: {parts}; joined with +, removed with -)")


def _existing(word: str, cfg: ModelConfig) -> frozenset[Slice]:
    """What ``word`` selects, or the error that says why it selects nothing."""
    row_and_numbers = find_row(word)
    if row_and_numbers is None:
        raise _unknown(word, [*(row.part for row in PART_TABLE if "{" not in row.part), *_tree("all", cfg)])
    row, numbers = row_and_numbers
    for variable, number in numbers.items():
        count = COUNTS[variable](cfg)
        if count and number >= count:
            letter = variable[0].upper()
            raise PartError(f"{word!r} is not in this model: its {variable}s are {letter}0 to {letter}{count - 1}")
    if not (slices := _slices(word, cfg)):
        raise PartError(f"{word!r} is not in this model: {row.missing}")
    return slices


@functools.lru_cache(maxsize=65536)
def _slices(part: str, cfg: ModelConfig) -> frozenset[Slice]:
    """All that a part owns in this model; empty when the model does not have it."""
    return _own(part, cfg).union(*(_slices(smaller, cfg) for smaller in _smaller(part, cfg)))


def _own(part: str, cfg: ModelConfig) -> frozenset[Slice]:
    """What belongs to a part and to no smaller one."""
    row, numbers = _row(part)
    shapes = shapes_of(cfg)
    own = []
    for name, _, variable in map(parse_address, row.tensors):
        tensor = name.format(**numbers)
        if tensor in shapes:
            own.append(Slice(tensor, None if variable is None else numbers[variable]))
    return frozenset(own)


def _smaller(part: str, cfg: ModelConfig) -> list[str]:
    """The parts that a part is made of, in the order of the forward pass, those that the model lacks included."""
    row, numbers = _row(part)
    smaller = []
    for pattern in row.parts:
        free = [v for v in COUNTS if f"{{{v}}}" in pattern and v not in numbers]
        for values in itertools.product(*(range(COUNTS[v](cfg)) for v in free)):
            smaller.append(pattern.format(**numbers, **dict(zip(free, values, strict=True))))
    return smaller


def _tree(part: str, cfg: ModelConfig) -> Iterator[str]:
    """A part of this model and all smaller ones inside it, each behind the one it belongs to."""
    if _slices(part, cfg):
        yield part
        for smaller in _smaller(part, cfg):
            yield from _tree(smaller, cfg)


def _sites(part: str, selection: Selection) -> list[Site]:
    """The sites of what is selected inside one part."""
    whole = _slices(part, selection.cfg)
    if not whole & selection.slices:
        return []
    row, numbers = _row(part)
    if row.hook and whole <= selection.slices:
        hook, axis, variable = parse_address(row.hook)
        return [Site(part, hook.format(**numbers), axis, None if variable is None else numbers[variable])]
    inside = [site for smaller in _smaller(part, selection.cfg) for site in _sites(smaller, selection)]
    own = _own(part, selection.cfg) & selection.slices
    if own and not inside:
        names = ", ".join(sorted(s.tensor for s in own))
        if row.hook is None:
            raise PartError(f"{part!r} has no activation: {row.zero}")
        raise PartError(f"{names} alone has no activation: {row.hook.format(**numbers)} belongs to {part!r} as a whole")
    return inside
