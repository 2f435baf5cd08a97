"""The families: one file for each kind of circuit, and for each kind of trap."""

from analyses.planted.families import (
    backup,
    cancelling,
    circuit_alone,
    constant,
    decoy,
    dyck,
    fixed_pattern,
    haystack,
    lookup,
    loud,
    modsum,
    offset,
    siit,
    transfer,
    twins,
)

__all__ = [
    "backup",
    "cancelling",
    "circuit_alone",
    "constant",
    "decoy",
    "dyck",
    "fixed_pattern",
    "haystack",
    "lookup",
    "loud",
    "modsum",
    "offset",
    "siit",
    "transfer",
    "twins",
]
