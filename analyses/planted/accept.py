"""Whether a planting is what it says it is, by direct interchange.

A planting that fails a criterion is drawn anew (``analyses.planted.planting``). The criteria, on its own items:

- it solves its task: accuracy at least ``INTACT``;
- the parts that must not matter do not: all resampled at once they cost at most ``INERT`` accuracy;
- each part that carries or is needed, or that is one of a cancelling pair, costs more than ``TRUE`` accuracy when
  resampled, and a twin more than ``TRUE`` nats;
- a part with the value of another item gives the answer that the mechanism implies, and all that carry together give
  the other item's answer, in at least ``INTERCHANGED`` of the items;
- what makes a trap a trap: a twin or a head with a backup may be removed, both of them may not; the backup and the
  constant part are silent when resampled; zeros at the constant part are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyses.interventions.items import derangement, layouts
from analyses.planted.interchange import accuracy, loss, means, others, record, replaced, uniform, zeros
from analyses.planted.roles import ALARMS, Role
from mechproc.model.hooked import HookedTransformer
from mechproc.procedures.base import Items
from mechproc.procedures.items import UNDEFINED

INTACT, INERT, TRUE, INTERCHANGED = 0.995, 0.005, 0.1, 0.99
SILENT = 0.01
"""The most accuracy that a silent intervention on one part may cost."""


class Trial:
    """Accuracies of a model under replacements, on its items."""

    def __init__(self, model: HookedTransformer, items: Items, parts: Sequence[str]) -> None:
        self.model, self.items = model, items
        self.logits, self.own = record(model, items, parts)
        self.intact = accuracy(self.logits, items)
        self.values = {
            "zero": zeros(self.own),
            "mean": means(self.own, items),
            "resample": others(self.own, items, 0),
            "uniform": uniform(self.own),
        }
        self.source = items.take(derangement(layouts(items), 0))

    def cost(self, kind: str, *parts: str) -> float:
        """The accuracy lost when the parts are replaced together."""
        if not parts:
            return 0.0
        return self.intact - accuracy(replaced(self.model, self.items, parts, self.values[kind]), self.items)

    def loss_gained(self, kind: str, *parts: str) -> float:
        """The loss gained (mean nats) when the parts are replaced together."""
        logits = replaced(self.model, self.items, parts, self.values[kind])
        return float((loss(logits, self.items) - loss(self.logits, self.items)).mean())

    def agreement(self, parts: Sequence[str], answers: np.ndarray) -> tuple[float, int]:
        """How often the answer is ``answers`` once the parts have the other item's values, and on how many items they
        say what it must be."""
        kept = answers != UNDEFINED
        logits = replaced(self.model, self.items, parts, self.values["resample"])
        return accuracy(logits[kept], self.items.take(kept), answers[kept]) if kept.any() else 0.0, int(kept.sum())


def failures(trial: Trial, roles: dict[str, Role], implied: dict[str, np.ndarray]) -> list[str]:
    """The criteria that a planting fails, each as one clause with its number; empty when it is accepted.

    ``implied`` has the answers that the mechanism implies for each part with another item's value, int64 [item].
    """
    of = {role: [part for part, mine in roles.items() if mine is role] for role in Role}
    whole = [part for part in roles if ".QK" not in part and ".OV" not in part and "+" not in part]
    wrong: list[str] = []

    def demand(holds: bool, clause: str) -> None:
        if not holds:
            wrong.append(clause)

    demand(trial.intact >= INTACT, f"accuracy {trial.intact:.3f}")
    if wrong:
        return wrong  # nothing else means anything
    cost = trial.cost("resample", *[part for part in whole if roles[part] in ALARMS])
    demand(cost <= INERT, f"inert parts cost {cost:.3f}")
    for part in (*of[Role.CARRIES], *of[Role.NEEDED], *of[Role.CANCELLING], *of[Role.BACKED_UP]):
        cost = trial.cost("resample", part)
        demand(cost > TRUE, f"{part} costs {cost:.3f}")
    for part in of[Role.REDUNDANT]:  # twins that disagree are about even: which of them wins says nothing
        gained = trial.loss_gained("resample", part)
        demand(gained > TRUE, f"{part} costs {gained:.3f} nats")
    for part in (*of[Role.REDUNDANT], *of[Role.BACKED_UP], *of[Role.BACKUP]):
        cost = trial.cost("zero", part)
        demand(cost <= SILENT, f"zeros at {part} cost {cost:.3f}")
    for part in (*of[Role.BACKUP], *of[Role.CONSTANT]):
        cost = trial.cost("resample", part)
        demand(cost <= SILENT, f"{part} resampled costs {cost:.3f}")
    for together in (of[Role.REDUNDANT], [*of[Role.BACKED_UP], *of[Role.BACKUP]]):
        cost = trial.cost("zero", *together)
        demand(not together or cost > TRUE, f"zeros at {' and '.join(together)} cost {cost:.3f}")
    cost = trial.cost("zero", *of[Role.CANCELLING])
    demand(cost <= SILENT, f"zeros at both cancelling parts cost {cost:.3f}")
    for part in of[Role.CONSTANT]:
        kind = "zero" if part in whole else "uniform"
        cost = trial.cost(kind, part)
        demand(cost > TRUE, f"{part} replaced by {kind} costs {cost:.3f}")
    for part in (part for part in roles if "+" in part):
        cost = trial.cost("zero", part)
        demand(cost > TRUE, f"zeros at all inert parts cost {cost:.3f}")
    for part, answers in implied.items():
        share, n = trial.agreement([part], answers)
        demand(n == 0 or share >= INTERCHANGED, f"{part} interchanged gives the implied answer in {share:.3f} of {n}")
    carrying = [part for part in implied if roles[part] in (Role.CARRIES, Role.BACKED_UP)] + of[Role.REDUNDANT]
    share, _ = trial.agreement(carrying, trial.source.targets[trial.source.scored])
    demand(share >= INTERCHANGED, f"all interchanged give the other item's answer in {share:.3f}")
    return wrong
