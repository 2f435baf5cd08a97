"""TransformerLens's ``ActivationCache``, which refuses to attribute through a LayerNorm that is not folded."""

from __future__ import annotations

from typing import Any

import transformer_lens


class ActivationCache(transformer_lens.ActivationCache):
    """The activations of a run of a ``HookedTransformer``; see TransformerLens for its methods.

    With ``apply_ln=True`` TransformerLens divides by the LayerNorm's scale and leaves out its weight and bias. Where
    the LayerNorm has them, the sum over parts of the residual stream would then not be what the next layer reads. Here
    that is a ``ConfigError``, as it is in ``HookedTransformer.tokens_to_residual_directions`` for ``logit_attrs`` and
    ``direct_logit_attribution``. ``HookedTransformer.process_weights()`` folds the LayerNorms. The accumulated streams
    at the end of the model (the logit lens) go through the LayerNorm itself, and are right on every model.
    """

    def apply_ln_to_stack(
        self,
        residual_stack: Any,
        layer: int | None = None,
        mlp_input: bool = False,
        pos_slice: Any = None,
        batch_slice: Any = None,
        has_batch_dim: bool = True,
        recompute_ln: bool = False,
    ) -> Any:
        """As in TransformerLens; ``ConfigError`` where the LayerNorm's weight or bias would be left out."""
        model: Any = self.model
        if not recompute_ln or layer not in (None, -1, model.cfg.n_layers):
            model.require_folded_ln(layer, mlp_input)
        return super().apply_ln_to_stack(
            residual_stack, layer, mlp_input, pos_slice, batch_slice, has_batch_dim, recompute_ln
        )

    def stack_neuron_results(self, layer: int, *args: Any, apply_ln: bool = False, **kwargs: Any) -> Any:
        """As in TransformerLens; ``ConfigError`` where the LayerNorm's weight or bias would be left out."""
        if apply_ln:
            model: Any = self.model
            model.require_folded_ln(layer, kwargs.get("mlp_input", False))
        return super().stack_neuron_results(layer, *args, apply_ln=apply_ln, **kwargs)

    def apply_slice_to_batch_dim(self, batch_slice: Any) -> ActivationCache:
        """A cache of some of the items."""
        sliced = super().apply_slice_to_batch_dim(batch_slice)
        return ActivationCache(sliced.cache_dict, sliced.model, sliced.has_batch_dim)
