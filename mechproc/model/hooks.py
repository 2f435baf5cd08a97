"""Hooks that cannot be silent.

``HookedRootModule`` adds a hook to every name that matches and says nothing when none does, or when the activation is
never computed. Here each of these is a ``PartError``, raised before the run wherever that can be known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformer_lens.hook_points import HookPoint
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


class StrictlyHooked(HookedRootModule):
    """A ``HookedRootModule`` whose hooks fire, or raise. ``cfg`` has the switches named in ``SWITCHES``."""

    cfg: Any

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
        hooks that cannot fire, and at the end for those that did not; backward hooks are let off when
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


class _Watched:
    """A hook that remembers whether it fired."""

    def __init__(self, name: HookName, hook: Hook) -> None:
        self.name, self.hook, self.fired = name, hook, False

    def __call__(self, activation: Tensor, hook: HookPoint) -> Any:
        self.fired = True
        return self.hook(activation, hook=hook)
