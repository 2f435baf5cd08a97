"""Hooks of TransformerLens with stricter rules.

- A hook that cannot fire is a ``PartError`` before the run, one that did not fire a ``PartError`` after it.
  (``HookedRootModule`` adds a hook to every name that matches, and reports nothing when none does.)
- Every hook is given a copy of the activation, with which the model goes on. An edit in place therefore reaches what is
  computed from there on, and no activation that was cached before.
- What a hook returns must have the shape and dtype of the activation: it is never broadcast over items or heads.
- ``require_no_hooks`` refuses a model on which hooks were left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import transformer_lens.hook_points
from torch import Tensor
from transformer_lens.HookedRootModule import HookedRootModule

from mechproc.config import nearest
from mechproc.errors import PartError

Hook = Callable[..., Any]
"""``hook(activation, hook=hook_point)``: returns the activation to go on with, or ``None`` to leave it."""
HookName = str | Callable[[str], bool]
NamesFilter = str | Iterable[str] | Callable[[str], bool] | None
SWITCHES = {
    "hook_result": "use_attn_result",
    "hook_attn_in": "use_attn_in",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_mlp_in": "use_hook_mlp_in",
}
"""Hooks that fire only while a switch of the config is on: they cost memory by the head, or an extra copy."""


class HookPoint(transformer_lens.hook_points.HookPoint):
    """TransformerLens's ``HookPoint``, whose hooks work on copies and return what has the activation's shape."""

    def add_hook(self, hook: Hook, *args: Any, **kwargs: Any) -> Any:
        """As in TransformerLens: ``hook(activation, hook=hook_point)``, forward or backward, with the rules above."""
        on_copy: Any = _OnCopy(hook)
        handle = super().add_hook(on_copy, *args, **kwargs)
        handle.user_hook = hook  # what list_hooks() shows
        return handle


class StrictlyHooked(HookedRootModule):
    """A ``HookedRootModule`` whose hooks fire, or raise. ``cfg`` has the switches named in ``SWITCHES``."""

    cfg: Any

    def require_no_hooks(self) -> None:
        """Raise a ``PartError`` that names a module on which a hook was left, TransformerLens's or PyTorch's.

        For analyses, whose scores of the intact model would be those of a changed one. Permanent hooks, and hooks of an
        enclosing ``hooks()`` context, count too.
        """
        kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
        for name, module in self.named_modules():
            if any(getattr(module, kind) for kind in kinds):
                how = "reset_hooks(including_permanent=True) removes those of TransformerLens"
                raise PartError(f"the model has a hook on {name or 'itself'!r}; remove it first ({how})")

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Iterable[tuple[HookName, Hook]] = (),
        bwd_hooks: Iterable[tuple[HookName, Hook]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[StrictlyHooked]:
        """Within this context the hooks are in place; ``run_with_hooks`` is this around one forward pass.

        A name is a hook's, or a predicate on names, of which at least one must fire. Raises ``PartError`` at once for
        hooks that cannot fire, and at the end for those that did not; backward hooks are exempt when
        ``reset_hooks_end`` is false, as they stay in place.
        """
        fwd = [(self._resolved(name), _Watched(name, hook)) for name, hook in fwd_hooks]
        bwd = [(self._resolved(name), _Watched(name, hook)) for name, hook in bwd_hooks]
        with super().hooks(fwd, bwd, reset_hooks_end, clear_contexts):
            yield self
        expected = fwd + bwd if reset_hooks_end else fwd
        silent = [hook.name for _, hook in expected if not hook.fired]
        if silent:
            self.reset_hooks(clear_contexts, level=self.context_level + 1)
            needed = "run the model, and backward() for a backward hook, within hooks()"
            raise PartError(f"the hook on {silent[0]!r} never fired: {needed}")

    def add_hook(self, name: HookName, hook: Hook, *args: Any, **kwargs: Any) -> None:
        """Add a hook that stays until ``reset_hooks``; raises ``PartError`` for one that cannot fire."""
        super().add_hook(self._resolved(name), hook, *args, **kwargs)

    def add_caching_hooks(self, names_filter: NamesFilter = None, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As in ``HookedRootModule``, but a name that cannot fire, or a filter that matches nothing, is an error."""
        return super().add_caching_hooks(self._wanted(names_filter), *args, **kwargs)

    def get_caching_hooks(self, names_filter: NamesFilter = None, *args: Any, **kwargs: Any) -> tuple[dict, list, list]:
        """As in ``HookedRootModule``, but a name that cannot fire, or a filter that matches nothing, is an error."""
        return super().get_caching_hooks(self._wanted(names_filter), *args, **kwargs)

    def _resolved(self, name: HookName) -> HookName:
        """The name of a hook that exists and can fire, or a predicate that matches at least one."""
        if callable(name):
            if not any(name(hook) for hook in self._live_hooks()):
                raise PartError(f"no hook that fires matches {name!r}")
            return name
        # transformer_lens.patching calls these hooks by the names they have in its bridges.
        hook = re.sub(r"\.attn\.(hook_[qkv]_input)$", r".\1", name)
        if hook not in self.hook_dict:
            raise PartError(f"{name!r} is not a hook of this model{nearest(name, self.hook_dict)}")
        switch = SWITCHES.get(hook.rpartition(".")[2])
        if switch is not None and not getattr(self.cfg, switch):
            raise PartError(f"{name!r} does not fire until set_{switch}(True) is called")
        return hook

    def _live_hooks(self) -> list[str]:
        """The hooks that fire under the present switches."""
        switches = {hook: SWITCHES.get(hook.rpartition(".")[2]) for hook in self.hook_dict}
        return [hook for hook, switch in switches.items() if switch is None or getattr(self.cfg, switch)]

    def _wanted(self, names_filter: NamesFilter) -> list[str]:
        """The names of the hooks to cache."""
        if names_filter is None:
            return self._live_hooks()
        if isinstance(names_filter, str):
            names_filter = [names_filter]
        if callable(names_filter):
            self._resolved(names_filter)
            return [hook for hook in self._live_hooks() if names_filter(hook)]
        return [str(self._resolved(name)) for name in names_filter]


class _OnCopy:
    """A hook that is given a copy of the activation, or of its gradient, and whose result has the same shape."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook

    def __repr__(self) -> str:
        return repr(self.hook)

    def __call__(self, activation: Any, hook: HookPoint) -> Any:
        if not isinstance(activation, Tensor):  # the gradient of an output that the loss does not depend on is None
            return self.hook(activation, hook=hook)
        copy = activation.clone()
        result = self.hook(copy, hook=hook)
        if result is None:
            return copy  # edited in place, or only read
        value = result[0] if isinstance(result, tuple) and len(result) == 1 else result  # backward hooks may return it
        if not isinstance(value, Tensor):
            raise PartError(f"the hook on {hook.name!r} returned {type(value).__name__}: a tensor or None is allowed")
        if value.shape != activation.shape or value.dtype != activation.dtype:
            expected = f"{activation.dtype} {list(activation.shape)}"
            raise PartError(
                f"the hook on {hook.name!r} returned {value.dtype} {list(value.shape)}: the activation is {expected}"
            )
        return result


class _Watched:
    """A hook that remembers whether it fired."""

    def __init__(self, name: HookName, hook: Hook) -> None:
        self.name, self.hook, self.fired = name, hook, False

    def __call__(self, activation: Tensor, hook: HookPoint) -> Any:
        self.fired = True
        return self.hook(activation, hook=hook)
