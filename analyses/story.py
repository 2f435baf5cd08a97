"""The whole story of one transfer, from finished runs to a page: which part, which head, and what may be said of it.

Nothing is trained here. The head is chosen by where it looks on *validation* items; what it costs to take it out is
measured on *test* items, so that the choice does not flatter the effect.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd

from analyses import ablation, attention, figures
from analyses.report import Report
from mechproc.model.hooked import HookedTransformer
from mechproc.model.parts import Ablation, components
from mechproc.model.parts import heads as heads_of
from mechproc.procedures.base import Items
from mechproc.result import Label, Result
from mechproc.runs.store import Store
from mechproc.statistics.comparisons import Verdict
from mechproc.statistics.paired import interval
from mechproc.statistics.survival import Crossing, restricted_mean
from mechproc.studies.study import Study

N_ITEMS = 500
"""Validation items that the head is chosen on, and test items that it is ablated on."""


@dataclasses.dataclass(frozen=True)
class Story:
    """What ``run`` found. Every Result stands on the page too."""

    study: Study
    arm: str
    """The arm that is looked into."""
    control: str
    mask: str
    """The attention target that the head is chosen by."""
    crossed: float
    """Accuracy from which a run counts as having crossed the plateau."""
    scores: Result
    """Test accuracy (arm, seed)."""
    curves: Result
    crossings: Result
    verdicts: list[Verdict]
    donors: pd.DataFrame
    ceiling: float
    baselines: dict[str, float]
    heads: dict[Label, str]
    """By seed, the head that looks at the target most, after training."""
    looking: Result
    """Attention on every target before and after training (mask, when, rank, seed)."""
    looking_control: Result
    """The same for the control arm."""
    ablations: Result
    """Accuracy lost (ablation, part, seed) in ``arm``."""
    example: Items
    example_seed: int
    example_patterns: Result

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
            f"against {v.comparison.control}: {v.word} ({_points(v.comparison.mean)} points)"
            for v in self.verdicts
            if v.comparison.treatment == self.arm and v is not verdict
        ]
        first = "; ".join([_capital(verdict.sentence()), *others]) + "."
        difference = interval(self.head_effect - self.other_heads_effect)
        before, after = (self._looking_at(self.looking, when) for when in ("before", "after"))
        control = self._looking_at(self.looking_control, "after")
        looks = self.study.run_of(self.arm, self.study.seeds[0]).procedure.mask_names[self.mask].split(":")[0]
        gap = self.head_effect - self.other_heads_effect
        if difference.low > 0:
            lead = "One head of each model carries more of it than the others do on average"
        elif difference.high < 0:
            lead = "The head looked for carries less of it than the others do on average"
        else:
            lead = "Whether one head carries more of it than the others is undecided"
        second = (
            f"{lead}: the head that looks most {looks} (chosen on validation items) costs "
            f"{_points(self.head_effect.mean())} points of test accuracy when mean-ablated, the other heads "
            f"{_points(self.other_heads_effect.mean())} on average (difference {_points(gap.mean())}, "
            f"{_percent(difference.level)} interval {_points(difference.low)} to {_points(difference.high)}, "
            f"{difference.n_seeds} seeds); it looks there with {_percent(before)} of its attention before the task "
            f"is trained and {_percent(after)} after; the best head of a {self.control} start with {_percent(control)} "
            "after."
        )
        return first, second

    def summary(self) -> dict[str, Any]:
        """The numbers of the page as plain JSON."""
        return {
            "study": self.study.name,
            "seeds": list(self.study.seeds),
            "finding": list(self.sentences()),
            "accuracy": {arm: self.scores.select(arm=arm).values.tolist() for arm in self.study.arms},
            "crossed": {arm: n for arm, n in self.n_crossed.items()},
            "verdicts": [verdict.row() for verdict in self.verdicts],
            "ceiling": self.ceiling,
            "baselines": self.baselines,
            "donors": self.donors.to_dict("records"),
            "heads": {str(seed): head for seed, head in self.heads.items()},
            "accuracy_lost_without_head": self.head_effect.tolist(),
            "accuracy_lost_without_other_heads": self.other_heads_effect.tolist(),
        }

    @property
    def n_crossed(self) -> dict[str, int]:
        """By arm, how many seeds end above ``crossed``."""
        return {arm: int((self.scores.select(arm=arm).values >= self.crossed).sum()) for arm in self.study.arms}

    def _looking_at(self, looking: Result, when: str) -> float:
        return float(looking.select(mask=self.mask, when=when, rank=1).values.mean())


def run(study: Study, store: Store, *, arm: str, control: str, mask: str, crossed: float) -> Story:
    """Look into ``arm`` of a complete study, with ``control`` beside it; ``mask`` names the task's attention target."""
    task = study.run_of(arm, study.seeds[0]).procedure
    validation = task.items(N_ITEMS, split="validation")
    masks = task.target_masks(validation)
    models, looking = _looked(study, store, arm, validation, masks)
    _, looking_control = _looked(study, store, control, validation, masks)
    ranked = looking.metadata["heads"][mask]
    heads: dict[Label, str] = {seed: ranked[str(seed)][0] for seed in study.seeds}
    scores = study.scores(store)
    test = store.test(study.run_of(arm, study.seeds[0]))
    of_arm = scores.select(arm=arm).values
    example_seed = study.seeds[int(np.argsort(of_arm)[len(of_arm) // 2])]  # the median seed: no picking
    example = _longest(task.items(64))
    return Story(
        study=study,
        arm=arm,
        control=control,
        mask=mask,
        crossed=crossed,
        scores=scores,
        curves=study.curves(store),
        crossings=study.crossings(store, crossed),
        verdicts=study.judge(store),
        donors=study.donors(store),
        ceiling=test["ceiling"],
        baselines=test["baselines"],
        heads=heads,
        looking=looking,
        looking_control=looking_control,
        ablations=ablation.survey(models, task, _parts(models), n_items=N_ITEMS),
        example=example,
        example_seed=example_seed,
        example_patterns=attention.patterns(models[example_seed], example),
    )


def report(story: Story) -> Report:
    """The page."""
    study, arm = story.study, story.arm
    n = len(study.seeds)
    page = Report(study.name, f"{n} paired seeds, {len(study.arms)} arms")
    page.heading("The finding")
    for sentence in story.sentences():
        page.text(sentence)
    page.heading("Which part carries it")
    lines = {"best attainable": story.ceiling} | {name: value for name, value in _best(story.baselines).items()}
    page.figure(figures.arms(story.scores, lines), "Every seed of every arm after the task's training.")
    page.table(pd.DataFrame([_verdict_row(v) for v in story.verdicts]), _family_caption(story))
    page.figure(figures.curves(story.curves), "How they got there.")
    page.table(
        _crossing_table(story),
        f"How many of the {n} seeds ended above {story.crossed:.0%}, and the mean steps to get there, counted to the "
        "end of the training for those that did not (restricted mean of the Kaplan-Meier curve). A mean accuracy over "
        "such seeds is mostly the fraction that crossed.",
    )
    page.heading("What the donors knew")
    n_better = int(np.sum(story.donors["accuracy"].to_numpy() > story.donors["baseline"].to_numpy()))
    page.text(
        f"{n_better} of {len(story.donors)} donors know more of their rule than the best predictor without it. Where "
        "that predictor is itself a mechanism, such as looking behind an earlier copy, it can be just what is carried "
        "over."
    )
    page.table(
        story.donors.rename(columns={"baseline_name": "that baseline"}),
        "Each donor on its own rule: test accuracy, the best attainable, the best without knowledge of the rule.",
    )
    page.heading("Where it is")
    page.text(
        f"The models that started from the donors' {arm}, with one part at a time taken out, on {N_ITEMS} test items. "
        "What an ablation means at each part is in the part table (mechproc parts)."
    )
    for kind in Ablation:
        page.figure(
            figures.ablation_map(story.ablations.select(ablation=kind.value)), f"{kind.value.capitalize()} ablation."
        )
    page.heading("Where its heads look")
    page.figure(
        figures.before_after(story.looking, story.mask),
        f"Attention on the target '{story.mask}', on validation items, before and after training, {arm} arm.",
    )
    tokens = [
        study.run_of(arm, story.example_seed).procedure.token_names[t]
        for t in story.example_patterns.metadata["tokens"][0]
    ]
    flat = story.example_patterns.values[:, :, 0]
    names = [f"L{layer}.H{head}" for layer in range(flat.shape[0]) for head in range(flat.shape[1])]
    layer, head = (int(number) for number in story.heads[story.example_seed][1:].split(".H"))
    page.figure(
        figures.pattern(story.example_patterns.select(item=0, layer=layer, head=head), tokens),
        f"The head that looks at the target '{story.mask}' most, L{layer}.H{head} of the median seed "
        f"({story.example_seed}).",
    )
    page.attention(
        tokens,
        np.nan_to_num(flat.reshape(-1, *flat.shape[2:])),
        f"All heads of the median seed ({story.example_seed}) on one test item. Its head that looks at the "
        f"target '{story.mask}' most is {story.heads[story.example_seed]}. One seed and one item: no evidence.",
        names,
    )
    page.heading("How it was made")
    page.table(_how(story), f"The {arm} arm, seed {study.seeds[0]}; seeds differ in nothing else.")
    return page


def _looked(
    study: Study, store: Store, arm: str, items: Items, masks: dict[str, np.ndarray]
) -> tuple[dict[Label, HookedTransformer], Result]:
    """The trained models of an arm, and where their heads look before and after training."""
    runs = {seed: study.run_of(arm, seed) for seed in study.seeds}
    before = {seed: HookedTransformer(*store.checkpoint(run, 0)) for seed, run in runs.items()}
    after: dict[Label, HookedTransformer] = {seed: HookedTransformer(*store.model(run)) for seed, run in runs.items()}
    score = functools.partial(attention.scores, items=items, masks=masks)
    return after, attention.before_after(score(before), score(after))


def _parts(models: dict[Label, HookedTransformer]) -> list[str]:
    """The rows of the ablation maps: embeddings, the attention of each layer as a whole, then heads and MLPs."""
    cfg = next(iter(models.values())).cfg
    return ["embed", "pos", *(f"L{layer}.attn" for layer in range(cfg.n_layers)), *components(cfg)]


def _longest(items: Items) -> Items:
    """The first of the longest items, as a block of one."""
    return items.take(np.array([int(np.argmax(items.n_tokens))]))


def _best(baselines: dict[str, float]) -> dict[str, float]:
    """The strongest predictor that does not know the rule."""
    name = max(baselines, key=lambda key: baselines[key])
    return {name: baselines[name]}


def _crossing_table(story: Story) -> pd.DataFrame:
    budget = float(story.study.run_of(story.arm, story.study.seeds[0]).training.last_step)
    rows = []
    for arm in story.study.arms:
        steps = story.crossings.select(arm=arm).values
        crossings = [Crossing(budget if np.isnan(step) else step, not np.isnan(step)) for step in steps.tolist()]
        rows.append(
            {
                "arm": arm,
                "crossed": f"{story.n_crossed[arm]} of {len(crossings)}",
                "restricted mean steps": f"{restricted_mean(crossings, budget):.0f} of {budget:.0f}",
            }
        )
    return pd.DataFrame(rows)


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    low, high = verdict.interval.low, verdict.interval.high
    return {
        "comparison": f"{verdict.comparison.treatment} against {verdict.comparison.control}",
        "points": _points(verdict.comparison.mean),
        "interval": f"{_points(low)} to {_points(high)}",
        "p": f"{verdict.p:.3g}",
        "p after Holm": f"{verdict.adjusted_p:.3g}",
        "verdict": verdict.word,
    }


def _family_caption(story: Story) -> str:
    family = story.study.families[0]
    return (
        f"The comparisons, fixed before the run: mean paired difference of test accuracy over "
        f"{len(story.study.seeds)} seeds, its {1 - family.alpha:.0%} interval by inversion of the sign-flip test, and "
        f"the exact p before and after Holm's correction over {len(family.pairs)}. Does not show whether longer "
        "training would close the gap."
    )


def _how(story: Story) -> pd.DataFrame:
    """What was run, a setting a row."""
    run = story.study.run_of(story.arm, story.study.seeds[0])
    rows = {"task": run.procedure, "model": run.model, "training": run.training, "recipe": run.recipe}
    for name, donor in ((name, needed) for name, origin in run.donors.items() for needed in origin.needs):
        rows |= {f"donor {name}: rule": donor.procedure, f"donor {name}: training": donor.training}
    settings = {what: _spelled(config.to_dict()) for what, config in rows.items()}
    settings["computed with"] = _spelled(story.scores.provenance[0][1])
    return pd.DataFrame({"what": list(settings), "settings": list(settings.values())})


def _spelled(plain: Any) -> str:
    if isinstance(plain, dict):
        return ", ".join(f"{key} {_spelled(value)}" for key, value in plain.items())
    return str(plain)


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
