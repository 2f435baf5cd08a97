"""The shape of a model without what follows from its procedure."""

from __future__ import annotations

from typing import Any

from mechproc.model.config import ModelConfig
from mechproc.procedures import Procedure


class Shape:
    """Settings of a ``ModelConfig``, whose ``n_ctx`` and ``d_vocab`` follow from the procedure unless they are given.

    Errors: ``ConfigError`` for a setting that a ``ModelConfig`` does not have or allow.
    """

    def __init__(self, n_layers: int = 2, n_heads: int = 4, d_model: int = 16, **settings: Any) -> None:
        given = {"n_layers": n_layers, "n_heads": n_heads, "d_model": d_model} | settings
        self._settings: dict[str, Any] = {
            name: value for name, value in given.items() if name not in ("n_ctx", "d_vocab") or value is not None
        }
        self._model({"n_ctx": 1, "d_vocab": 2})  # refuses settings that are not allowed

    def replace(self, **changes: Any) -> Shape:
        """A copy with some settings changed; ``None`` for ``n_ctx`` or ``d_vocab``: it follows from the procedure."""
        return Shape(**(self._settings | changes))

    def model_for(self, procedure: Procedure) -> ModelConfig:
        """The model that reads and predicts items of ``procedure``. One of vectors has no token embeddings to tie."""
        n_cells = procedure.n_cells
        if n_cells is None:
            return self._model({"n_ctx": procedure.n_ctx, "d_vocab": procedure.d_vocab})
        vectors = {"input": "vectors", "d_input": n_cells, "d_vocab": n_cells, "tied_embeddings": False}
        return self._model({"n_ctx": procedure.n_ctx}, vectors)

    def _model(self, follows: dict[str, Any], instead: dict[str, Any] | None = None) -> ModelConfig:
        return ModelConfig(**{**follows, **self._settings, **(instead or {})})

    def __repr__(self) -> str:
        return f"Shape({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"


PAPER = Shape(n_layers=2, n_heads=4, d_model=16)
"""The paper's model: 2 layers, 4 heads, width 16, MLPs of 64."""
