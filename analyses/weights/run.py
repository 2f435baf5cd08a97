"""One entry to the analyses of weights, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from analyses.models import Models
from analyses.weights.change import change
from analyses.weights.compare import compare
from analyses.weights.composition import angles, composition
from analyses.weights.distances import Measure
from analyses.weights.population import Starts
from analyses.weights.spectra import spectrum
from mechproc.errors import require
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items, Procedure
from mechproc.result import Result

What = Literal["spectrum", "composition", "angles", "change", "compare"]


def run(
    models: Models | Mapping[str, Models] | HookedTransformer,
    parts: Sequence[str] | None = None,
    what: What | None = None,
    *,
    starts: Any = None,
    measure: Measure = "spectrum",
    items: Procedure | Items | None = None,
    folded: bool = True,
    seed: int = 0,
) -> Result:
    """An analysis of weights: of one rule's models by seed, or of several rules' models.

    - ``models``: by seed, a list, or one; or by rule and seed, ``{"set": [...], "identity": [...]}``;
    - ``what``: ``"spectrum"`` (the default), ``"composition"``, ``"angles"``, ``"change"`` (which needs ``starts``, the
      models at step 0 by seed), or ``"compare"``, the default and the only one for several rules;
    - ``parts``: rows, of ``spectrum`` and ``change`` alone;
    - ``folded``: whether LayerNorms are folded, in all but ``change`` and ``compare``;
    - ``measure``, ``items``, ``starts``: those of ``compare``;
    - ``seed``: of everything random.

    The functions of these names say what the Result holds. Errors: ``ConfigError`` for an argument that the analysis
    does not take, and theirs.
    """
    groups = isinstance(models, Mapping) and not any(isinstance(m, HookedTransformer) for m in models.values())
    what = what or ("compare" if groups else "spectrum")
    allowed = ("compare",) if groups else ("spectrum", "composition", "angles", "change")
    require(what in allowed, "what", what, f"one of {', '.join(allowed)} for {'several rules' if groups else 'models'}")
    takes_parts = what in ("spectrum", "change")
    require(parts is None or takes_parts, "parts", parts, f"None: {what} has rows of its own")
    if what == "compare":
        known: Starts = "shared" if starts is None else starts
        return compare(cast(Mapping[str, Models], models), measure, starts=known, items=items, seed=seed)
    one: Models = [models] if isinstance(models, HookedTransformer) else cast(Models, models)
    if what == "change":
        require(starts is not None, "starts", starts, "the models at step 0, by seed: change is measured against them")
        return change(one, starts, parts)
    if what == "spectrum":
        return spectrum(one, parts, folded=folded)
    return composition(one, folded=folded, seed=seed) if what == "composition" else angles(one, folded=folded)
