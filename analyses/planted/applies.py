"""Which kind of method is asked about which contrast of which family: written before any calibration is run."""

from __future__ import annotations

from analyses.planted.design import ANY
from analyses.planted.roles import MethodKind

ABLATIONS: tuple[MethodKind, ...] = ("zero", "mean", "resample")
ALONG_PAIRS: tuple[MethodKind, ...] = ("patching", "attribution")
READS: tuple[MethodKind, ...] = ("reading", "probing")

ASKED: dict[str, dict[str, tuple[MethodKind, ...]]] = {
    "offset": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "lookup": {ANY: (*ABLATIONS, *READS), "last": ALONG_PAIRS},
    "modsum": {ANY: (*ABLATIONS, *READS), "first": ALONG_PAIRS, "second": ALONG_PAIRS},
    "haystack": {ANY: (*ABLATIONS, *READS), "keys": ALONG_PAIRS, "answer": ALONG_PAIRS, "query": ALONG_PAIRS},
    "dyck": {ANY: (*ABLATIONS, *READS), "kind": ALONG_PAIRS, "depth": ALONG_PAIRS},
    "siit": {ANY: (*ABLATIONS, *READS), "keys": ALONG_PAIRS, "answer": ALONG_PAIRS, "query": ALONG_PAIRS},
    "transfer": {"transfer": ("training",)},
    "twins": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "backup": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "cancelling": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "constant": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "decoy": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "loud": {ANY: (*ABLATIONS, *READS), "answer": ALONG_PAIRS},
    "fixed pattern": {ANY: ABLATIONS, "answer": ("patching",)},
    "circuit alone": {ANY: ABLATIONS, "first": ("patching",), "second": ("patching",)},
}
"""For each family and contrast, the kinds of methods that are asked. Ablations replace by any other item, and are asked
about that; what goes along pairs is asked about the pairs. A QK and a set of parts have no probe and no attribution."""


def asked(family: str, contrast: str, kind: MethodKind) -> bool:
    """Whether a kind of method is asked about a contrast of a family."""
    return kind in ASKED[family].get(contrast, ())
