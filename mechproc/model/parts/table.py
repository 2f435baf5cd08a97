"""The table of parts: what each one owns, where its activation is, and what an intervention means there.

The table is read by the grammar and the selections (``mechproc.model.parts``), by every check, by the documentation
and by the tests; nothing about a part is written anywhere else. Addresses are numpy's: ``W_in[:, {neuron}]`` is the
slice of ``W_in`` at ``neuron`` on axis 1; ``hook_z[:, :, {head}]`` is one head of ``hook_z`` [batch, pos, head, d].

Every number of a model belongs to exactly one row's ``tensors``; the larger parts are made of smaller ones. So the
bias ``b_O`` belongs to ``L0.attn`` and to no head (each head writes through its own ``W_O``, the bias is the layer's),
and likewise ``b_out`` to ``L0.mlp`` and to no neuron.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from typing import NamedTuple


class Ablation(enum.Enum):
    """What the activation of a part is replaced by, at every position unless an analysis says otherwise."""

    ZERO = "zero"
    """Zeros: the part writes nothing."""
    MEAN = "mean"
    """The mean over reference items at the same position: what the part writes in every item. It is
    meaningful only where the items have the same layout, so that the same kind of token is at that position in each."""
    RESAMPLE = "resample"
    """The activation at the same position in another item or another run, also called a patch. The other item must be
    as long and laid out alike."""


class Undefined(str):
    """Why an ablation means nothing at a part."""


@dataclasses.dataclass(frozen=True)
class PartRow:
    """One row. ``{layer}``, ``{head}`` and ``{neuron}`` stand for numbers from 0 on."""

    part: str
    what: str
    """A short description."""
    parts: tuple[str, ...] = ()
    """The smaller parts that it is made of, in the order of the forward pass."""
    tensors: tuple[str, ...] = ()
    """What it owns beyond these: tensors, or slices of them."""
    hook: str | None = None
    """The activation that this part computes; ``None`` for a part that has no single one."""
    zero: str | Undefined = ""
    mean: str | Undefined = ""
    resample: str | Undefined = ""
    """What each ablation does there; empty for a part that is ablated by ablating the parts it is made of."""
    missing: str = ""
    """Why some models do not have this part."""

    def meaning(self, ablation: Ablation) -> str | Undefined:
        """What ``ablation`` does at this part, or why it is undefined."""
        return {Ablation.ZERO: self.zero, Ablation.MEAN: self.mean, Ablation.RESAMPLE: self.resample}[ablation]

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the words that name this part, with the numbers as groups."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>0|[1-9][0-9]*)", re.escape(self.part)))


NO_MLP = "it has no MLPs (d_mlp = 0)"
NO_LN = "it has no LayerNorms with weights (normalization_type is None or LNPre)"
TIED = "its embeddings are tied: the one tensor W_E belongs to 'embed'"
SAME_FOR_ALL = Undefined("position embeddings are the same in every item: nothing would change")
NO_RESULT = Undefined("its output is the logits, on which the effect of an ablation is measured")
NO_PATTERN = Undefined("a pattern of zeros is no distribution; use mean, or zero at the whole head")


def _feeds(reader: str) -> Undefined:
    return Undefined(f"a LayerNorm passes on the whole residual stream: this would ablate everything that {reader}")


PART_TABLE: tuple[PartRow, ...] = (
    PartRow("all", "the whole model", parts=("embed", "pos", "L{layer}", "ln_final", "unembed")),
    PartRow("body", "attention and MLPs, no LayerNorms", parts=("L{layer}.attn", "L{layer}.mlp")),
    PartRow("attn", "the attention of every layer", parts=("L{layer}.attn",)),
    PartRow("mlp", "the MLPs of every layer", parts=("L{layer}.mlp",), missing=NO_MLP),
    PartRow("ln", "all LayerNorms", parts=("L{layer}.ln1", "L{layer}.ln2", "ln_final"), missing=NO_LN),
    PartRow(
        "L{layer}",
        "one layer, its LayerNorms included",
        parts=("L{layer}.ln1", "L{layer}.attn", "L{layer}.ln2", "L{layer}.mlp"),
    ),
    PartRow(
        "embed",
        "the token embedding; when tied, ablated at the input only",
        tensors=("embed.W_E",),
        hook="hook_embed",
        zero="the embedding of every token is zero",
        mean="the mean embedding of the tokens at that position",
        resample="the embedding of the other item's token at that position",
    ),
    PartRow(
        "pos",
        "the position embedding",
        tensors=("pos_embed.W_pos",),
        hook="hook_pos_embed",
        zero="the embedding of every position is zero",
        mean=SAME_FOR_ALL,
        resample=SAME_FOR_ALL,
    ),
    PartRow(
        "L{layer}.ln1",
        "the LayerNorm before the attention",
        tensors=("blocks.{layer}.ln1.w", "blocks.{layer}.ln1.b"),
        hook="blocks.{layer}.ln1.hook_normalized",
        zero=_feeds("the attention reads; name L{layer}.attn"),
        mean=_feeds("the attention reads; name L{layer}.attn"),
        resample="the attention reads the other item's residual stream",
        missing=NO_LN,
    ),
    PartRow(
        "L{layer}.attn",
        "the attention of one layer",
        parts=("L{layer}.H{head}",),
        tensors=("blocks.{layer}.attn.b_O",),
        hook="blocks.{layer}.hook_attn_out",
        zero="the layer's attention writes nothing, b_O included",
        mean="it writes its mean, the same in every item",
        resample="it writes what it wrote in the other item",
    ),
    PartRow(
        "L{layer}.H{head}",
        "one head; b_O is not its own",
        parts=("L{layer}.H{head}.QK", "L{layer}.H{head}.OV"),
        hook="blocks.{layer}.attn.hook_z[:, :, {head}]",
        zero="the head writes nothing",
        mean="it writes its mean, the same in every item",
        resample="it writes what it wrote in the other item",
    ),
    PartRow(
        "L{layer}.H{head}.QK",
        "which positions the head attends to",
        tensors=(
            "blocks.{layer}.attn.W_Q[{head}]",
            "blocks.{layer}.attn.b_Q[{head}]",
            "blocks.{layer}.attn.W_K[{head}]",
            "blocks.{layer}.attn.b_K[{head}]",
        ),
        hook="blocks.{layer}.attn.hook_pattern[:, {head}]",
        zero=NO_PATTERN,
        mean="its pattern is the mean pattern (query by key)",
        resample="its pattern is that of the other item",
    ),
    PartRow(
        "L{layer}.H{head}.OV",
        "what the head reads from these positions and writes",
        tensors=(
            "blocks.{layer}.attn.W_V[{head}]",
            "blocks.{layer}.attn.b_V[{head}]",
            "blocks.{layer}.attn.W_O[{head}]",
        ),
        hook="blocks.{layer}.attn.hook_v[:, :, {head}]",
        zero="its values are zero: the same as zero at the head",
        mean="its value at each key position is the mean value there",
        resample="its values are those of the other item",
    ),
    PartRow(
        "L{layer}.ln2",
        "the LayerNorm before the MLP",
        tensors=("blocks.{layer}.ln2.w", "blocks.{layer}.ln2.b"),
        hook="blocks.{layer}.ln2.hook_normalized",
        zero=_feeds("the MLP reads; name L{layer}.mlp"),
        mean=_feeds("the MLP reads; name L{layer}.mlp"),
        resample="the MLP reads the other item: as at L{layer}.mlp",
        missing=f"{NO_LN}, or no MLPs for one to feed (d_mlp = 0)",
    ),
    PartRow(
        "L{layer}.mlp",
        "the MLP of one layer",
        parts=("L{layer}.mlp.N{neuron}",),
        tensors=("blocks.{layer}.mlp.b_out",),
        hook="blocks.{layer}.hook_mlp_out",
        zero="the MLP writes nothing, b_out included",
        mean="it writes its mean, the same in every item",
        resample="it writes what it wrote in the other item",
        missing=NO_MLP,
    ),
    PartRow(
        "L{layer}.mlp.N{neuron}",
        "one neuron; b_out is not its own",
        tensors=(
            "blocks.{layer}.mlp.W_in[:, {neuron}]",
            "blocks.{layer}.mlp.b_in[{neuron}]",
            "blocks.{layer}.mlp.W_out[{neuron}]",
        ),
        hook="blocks.{layer}.mlp.hook_post[:, :, {neuron}]",
        zero="the neuron writes nothing",
        mean="it has its mean activation, the same in every item",
        resample="it has its activation of the other item",
        missing=NO_MLP,
    ),
    PartRow(
        "ln_final",
        "the LayerNorm before the unembedding",
        tensors=("ln_final.w", "ln_final.b"),
        hook="ln_final.hook_normalized",
        zero=_feeds("the logits are made of"),
        mean=_feeds("the logits are made of"),
        resample=Undefined("the logits would be the other item's, with nothing left of this one"),
        missing=NO_LN,
    ),
    PartRow(
        "unembed",
        "the unembedding and its bias; when tied, the bias alone",
        tensors=("unembed.W_U", "unembed.b_U"),
        zero=NO_RESULT,
        mean=NO_RESULT,
        resample=NO_RESULT,
        missing=TIED,
    ),
)


class Address(NamedTuple):
    """An address of the table, taken apart: a name, and the axis and variable of the slice if it has one."""

    name: str
    axis: int | None
    variable: str | None


@functools.cache
def parse_address(text: str) -> Address:
    """``"mlp.W_in[:, {neuron}]"`` -> name ``"mlp.W_in"``, axis 1, variable ``"neuron"``."""
    match = re.fullmatch(r"([^\[]+)(?:\[((?::, )*)\{(\w+)\}\])?", text)
    if match is None:
        raise ValueError(f"{text!r} is no address")
    name, leading, variable = match.groups()
    return Address(name, None if variable is None else leading.count(":"), variable)


SLICED: dict[str, Address] = {a.name: a for row in PART_TABLE for a in map(parse_address, row.tensors) if a.variable}
"""The tensors that are owned in slices, by their name with ``{layer}`` in it."""


def sliced_by(tensor: str) -> Address | None:
    """Along which axis, and by what, a tensor is owned in slices; ``None`` for a tensor owned as a whole."""
    return SLICED.get(re.sub(r"^blocks\.\d+\.", "blocks.{layer}.", tensor))


def find_row(word: str) -> tuple[PartRow, dict[str, int]] | None:
    """The row that ``word`` (such as ``"L0.H2"``) names, and the numbers in it; ``None`` when there is no such part."""
    for row in PART_TABLE:
        if match := row.pattern.fullmatch(word):
            return row, {name: int(number) for name, number in match.groupdict().items()}
    return None


def table_markdown() -> str:
    """The table as three of Markdown: what is owned, what ablations mean, and why some mean nothing."""
    owned = [
        (f"`{row.part}`", row.what, ", ".join(f"`{_short(t)}`" for t in (*row.parts, *row.tensors)))
        for row in PART_TABLE
    ]
    ablated = [row for row in PART_TABLE if row.zero]
    cells = [
        (
            f"`{row.part}`",
            f"`{_short(row.hook)}`" if row.hook else "none",
            *("*undefined*" if isinstance(m, Undefined) else m for m in map(row.meaning, Ablation)),
        )
        for row in ablated
    ]
    reasons: dict[str, list[str]] = {}
    for row in ablated:
        for ablation in Ablation:
            if isinstance(reason := row.meaning(ablation), Undefined):
                reasons.setdefault(reason, []).append(f"`{row.part}` {ablation.value}")
    whys = [(", ".join(places), reason) for reason, places in reasons.items()]
    return "\n\n".join(
        (
            "What a part is made of (tensors and hooks of a part with a layer stand in `blocks.{layer}.`):",
            markdown(("part", "what it is", "is made of"), owned),
            "What an ablation means at the part's activation:",
            markdown(("part", "activation", *(a.value for a in Ablation)), cells),
            "What is undefined is refused:",
            markdown(("undefined", "because"), whys),
        )
    )


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table with aligned columns, to be read as it stands."""
    lines = [head, tuple("-" * len(h) for h in head), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _short(address: str) -> str:
    return address.removeprefix("blocks.{layer}.")
