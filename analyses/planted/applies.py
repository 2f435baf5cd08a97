"""Which kind of method is asked about which contrast of which family: written before any calibration is run."""

from __future__ import annotations

from analyses.planted.design import ANY
from analyses.planted.roles import MethodKind

ABLATIONS: tuple[MethodKind, ...] = ("zero", "mean", "resample")
ALONG_PAIRS: tuple[MethodKind, ...] = ("patching", "attribution")
OF_ANY_ITEM: tuple[MethodKind, ...] = (*ABLATIONS, "reading", "probing", "composing")
WITH_TARGETS: tuple[MethodKind, ...] = (*OF_ANY_ITEM, "looking")
"""Where the procedure names targets of attention."""

ASKED: dict[str, dict[str, tuple[MethodKind, ...]]] = {
    "offset": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "lookup": {ANY: OF_ANY_ITEM, "last": ALONG_PAIRS},
    "modsum": {ANY: OF_ANY_ITEM, "first": ALONG_PAIRS, "second": ALONG_PAIRS},
    "haystack": {ANY: WITH_TARGETS, "keys": ALONG_PAIRS, "answer": ALONG_PAIRS, "query": ALONG_PAIRS},
    "dyck": {ANY: WITH_TARGETS, "kind": ALONG_PAIRS, "depth": ALONG_PAIRS},
    "siit": {ANY: WITH_TARGETS, "keys": ALONG_PAIRS, "answer": ALONG_PAIRS, "query": ALONG_PAIRS},
    "transfer": {"transfer": ("training",)},
    "twins": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "backup": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "cancelling": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "constant": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "decoy": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "loud": {ANY: WITH_TARGETS, "answer": ALONG_PAIRS},
    "fixed pattern": {ANY: (*ABLATIONS, "looking", "composing"), "answer": ("patching",)},
    "circuit alone": {ANY: (*ABLATIONS, "composing"), "first": ("patching",), "second": ("patching",)},
}
"""For each family and contrast, the kinds of methods that are asked. Ablations replace by any other item, and are asked
about that; what goes along pairs is asked about the pairs. A QK and a set of parts have no probe and no attribution;
what weights say belongs to no pair of items."""


def asked(family: str, contrast: str, kind: MethodKind) -> bool:
    """Whether a kind of method is asked about a contrast of a family."""
    return kind in ASKED[family].get(contrast, ())
