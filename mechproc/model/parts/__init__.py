"""Parts: one address for weights and for activations.

``grammar`` reads expressions such as ``"attn - L0.H2"``, ``selection`` holds the weights that they name, ``table`` says
what there is to know about each part.
"""

from mechproc.model.parts.grammar import (
    COUNTS,
    Site,
    check_defined,
    check_expression,
    components,
    heads,
    meaning,
    mlps,
    model_markdown,
    select,
    sites,
    sites_of,
)
from mechproc.model.parts.selection import Selection, Slice
from mechproc.model.parts.table import PART_TABLE, Ablation, Undefined, table_markdown

__all__ = [
    "COUNTS",
    "PART_TABLE",
    "Ablation",
    "Selection",
    "Site",
    "Slice",
    "Undefined",
    "check_defined",
    "check_expression",
    "components",
    "heads",
    "meaning",
    "mlps",
    "model_markdown",
    "select",
    "sites",
    "sites_of",
    "table_markdown",
]
