"""Numbers as plotly writes them: on axes by d3's formats, on marks by templates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

FIELD = re.compile(r"%\{(\w+)(?::([^}]*))?\}")


def formatted(value: float, spec: str | None) -> str:
    """A number by a d3 format: ``.0%``, ``,d``, ``.4f``; without one, in as few digits as tell it from its like."""
    if spec:
        spec = spec.replace("d", ".0f") if spec.endswith("d") else spec
        return format(value, spec).replace("-", "\N{MINUS SIGN}")
    return format(value, ".10g").replace("-", "\N{MINUS SIGN}")


def filled(template: str, values: Mapping[str, Any]) -> str:
    """A hover template with its fields filled in; what stands in ``<extra>`` is left out."""
    template = re.sub(r"<extra>.*?</extra>", "", template)

    def field(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "no value"
        return formatted(float(value), match[2]) if match[2] else str(value)

    return FIELD.sub(field, template)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round numbers between the ends."""
    if not high > low:
        return [low]
    raw = (high - low) / max(most, 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between the ends (log10), or round numbers where there are fewer than two."""
    powers = [10.0**n for n in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
    if len(powers) >= 2:
        return powers[:: max(1, len(powers) // 6)]
    return [m * 10.0**n for n in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)
            if low - 1e-9 <= math.log10(m * 10.0**n) <= high + 1e-9]  # fmt: skip


def power(value: float) -> str:
    """A power of ten as it is written on a logarithmic axis: 10 with a raised exponent where it is long."""
    exponent = math.log10(value)
    if 1e-3 <= value < 1e5 or abs(exponent - round(exponent)) > 1e-9:
        return formatted(value, None)
    return "10" + str(round(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def floats(values: Any) -> np.ndarray:
    """float64 [n]; ``None`` is NaN."""
    return np.array([np.nan if v is None else v for v in np.asarray(values, dtype=object).ravel()], dtype=np.float64)
