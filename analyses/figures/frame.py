"""An HTML page that needs nothing but itself: no network requests.

The page's content-security policy allows no remote origin and no script but its own. The CircuitsVis bundle is inlined,
where attention patterns are drawn, gzipped and in base64 (a third of its size), and unpacked by the browser.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import jinja2
import numpy as np
from markupsafe import Markup

LIBRARIES = {"circuitsvis": ("circuitsvis", "dist/cdn/iife.js")}
"""Where each library's JavaScript lies: package, path in it."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What the browser draws into the element with this id."""

    id: str
    library: Literal["circuitsvis"]
    data: dict[str, Any]
    """The properties of CircuitsVis's ``AttentionHeads``."""
    height: int
    """Pixels that are kept free until it is drawn."""


def templates(package: str) -> jinja2.Environment:
    """The templates of a package's folder ``templates``. Values are escaped, and a name without a value is an error."""
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("analyses.figures")])
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def file_text(package: str, name: str) -> Markup:
    """A file of a package's folder ``templates`` as it stands: a style sheet or a script."""
    return Markup((resources.files(package) / "templates" / name).read_text(encoding="utf-8"))


def page(
    title: str,
    body: Markup,
    drawings: Sequence[Drawing],
    style: str = "",
    *,
    script: Markup | None = None,
    packed_texts: Mapping[str, str] | None = None,
) -> str:
    """The whole document around ``body``.

    ``style`` is CSS that follows that of the figures, ``script`` JavaScript that runs before attention is drawn, and
    ``packed_texts`` are texts by id that it reads, gzipped and in base64.
    """
    data = {drawing.id: Markup(to_json(drawing.data)) for drawing in drawings}
    used = {drawing.library for drawing in drawings}
    libraries = {name: Markup(packed(name)) for name in LIBRARIES if name in used}
    texts = {name: Markup(text) for name, text in (packed_texts or {}).items()}
    nonce = hashlib.sha256("".join([body, *data.values()]).encode()).hexdigest()[:32]
    scripts = [script] if script is not None else []
    scripts += [file_text("analyses.figures", "draw.js")] if drawings else []
    return (
        templates("analyses.figures")
        .get_template("frame.html")
        .render(
            title=title,
            body=body,
            style=file_text("analyses.figures", "frame.css") + Markup(style),
            scripts=scripts,
            nonce=nonce,
            data=data,
            libraries=libraries,
            texts=texts,
        )
    )


@functools.cache
def packed(library: str) -> str:
    """A library's JavaScript, gzipped, in base64, without the line that asks the browser for a source map."""
    package, path = LIBRARIES[library]
    source = (resources.files(package) / path).read_text(encoding="utf-8")
    kept = "\n".join(line for line in source.splitlines() if not line.startswith("//# sourceMappingURL="))
    return base64.b64encode(gzip.compress(kept.encode(), compresslevel=9, mtime=0)).decode()


def to_json(value: Any) -> str:
    """JSON that can stand inside a ``<script>`` element: floats rounded, NaN as null, every ``<`` escaped."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def plain(value: Any) -> Any:
    """``value`` as JSON values. Floats keep three decimals, or four digits below 1; no NaN."""
    if isinstance(value, dict):
        if "bdata" in value and "dtype" in value:  # how plotly spells an array
            return plain(_unpacked(value))
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, 3) if abs(value) >= 1 else float(f"{value:.4g}")
    return value


def _unpacked(array: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"])
    shape = array.get("shape")
    return flat if shape is None else flat.reshape([int(n) for n in str(shape).split(",")])
