"""How often a claim gets a wrong word, measured on scores that come in stairs.

Each scenario is a truth at the edge of what a claim says, where a wrong word is most likely: no effect at all, an
effect of exactly the smallest size that matters, arms that are equally good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from mechproc.statistics.claims import Claim, Contrast, Test, against

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
CHUNK = 250
"""Simulated studies at once; the subset sums of more would fill the memory."""


@dataclasses.dataclass(frozen=True)
class ClaimScenario:
    """A claim, the scores of its arms, and the word that would be wrong."""

    name: str
    claim: Claim
    arms: dict[str, Draw]
    wrong: str


def scenarios(
    scores: str, control: Draw, better: Draw, effect: float, stair: float, n_seeds: int
) -> Iterator[ClaimScenario]:
    """The scenarios for one kind of scores; ``better`` is a draw whose mean is ``effect`` above that of ``control``."""
    arms = ("a", "b", "c")

    def claim(test: Test) -> Claim:
        contrasts = tuple(against(arm, "control", effect, test, stair) for arm in arms)
        return Claim(test, "Declared before.", contrasts, n_seeds=n_seeds)

    null = {arm: control for arm in (*arms, "control")}
    edge = {arm: better for arm in arms} | {"control": control}
    yield ClaimScenario(f"{scores}, three arms without an effect", claim("effect"), null, "supported")
    yield ClaimScenario(f"{scores}, three arms with the smallest effect", claim("effect"), edge, "refuted")
    yield ClaimScenario(f"{scores}, three arms at the edge of equivalence", claim("equivalence"), edge, "supported")
    yield ClaimScenario(f"{scores}, three arms like the control", claim("equivalence"), null, "refuted")
    yield ClaimScenario(f"{scores}, best of four that are equal", claim("best of all"), null, "supported")
    half = Contrast("more than half is lost", {"a": 0.5, "b": -1.0, "control": 0.5}, effect, stair=stair)
    lost = Claim("half", "Declared before.", (half,), n_seeds=n_seeds)
    yield ClaimScenario(f"{scores}, half of a gain that is not there", lost, null, "supported")


def wrong_words(scenario: ClaimScenario, rng: np.random.Generator, n_simulations: int) -> np.ndarray:
    """Whether the claim or one of its contrasts gets the wrong word, bool [simulation]; of best of all, the claim."""
    claim = scenario.claim
    scores = {arm: draw(rng, (n_simulations, claim.n_seeds)) for arm, draw in scenario.arms.items()}
    contrasts = [np.sum([w * scores[arm] for arm, w in c.weights.items()], axis=0) for c in claim.contrasts]
    values = np.stack(contrasts, axis=1)
    words = [claim.decide(values[i : i + CHUNK]).words for i in range(0, n_simulations, CHUNK)]
    wrong = np.concatenate(words) == scenario.wrong
    return wrong.all(axis=-1) if claim.is_best_of_all else wrong.any(axis=-1)
