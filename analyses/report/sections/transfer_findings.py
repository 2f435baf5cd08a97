"""What was found in a study of one transfer: scores, verdicts, and the head that carries the effect.

Nothing is trained here. A head is chosen by its attention on *validation* items; its ablation is measured on *test*
items, so that the choice does not inflate the effect.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd

from analyses import ablation, attention
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation, components
from mechproc.model.parts import heads as heads_of
from mechproc.procedures.base import Items
from mechproc.result import Label, Result
from mechproc.runs.store import Store
from mechproc.statistics.paired import interval
from mechproc.statistics.verdicts import Verdicts
from mechproc.studies.study import Study

N_ITEMS = 500
"""Validation items that the head is chosen on, and test items that it is ablated on."""


@dataclasses.dataclass(frozen=True)
class TransferFindings:
    """What ``collect`` found. Every Result is on the page of ``analyses.report.sections.transfer`` too."""

    study: Study
    arm: str
    """The arm whose models are analysed."""
    control: str
    """The arm that it is compared with."""
    mask: str
    """The attention target that the head is chosen by."""
    crossed: float
    """Accuracy from which a run counts as having crossed the plateau."""
    scores: Result
    """Test accuracy (arm, seed); its metadata have the warnings, the ceiling and the baselines of the task."""
    curves: Result
    crossings: Result
    verdicts: Verdicts
    """With notes on floors, ceilings and donors, to be read first."""
    donors: pd.DataFrame
    ranked_heads: dict[Label, list[str]]
    """By seed, the heads from the one that attends most to the target, after training, to the one that does least."""
    target_attention: Result
    """Attention on every target before and after training (mask, when, rank, seed)."""
    control_attention: Result
    """The same for the control arm."""
    ablations: Result
    """Accuracy lost (ablation, part, seed) in ``arm``."""
    example: Items
    example_seed: int
    example_patterns: Result

    @property
    def heads(self) -> dict[Label, str]:
        """By seed, the head that attends most to the target, after training."""
        return {seed: ranked[0] for seed, ranked in self.ranked_heads.items()}

    @property
    def head_effect(self) -> np.ndarray:
        """Test accuracy lost when the chosen head is mean-ablated, float64 [seed]."""
        effects = self.ablations.select(ablation=Ablation.MEAN.value)
        return np.array([effects.select(part=head, seed=seed).values for seed, head in self.heads.items()])

    @property
    def other_heads_effect(self) -> np.ndarray:
        """The same, mean over the other heads of the same model: the matched control, float64 [seed]."""
        effects = self.ablations.select(ablation=Ablation.MEAN.value)
        names = heads_of(self.study.run_of(self.arm, self.study.seeds[0]).model)
        means = []
        for seed, head in self.heads.items():
            others = [name for name in names if name != head]
            means.append(effects.select(part=others, seed=seed).values.mean())
        return np.array(means)

    def sentences(self) -> tuple[str, str]:
        """The finding: the verdict of the arm, and what its head does; neither is stronger than its interval."""
        verdict = next(
            v for v in self.verdicts if v.comparison.treatment == self.arm and v.comparison.control == self.control
        )
        others = [
            f"against {v.comparison.control}: {v.word} ({points(v.comparison.mean)} points)"
            for v in self.verdicts
            if v.comparison.treatment == self.arm and v is not verdict
        ]
        return "; ".join([capital(verdict.sentence()), *others]) + ".", self._head_sentence()

    def _head_sentence(self) -> str:
        gap = self.head_effect - self.other_heads_effect
        difference = interval(gap)
        before, after = (self._attended(self.target_attention, when) for when in ("before", "after"))
        control = self._attended(self.control_attention, "after")
        task = self.study.run_of(self.arm, self.study.seeds[0]).procedure
        target = task.attention_target_names[self.mask].split(":")[0]
        if difference.low > 0:
            lead = "One head of each model carries more of the effect than the other heads do on average"
        elif difference.high < 0:
            lead = "The head chosen by its attention carries less of the effect than the other heads do on average"
        else:
            lead = "It is undecided whether one head carries more of the effect than the other heads do on average"
        ends = f"{points(difference.low)} to {points(difference.high)}" if difference.bounded else "unbounded"
        return (
            f"{lead}: mean ablation of the head that attends most {target} (chosen on validation items) costs "
            f"{points(self.head_effect.mean())} points of test accuracy, mean ablation of another head "
            f"{points(self.other_heads_effect.mean())} on average (difference {points(gap.mean())}, "
            f"{percent(difference.level)} interval {ends}, {difference.n_seeds} seeds). This head puts "
            f"{percent(before)} of its attention on that target before training on the task and {percent(after)} "
            f"after; the best head of the {self.control} arm {percent(control)} after."
        )

    def summary(self) -> dict[str, Any]:
        """The numbers of the page as plain JSON."""
        return {
            "study": self.study.name,
            "seeds": list(self.study.seeds),
            "finding": list(self.sentences()),
            "accuracy": {arm: self.scores.select(arm=arm).values.tolist() for arm in self.study.arms},
            "crossed": {arm: n for arm, n in self.n_crossed.items()},
            "verdicts": [verdict.row() for verdict in self.verdicts],
            "notes": self.verdicts.notes(),
            "ceiling": self.scores.metadata["ceiling"],
            "baselines": self.scores.metadata["baselines"],
            "donors": self.donors.to_dict("records"),
            "heads": {str(seed): head for seed, head in self.heads.items()},
            "accuracy_lost_without_head": self.head_effect.tolist(),
            "accuracy_lost_without_other_heads": self.other_heads_effect.tolist(),
        }

    @property
    def n_crossed(self) -> dict[str, int]:
        """By arm, how many seeds end above ``crossed``."""
        return {arm: int((self.scores.select(arm=arm).values >= self.crossed).sum()) for arm in self.study.arms}

    def _attended(self, result: Result, when: str) -> float:
        return float(result.select(mask=self.mask, when=when, rank=1).values.mean())


def collect(study: Study, store: Store, *, arm: str, control: str, mask: str, crossed: float) -> TransferFindings:
    """Analyse the models of ``arm`` in a complete study, compared with ``control``.

    ``mask`` names the task's attention target; ``crossed`` is the accuracy that counts as having left the plateau.
    """
    task = study.run_of(arm, study.seeds[0]).procedure
    validation = task.items(N_ITEMS, split="validation")
    masks = task.attention_targets(validation)
    models, target_attention, scored = _attention(study, store, arm, validation, masks)
    _, control_attention, _ = _attention(study, store, control, validation, masks)
    verdicts, scores = study.judge(store), study.scores(store)
    test = store.test(study.run_of(arm, study.seeds[0]))
    levels = {"warnings": verdicts.notes(), "ceiling": test["ceiling"], "baselines": test["baselines"]}
    scores = dataclasses.replace(scores, metadata={**scores.metadata, **levels})
    of_arm = scores.select(arm=arm).values
    example_seed = study.seeds[int(np.argsort(of_arm)[len(of_arm) // 2])]  # the median seed, not a chosen one
    example = _longest(task.items(64))
    return TransferFindings(
        study=study,
        arm=arm,
        control=control,
        mask=mask,
        crossed=crossed,
        scores=scores,
        curves=study.curves(store),
        crossings=study.crossings(store, crossed),
        verdicts=verdicts,
        donors=study.donors(store),
        ranked_heads=attention.match_heads(scored, mask),
        target_attention=target_attention,
        control_attention=control_attention,
        ablations=ablation.compare(models, task, _parts(models), n_items=N_ITEMS),
        example=example,
        example_seed=example_seed,
        example_patterns=attention.patterns(models[example_seed], example),
    )


def _attention(
    study: Study, store: Store, arm: str, items: Items, masks: dict[str, np.ndarray]
) -> tuple[dict[Label, HookedTransformer], Result, Result]:
    """The trained models of an arm, the attention of their heads before and after training, and the scores after."""
    runs = {seed: study.run_of(arm, seed) for seed in study.seeds}
    before = {seed: HookedTransformer(*store.checkpoint(run, 0)) for seed, run in runs.items()}
    after: dict[Label, HookedTransformer] = {seed: HookedTransformer(*store.model(run)) for seed, run in runs.items()}
    score = functools.partial(attention.scores, items=items, masks=masks)
    scored = score(after)
    return after, attention.before_after(score(before), scored), scored


def _parts(models: dict[Label, HookedTransformer]) -> list[str]:
    """The rows of the ablation maps: embeddings, the attention of each layer as a whole, then heads and MLPs."""
    cfg = next(iter(models.values())).cfg
    return ["embed", "pos", *(f"L{layer}.attn" for layer in range(cfg.n_layers)), *components(cfg)]


def _longest(items: Items) -> Items:
    """The first of the longest items, alone."""
    return items.take(np.array([int(np.argmax(items.n_tokens))]))


def points(fraction: float) -> str:
    """A difference of fractions in hundredths, with its sign."""
    return f"{100 * fraction:+.1f}"


def percent(fraction: float) -> str:
    """A fraction in percent, rounded."""
    return f"{100 * fraction:.0f} %"


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
