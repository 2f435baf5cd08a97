"""Where does it live that a donor helps: which parts of its weights, alone and in every combination?

Six players are moved or left fresh: the attention and the MLP of each layer, the LayerNorms, and the embeddings (the
donor's mean embedding and its positions). On a laptop all 64 coalitions are trained for set and for k-dyck, which give
each player's exact Shapley value of the area under the loss curve, within a seed. At the paper's scale, for set, each
player alone, all but each, and the heads of ``which_heads``. Controls: each player alone with its numbers permuted, and
each player alone from a rule that does not help the task. ``analyses.transfer_map`` reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from mechproc.statistics.claims import Claim, Contrast
from mechproc.statistics.comparisons import Family
from mechproc.statistics.shapley import coalitions, shapley_contrast
from mechproc.studies.scales import SEEDS, Runs, Scale, scale_of, seeds_of
from mechproc.studies.study import Study
from mechproc.studies.which_heads import head_runs
from mechproc.transfer import Permute, Recipe, fresh

QUESTION = (__doc__ or "").splitlines()[0]

TASK = "haystack"
RULES = {"laptop": ("set", "k-dyck"), "paper": ("set",)}
WRONG_RULE = "eca"
"""The rule of the control."""
LAYERNORMS, EMBEDDINGS = "ln", "embed + pos"
PLAYERS = ("L0.attn", "L0.mlp", "L1.attn", "L1.mlp", LAYERNORMS, EMBEDDINGS)
"""Part expressions, in the order of the forward pass but for the last two."""
MEASURE = "loss area"
SMALLEST = 0.1
"""Nats, in the mean over the training. In pilot runs (seeds 1000 and 1001) the attention of both layers gained 0.92 and
0.31, and that of the second layer alone 0.99 and 0.99."""
STAIR = 1.0
"""Nats, in the mean over the training: what a seed gains that crosses its plateau at once."""


def recipe(players: Collection[str], donor: str, perturbed: bool = False, positions: str = "donor") -> Recipe:
    """The model in which ``players`` are the donor's; ``perturbed``: with the numbers of each matrix permuted."""
    parts = [player for player in PLAYERS[:4] if player in players]
    from_donor: dict[str, Any] = {
        **({"layernorm": "donor"} if LAYERNORMS in players else {}),
        **({"embedding": "mean", "positions": positions} if EMBEDDINGS in players else {}),
    }
    permute = [*parts, *([LAYERNORMS] if LAYERNORMS in players else [])] if perturbed else []
    return Recipe(
        parts={" + ".join(parts): donor} if parts else {},
        donor=donor if from_donor else None,
        perturb={part: Permute() for part in permute},
        **from_donor,
    )


def arm(rule: str, players: Iterable[str], perturbed: bool = False) -> str:
    """The name of an arm, such as ``"haystack: set, L0.attn, ln"``; no players are the random start of every rule."""
    moved = [player for player in PLAYERS if player in set(players)]
    return f"{TASK}: {', '.join([rule, *moved])}{', permuted' if perturbed else ''}" if moved else f"{TASK}: random"


def study(scale: str = "laptop", seeds: Sequence[int] | None = None) -> Study:
    """Every coalition, or those that the paper's scale has time for, and the controls."""
    size, chosen = scale_of(scale), seeds_of(seeds)
    arms: dict[str, Recipe] = {arm("", ()): fresh()}
    for rule in RULES[scale]:
        for players in _coalitions(scale):
            arms[arm(rule, players)] = recipe(players, rule, positions=size.positions) if players else fresh()
        if rule == RULES[scale][0]:
            for player in PLAYERS[:5]:  # of the embeddings the mean is moved, which has nothing to permute
                arms[arm(rule, [player], True)] = recipe([player], rule, True)
    for player in PLAYERS:
        arms[arm(WRONG_RULE, [player])] = recipe([player], WRONG_RULE, positions=size.positions)
    donors = {rule: size.donor(rule) for rule in (*RULES[scale], WRONG_RULE)}
    named = {name.removeprefix(f"{TASK}: "): each for name, each in arms.items()}
    runs: Runs = size.task_runs(TASK, named, donors, chosen)
    if scale == "paper":
        known = set(arms)
        runs += [(f"{TASK}: set, {name.removeprefix(f'{TASK}: ')}", run) for name, run in head_runs(size, chosen)
                 if name not in known]  # fmt: skip
    random = arm("", ())
    pairs = tuple((name, random) for name in dict.fromkeys(name for name, _ in runs) if name != random)
    family = Family(TASK, pairs, n_seeds=len(SEEDS), descriptive=True, measure=MEASURE, smallest_effect=SMALLEST)
    return Study(f"transfer map ({scale})", runs, (family,), claims(size), question=QUESTION)


def _coalitions(scale: str) -> list[frozenset[str]]:
    if scale == "laptop":
        return coalitions(PLAYERS)
    everything = frozenset(PLAYERS)
    return [frozenset([p]) for p in PLAYERS] + [everything - {p} for p in PLAYERS] + [everything]


def claims(size: Scale) -> list[Claim]:
    """Attention carries more of the gain of set than MLPs do."""
    attention = {"L0.attn": 1.0, "L1.attn": 1.0, "L0.mlp": -1.0, "L1.mlp": -1.0}
    statement = "Of the gain of set on the haystack the attention of both layers carries more than their MLPs."
    if size.name == "laptop":
        weights = {arm("set", who): weight for who, weight in shapley_contrast(PLAYERS, attention).items()}
        name = "Shapley values of attention minus those of MLPs"
    else:
        weights = {arm("set", [player]): weight for player, weight in attention.items()}
        name = "attention of each layer alone minus its MLP alone"
    return [Claim("map", statement, (Contrast(name, weights, SMALLEST, stair=STAIR),), measure=MEASURE)]
